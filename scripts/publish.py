"""A dataset in a layout of other tools: python scripts/publish.py DATASET --format coco ..."""

import sys

from d2i1_train.cli import main

if __name__ == "__main__":
    sys.exit(main(["publish", *sys.argv[1:]]))
