"""Creation on many devices: accelerate launch scripts/create.py --pipeline P ..."""

import sys

from d2i1_train.cli import main

if __name__ == "__main__":
    sys.exit(main(["create", *sys.argv[1:]]))
