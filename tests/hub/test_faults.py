"""What clients do when the Hub fails, is slow, is full, or when they die themselves."""

import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from tests.hub import Hub
from tests.hub.calls import Ask, refused, written
from tests.hub.lfs import PART

FILES = {
    "a.txt": b"text",
    "one.bin": np.random.default_rng(1).bytes(200_000),
    "two.bin": np.random.default_rng(2).bytes(PART + 1),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small file, a large one, and one that is uploaded in parts."""
    return written(tmp_path / "files", FILES)


def arrived(hub: Hub) -> bool:
    files = hub.files("alice/a")
    return {name: files.get(name) for name in FILES} == FILES


def served(hub: Hub, part: str) -> list[int]:
    """The statuses of requests whose path contains a text."""
    return [entry.status for entry in hub.log if part in entry.path]


LFS = (
    ("POST", "/preupload/"),
    ("POST", "/objects/batch"),
    ("PUT", "/storage/uploads/[^/]+$"),
    ("PUT", "/storage/uploads/[^/]+/2"),
    ("POST", "/complete_multipart/"),
    ("POST", "/lfs/verify"),
)
XET = (
    ("POST", "/preupload/", 503),
    ("GET", "/xet-write-token/", 503),
    ("POST", "/cas/v1/xorbs/", 503),
    ("POST", "/cas/v1/xorbs/", 0),
    ("POST", "/cas/v1/shards", 503),
    ("POST", "/commit/main", 503),
    ("POST", "/commit/main", 429),
)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("sending", ["lfs"], indirect=True)
@pytest.mark.parametrize("status", [503, 429, 0])
@pytest.mark.parametrize(("method", "pattern"), LFS, ids=[pattern for _, pattern in LFS])
def test_uploads_without_xet_survive(
    hub: Hub, api: HfApi, folder: Path, sending: str, method: str, pattern: str, status: int
) -> None:
    api.create_repo("alice/a")
    hub.fail(method, pattern, status, times=2)
    api.upload_folder(repo_id="alice/a", folder_path=folder)
    assert [entry.status for entry in hub.log].count(status) == 2
    assert arrived(hub)
    assert max(hub.sent.values()) == 1  # what was answered by a fault is not counted


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("sending", ["xet"], indirect=True)
@pytest.mark.parametrize(("method", "pattern", "status"), XET)
def test_uploads_with_xet_survive(
    hub: Hub, api: HfApi, folder: Path, sending: str, method: str, pattern: str, status: int
) -> None:
    api.create_repo("alice/a")
    hub.fail(method, pattern, status)
    api.upload_folder(repo_id="alice/a", folder_path=folder)
    assert [entry.status for entry in hub.log].count(status) == 1
    assert arrived(hub)


@pytest.mark.parametrize("status", [409, 412, 429, 500, 503])
def test_commits_alone_are_not_tried_again(hub: Hub, api: HfApi, sending: str, status: int) -> None:
    """So callers of create_commit must retry."""
    api.create_repo("alice/a")
    hub.fail("POST", "/commit/main", status)
    file = {"path_or_fileobj": FILES["one.bin"], "path_in_repo": "one.bin", "repo_id": "alice/a"}
    refused(status, "a fault", api.upload_file, **file)
    assert served(hub, "/commit/") == [status]
    api.upload_file(**file)
    assert hub.sent[sha256(FILES["one.bin"]).hexdigest()] == 1


def test_faults_have_headers_and_bodies_and_end(hub: Hub, api: HfApi, ask: Ask) -> None:
    limit = {"RateLimit": '"api";r=0;t=7', "Retry-After": "7"}
    hub.fail("GET", r"whoami-v\d", 429, times=2, headers=limit, body=b'{"error": "slowly"}')
    hub.fail("GET", "whoami", 500)
    answers = [ask("GET", "/api/whoami-v2") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [429, 429, 500, 200]
    assert answers[0].headers["RateLimit"] == '"api";r=0;t=7'
    assert answers[0].json() == {"error": "slowly"}
    hub.fail("GET", "whoami", 500)
    hub.reset()
    assert ask("GET", "/api/whoami-v2").status_code == 200


def test_downloads_survive(hub: Hub, api: HfApi, folder: Path, sending: str, soon: None) -> None:
    api.create_repo("alice/a")
    api.upload_folder(repo_id="alice/a", folder_path=folder)
    pattern = "/storage/xorbs/" if sending == "xet" else "/storage/files/"
    hub.fail("GET", pattern, 429)
    assert Path(hf_hub_download("alice/a", "one.bin")).read_bytes() == FILES["one.bin"]
    assert 429 in served(hub, pattern)


# --- storage that is full ---


@pytest.mark.parametrize(
    ("private", "said"), [(True, "Private repository storage limit"), (False, "storage patterns")]
)
def test_a_full_storage(
    hub: Hub, api: HfApi, folder: Path, sending: str, private: bool, said: str
) -> None:
    api.create_repo("alice/a", private=private)
    hub.quota = 1_000_000
    refused(403, said, api.upload_folder, repo_id="alice/a", folder_path=folder)
    assert len(hub.repo("alice/a").commits) == 1
    small = {"path_or_fileobj": FILES["one.bin"], "path_in_repo": "one.bin", "repo_id": "alice/a"}
    hub.quota = 0
    with pytest.raises((HfHubHTTPError, ConnectionError), match="403"):  # hf_xet raises the latter
        api.upload_file(**small)
    hub.quota = None
    api.upload_file(**small)
    assert "one.bin" in hub.files("alice/a")


def test_each_user_has_a_quota(hub: Hub, api: HfApi, sending: str) -> None:
    """Each content counts once, also after it was deleted from the branch."""
    hub.quota = 300_000
    one = {"path_or_fileobj": FILES["one.bin"], "repo_id": "alice/a"}
    api.create_repo("alice/a")
    api.upload_file(**one, path_in_repo="one.bin")
    api.upload_file(**one, path_in_repo="again.bin")
    api.delete_file("one.bin", "alice/a")
    other = os.urandom(200_000)
    with pytest.raises((HfHubHTTPError, OSError)):
        api.upload_file(path_or_fileobj=other, path_in_repo="x.bin", repo_id="alice/a")
    bob = HfApi(token=hub.bob_token)
    bob.create_repo("bob/b")
    bob.upload_file(path_or_fileobj=other, path_in_repo="x.bin", repo_id="bob/b")
    assert hub.files("bob/b")["x.bin"] == other


# --- clients that die ---

UPLOAD = """
import sys
from huggingface_hub import HfApi
HfApi().upload_folder(repo_id="alice/a", folder_path=sys.argv[1])
"""


def test_a_killed_upload_is_completed_by_the_next(
    hub: Hub, api: HfApi, folder: Path, sending: str
) -> None:
    api.create_repo("alice/a")
    hub.delay = 0.5
    command = [sys.executable, "-c", UPLOAD, str(folder)]
    first = subprocess.Popen(command)
    bytes_go = "/cas/v1/xorbs/" if sending == "xet" else "/storage/uploads/"
    deadline = time.monotonic() + 30
    while not served(hub, bytes_go) and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    hub.delay = 0
    time.sleep(0.6)  # what the dead client had sent completely is still served
    assert len(hub.repo("alice/a").commits) == 1 and not served(hub, "/commit/")

    subprocess.run(command, check=True)
    assert arrived(hub)
    times = {hub.sent[sha256(FILES[name]).hexdigest()] for name in ("one.bin", "two.bin")}
    assert times <= {1, 2} and max(hub.sent.values()) <= 2
    assert len(hub.repo("alice/a").commits) == 2


# --- the log ---


def test_the_log_names_tokens_and_never_shows_them(hub: Hub, api: HfApi, sending: str) -> None:
    api.create_repo("alice/a")
    file = {"path_or_fileobj": FILES["one.bin"], "path_in_repo": "one.bin", "repo_id": "alice/a"}
    api.upload_file(**file)
    assert {entry.token for entry in hub.log} == {"alice-write", None}
    assert hub.token not in repr(hub.log)
    assert sum(entry.received for entry in hub.log) > 200_000
    hub.reset()
    assert (hub.log, hub.store.repos, +hub.sent) == ([], {}, {})
