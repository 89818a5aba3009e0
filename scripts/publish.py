"""Datasets, pipelines and runs on the Hub: python scripts/publish.py --run D --repo_id user/name"""

import sys

from d2i1_train.cli import main

if __name__ == "__main__":
    sys.exit(main(["publish", *sys.argv[1:]]))
