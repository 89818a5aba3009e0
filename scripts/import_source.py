"""Real data into our schema: python scripts/import_source.py --source S --output_dir D"""

import sys

from d2i1_train.cli import main

if __name__ == "__main__":
    sys.exit(main(["import", *sys.argv[1:]]))
