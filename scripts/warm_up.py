"""Stage 1, warm-up: accelerate launch scripts/warm_up.py --config rooms --output_dir D"""

import sys

from d2i1_train.cli import main

if __name__ == "__main__":
    sys.exit(main(["warm-up", *sys.argv[1:]]))
