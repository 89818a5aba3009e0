"""Stage 2, self-improving: accelerate launch scripts/self_improve.py --pipeline P ..."""

import sys

from d2i1_train.cli import main

if __name__ == "__main__":
    sys.exit(main(["self-improve", *sys.argv[1:]]))
