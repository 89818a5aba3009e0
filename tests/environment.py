"""What every test and what it launches finds: a Hub of this machine, an empty home of its clients.

Imported before anything else, since the clients read the environment when they are imported.
"""

import os
import tempfile

from tests.hub import Hub

HUB = Hub()
HUB.start()
HOME = tempfile.mkdtemp(prefix="hf-home-")

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: see CONTRIBUTING.md
os.environ |= {
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
