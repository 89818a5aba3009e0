"""A small base from scratch: python scripts/base.py --config base-rooms --output_dir D"""

import sys

from d2i1_train.cli import main

if __name__ == "__main__":
    sys.exit(main(["base", *sys.argv[1:]]))
