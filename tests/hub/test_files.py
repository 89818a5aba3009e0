"""Files: uploaded, listed, read and deleted by huggingface_hub, with Xet and without."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    get_session,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError

from tests.hub import Hub
from tests.hub.calls import Ask, refused, written
from tests.hub.lfs import PART
from tests.hub.store import git_oid

RNG = np.random.default_rng(0)
CONTENTS = {
    "README.md": b"---\nlicense: mit\n---\n# Weights\n",
    "config.json": b"{}",
    "empty.txt": b"",
    "weights/w.safetensors": RNG.normal(size=500_000).astype(np.float32).tobytes(),
    "weights/zeros.bin": bytes(300_000),
    "image.png": RNG.bytes(100),
    "large.bin": RNG.bytes(PART + 1),
}
LARGE = {name for name in CONTENTS if name not in ("README.md", "config.json", "empty.txt")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small and large files, texts and binaries."""
    return written(tmp_path / "folder", CONTENTS)


@pytest.fixture
def pushed(api: HfApi, folder: Path, sending: str) -> str:
    """A repository with those files; its commit."""
    api.create_repo("alice/a")
    return api.upload_folder(repo_id="alice/a", folder_path=folder).oid


def asked(hub: Hub, part: str) -> list[str]:
    """The requested paths that contain a text."""
    return [served.path for served in hub.log if part in served.path]


def test_a_folder_arrives(hub: Hub, pushed: str, sending: str) -> None:
    files = hub.files("alice/a")
    assert files.pop(".gitattributes")
    assert files == CONTENTS
    tree = hub.repo("alice/a").commits[0].tree
    assert {name for name, blob in tree.items() if blob.large} == LARGE
    ids = {sha256(CONTENTS[name]).hexdigest() for name in LARGE}
    ids |= {git_oid(CONTENTS[name]) for name in CONTENTS.keys() - LARGE}
    assert {oid: times for oid, times in hub.sent.items() if times} == dict.fromkeys(ids, 1)
    assert bool(asked(hub, "/cas/v1/xorbs/")) == (sending == "xet")
    assert len(asked(hub, "complete_multipart")) == (sending == "lfs")
    assert hub.unknown == []


def test_existing_files_are_not_sent_again(hub: Hub, api: HfApi, pushed: str, folder: Path) -> None:
    sent = hub.sent
    assert api.upload_folder(repo_id="alice/a", folder_path=folder).oid == pushed
    (folder / "config.json").write_bytes(b"[]")
    api.upload_folder(repo_id="alice/a", folder_path=folder, path_in_repo="copy")
    assert hub.files("alice/a")["copy/large.bin"] == CONTENTS["large.bin"]
    again = hub.sent - sent
    assert sum(again[sha256(CONTENTS[name]).hexdigest()] for name in LARGE) == 0
    assert again[git_oid(b"[]")] == 1


def test_another_client_reads_them(hub: Hub, pushed: str) -> None:
    snapshot = Path(snapshot_download("alice/a", token=hub.read_token))
    assert snapshot.name == pushed
    for name, content in CONTENTS.items():
        assert (snapshot / name).read_bytes() == content
    assert hub.unknown == []


def test_clients_without_xet_read_files_of_xet(
    hub: Hub, api: HfApi, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.create_repo("alice/a")
    api.upload_folder(repo_id="alice/a", folder_path=folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    file = hf_hub_download("alice/a", "weights/w.safetensors")
    assert Path(file).read_bytes() == CONTENTS["weights/w.safetensors"]
    assert asked(hub, "/storage/files/") and not asked(hub, "/storage/xorbs/")


def test_file_systems_read_parts(hub: Hub, pushed: str) -> None:
    fs = HfFileSystem()
    assert sorted(fs.glob("alice/a/**/*.bin")) == ["alice/a/large.bin", "alice/a/weights/zeros.bin"]
    assert fs.info("alice/a/weights")["type"] == "directory"
    info = fs.info("alice/a/large.bin", expand_info=True)
    assert info["size"] == PART + 1 and info["last_commit"].oid == pushed
    with fs.open("alice/a/large.bin", block_size=1000) as file:
        file.seek(1234)
        assert file.read(10) == CONTENTS["large.bin"][1234:1244]
        file.seek(-3, 2)
        assert file.read() == CONTENTS["large.bin"][-3:]
    with fs.open("alice/a/README.md", "r") as file:
        assert "# Weights" in file.read()
    with pytest.raises(FileNotFoundError):
        fs.open("alice/a/none.bin")


def test_lists_of_files(hub: Hub, api: HfApi, pushed: str, sending: str) -> None:
    assert set(api.list_repo_files("alice/a")) == CONTENTS.keys() | {".gitattributes"}
    (folder, *files) = sorted(api.list_repo_tree("alice/a", "weights"), key=lambda e: e.path)
    assert (folder.path, len(files)) == ("weights/w.safetensors", 1)
    kinds = {type(entry).__name__ for entry in api.list_repo_tree("alice/a")}
    assert kinds == {"RepoFile", "RepoFolder"}
    (large,) = api.get_paths_info("alice/a", ["large.bin", "none.bin"])
    assert large.lfs.sha256 == sha256(CONTENTS["large.bin"]).hexdigest()
    assert large.size == large.lfs.size == PART + 1
    assert bool(large.xet_hash) == (sending == "xet")
    (small,) = api.get_paths_info("alice/a", "config.json", expand=True)
    assert small.blob_id == git_oid(b"{}") and small.last_commit.oid == pushed
    info = api.model_info("alice/a", files_metadata=True)
    assert {file.rfilename: file.size for file in info.siblings}["large.bin"] == PART + 1
    assert api.model_info("alice/a", expand=["sha"]).siblings is None
    assert info.card_data["license"] == "mit" and "license:mit" in info.tags
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("alice/a", "none"))


def test_long_lists_come_in_pages(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/many")
    names = [f"folder/{n:04}.txt" for n in range(1200)]
    adds = [CommitOperationAdd(name, b"same") for name in names]
    api.create_commit("alice/many", adds, commit_message="many")
    assert api.list_repo_files("alice/many")[:-1] == [".gitattributes", *names][:-1]
    assert len(asked(hub, "/preupload/")) == 5  # 256 at a time
    assert len(asked(hub, "/tree/main")) == 2


def test_files_that_are_missing(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/a")
    with pytest.raises(EntryNotFoundError) as raised:
        hf_hub_download("alice/a", "none.txt")
    commit = hub.repo("alice/a").commits[0].oid
    assert raised.value.response.headers["X-Repo-Commit"] == commit
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("alice/a", ".gitattributes", revision="none")


def test_ranges(api: HfApi, ask: Ask) -> None:
    api.create_repo("alice/a")
    api.upload_file(path_or_fileobj=b"0123456789", path_in_repo="ten.txt", repo_id="alice/a")
    path = "/alice/a/resolve/main/ten.txt"
    for asked_for, status, got, span in [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("pages=1-2", 200, b"0123456789", None),
    ]:
        answer = ask("GET", path, headers={"Range": asked_for})
        assert (answer.status_code, answer.content) == (status, got), asked_for
        assert answer.headers.get("Content-Range") == span
    head = ask("HEAD", path)
    assert (head.headers["Content-Length"], head.content) == ("10", b"")
    assert head.headers["ETag"] == f'"{git_oid(b"0123456789")}"'


def test_large_files_are_of_another_origin(hub: Hub, pushed: str, ask: Ask, sending: str) -> None:
    """The storage serves signed addresses. It refuses other addresses, and tokens."""
    path = "/alice/a/resolve/main/large.bin"
    answer = ask("HEAD", path, token=None, follow_redirects=False)
    oid = sha256(CONTENTS["large.bin"]).hexdigest()
    assert answer.status_code == 302 and answer.headers["X-Repo-Commit"] == pushed
    assert answer.headers["X-Linked-ETag"] == f'"{oid}"'
    assert answer.headers["X-Linked-Size"] == str(PART + 1)
    assert ("X-Xet-Hash" in answer.headers) == (sending == "xet")
    address = answer.headers["Location"]
    assert address.startswith(f"http://localhost:{hub.port}/")
    client = get_session()
    assert client.get(address).content == CONTENTS["large.bin"]
    assert client.get(address[:-1] + "x").status_code == 403
    leak = {"Authorization": f"Bearer {hub.token}"}
    assert client.get(address, headers=leak).status_code == 400


def test_deleting(hub: Hub, api: HfApi, pushed: str) -> None:
    api.delete_file("config.json", "alice/a")
    api.delete_folder("weights", "alice/a")
    assert hub.files("alice/a").keys() == {
        ".gitattributes",
        "README.md",
        "empty.txt",
        "image.png",
        "large.bin",
    }
    assert hub.files("alice/a", revision=pushed).keys() == CONTENTS.keys() | {".gitattributes"}
    raised = refused(404, "Entry Not Found", api.delete_file, "config.json", "alice/a")
    assert "doesn't exist" in str(raised)
    refused(404, "Entry Not Found", api.delete_folder, "weights", "alice/a")


def test_commits_on_an_old_state_are_refused(hub: Hub, api: HfApi, sending: str) -> None:
    api.create_repo("alice/a")
    seen = hub.repo("alice/a").commits[0].oid

    def change(content: bytes, **named: Any) -> Any:
        adds = [CommitOperationAdd("w.bin", content)]
        return api.create_commit("alice/a", adds, commit_message="w", parent_commit=seen, **named)

    first = change(b"1" * 100)
    raised = refused(412, "A commit has happened since", change, b"2" * 100)
    assert raised.response.status_code == 412
    assert hub.files("alice/a")["w.bin"] == b"1" * 100
    seen = first.oid
    change(b"2" * 100, commit_description="and why")
    newest = hub.repo("alice/a").commits[0]
    assert (newest.title, newest.message, newest.parent) == ("w", "and why", first.oid)


def test_ignored_files_are_not_sent(hub: Hub, api: HfApi, folder: Path, sending: str) -> None:
    (folder / ".gitignore").write_text("# mine\n*.png\nweights/\n")
    api.create_repo("alice/a")
    api.upload_folder(repo_id="alice/a", folder_path=folder)
    assert hub.files("alice/a").keys() == {
        ".gitattributes",
        ".gitignore",
        "README.md",
        "config.json",
        "empty.txt",
        "large.bin",
    }
    assert hub.sent[sha256(CONTENTS["image.png"]).hexdigest()] == 0


def test_a_branch_has_its_own_files(hub: Hub, api: HfApi, sending: str) -> None:
    api.create_repo("alice/a")
    named = {"repo_id": "alice/a", "revision": "v2", "commit_message": "v2"}
    refused(404, "Revision Not Found", api.create_commit, operations=[_add()], **named)
    api.create_branch("alice/a", branch="v2")
    api.create_commit(operations=[_add(), CommitOperationDelete(".gitattributes")], **named)
    assert hub.files("alice/a", revision="v2") == {"w.bin": b"\0" * 10}
    assert hub.files("alice/a").keys() == {".gitattributes"}


def _add() -> CommitOperationAdd:
    return CommitOperationAdd("w.bin", b"\0" * 10)
