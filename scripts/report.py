"""A report page of a dataset: python scripts/report.py DATASET ..."""

import sys

from d2i1_train.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
