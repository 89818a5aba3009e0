"""The environment of every test and of the processes it starts: one thread, a Hub on this machine.

Imported before anything else: torch and the Hub's clients read the environment on import. Each test
process has its own Hub and its own empty home of the clients.
"""

import os
import tempfile

from tests.hub import Hub

HUB = Hub()
HUB.start()
HOME = tempfile.mkdtemp(prefix="hf-home-")

os.environ |= {
    # Before torch. Sums round as in launched processes, which have one thread each, and test
    # processes side by side do not slow each other.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "HF_ENDPOINT": HUB.url,
    "HF_HOME": HOME,
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "no_proxy": "127.0.0.1,localhost",
}
inherited = ("TOKEN", "HUB_CACHE", "XET_CACHE", "HUB_OFFLINE", "DATASETS_OFFLINE")
for name in inherited:
    os.environ.pop(f"HF_{name}", None)
