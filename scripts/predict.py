"""Labels of image files for people: python scripts/predict.py IMAGE... --pipeline P ..."""

import sys

from d2i1_train.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
