"""Scores of the labels of a dataset: python scripts/judge.py DATASET --source S ..."""

import sys

from d2i1_train.cli import main

if __name__ == "__main__":
    sys.exit(main(["judge", *sys.argv[1:]]))
