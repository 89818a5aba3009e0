"""`python -m d2i1_train ACT` is the command `d2i1 ACT`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
