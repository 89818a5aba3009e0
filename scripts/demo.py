"""The whole loop on the embedded base: python scripts/demo.py --output_dir D"""

import sys

from d2i1_train.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
