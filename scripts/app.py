"""A web page for a pipeline: python scripts/app.py --pipeline P"""

import sys

from d2i1_train.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
