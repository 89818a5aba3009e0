"""Runs the Hub by hand: `python -m tests.hub --port 7777 --folder D` prints what to export."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from tests.hub.server import Hub


def main() -> None:
    """Serve until the process is interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes any free one")
    parser.add_argument(
        "--folder", type=Path, help="keep repositories in this folder; default: in memory"
    )
    asked = parser.parse_args()
    hub = Hub(asked.folder, asked.port)
    hub.start()
    sys.stdout.write(f"export HF_ENDPOINT={hub.url}\nexport HF_TOKEN={hub.token}\n")
    sys.stdout.write(
        f"# read-only token of alice: {hub.read_token}\n# token of bob: {hub.bob_token}\n"
    )
    sys.stdout.flush()
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        hub.stop()


if __name__ == "__main__":
    main()
