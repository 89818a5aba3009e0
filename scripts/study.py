"""Compare arms over seeds: python scripts/study.py --config study-unet --output_dir D"""

import sys

from d2i1_train.cli import main

if __name__ == "__main__":
    sys.exit(main(["study", *sys.argv[1:]]))
