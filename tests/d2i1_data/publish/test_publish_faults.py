"""Publishing through faults: kills, overload, conflicts, wrong tokens, full quotas."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import load_dataset
from huggingface_hub import HfApi

from d2i1_train.cli import main
from tests.hub import Hub
from tests.made import run

D2i1 = Callable[..., str]
# the requests of publishing: method and path
ROUTES = {
    "whoami": ("GET", r"/api/whoami-v2"),
    "create": ("POST", r"/api/repos/create"),
    "info": ("GET", r"/api/datasets/alice/rooms$"),
    "tree": ("GET", r"/api/datasets/.*/tree/"),
    "card": ("POST", r"/api/validate-yaml"),
    "preupload": ("POST", r"/api/datasets/.*/preupload/"),
    "commit": ("POST", r"/api/datasets/.*/commit/"),
}
OF_LFS = {"batch": ("POST", r"/info/lfs/objects/batch"), "put": ("PUT", r"")}
OF_XET = {
    "token": ("GET", r"/xet-write-token/"),
    "xorb": ("POST", r"/xorbs/"),
    "shard": ("POST", r"/shards"),
}
EVERY = [("lfs", name, status) for name in (ROUTES | OF_LFS) for status in (0, 409, 429, 503)]
EVERY += [("xet", name, status) for name in OF_XET for status in (0, 429, 503)]
SOON = [("lfs", name, 503) for name in ROUTES] + [("xet", "shard", 429)]
SOON += [("lfs", "commit", 0), ("lfs", "commit", 409), ("lfs", "preupload", 429)]
BUSY = b"Cannot create repo: another conflicting operation is in progress"  # as the Hub says it


@pytest.fixture(scope="module")
def folder(create: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven samples in seven shards."""
    return create(tmp_path_factory.mktemp("faults") / "created", "--shard_size", 1)


@pytest.fixture(autouse=True)
def _soon(soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2i1_data.hub.retry.FIRST_WAIT", 0.01)


def last(output: str) -> str:
    """The last line, which is the error; a progress bar may come before it."""
    return output.splitlines()[-1]


def assert_complete(hub: Hub, folder: Path) -> None:
    """All shards are there, byte by byte, and no file was received more than twice."""
    files = hub.files("alice/rooms", "dataset")
    shards = {f"data/{file.name}": file.read_bytes() for file in (folder / "data").iterdir()}
    assert {name: data for name, data in files.items() if name.startswith("data/")} == shards
    assert "README.md" in files and "plan.json" in files
    assert max(hub.sent.values()) <= 2


@pytest.mark.parametrize(
    ("sending", "route", "status"),
    [pytest.param(*one, marks=() if one in SOON else pytest.mark.slow) for one in EVERY],
    indirect=["sending"],
)
def test_temporary_errors_are_retried(
    hub: Hub, folder: Path, sending: str, route: str, status: int
) -> None:
    """Each route fails twice: no answer, a conflict, too many requests, or overload."""
    method, path = {**ROUTES, **OF_LFS, **OF_XET}[route]
    hub.fail(method, path, status, times=2, headers={"Retry-After": "0"}, body=BUSY)
    run("publish", folder, "--repo_id", "rooms")
    assert not hub.faults, "the route was not asked"
    assert_complete(hub, folder)


@pytest.mark.parametrize("path", [r"/resolve/", r"/paths-info/", r"/tree/", r"/commit/"])
def test_an_append_is_retried(
    hub: Hub, folder: Path, create: Callable[..., Path], tmp_path: Path, path: str
) -> None:
    run("publish", folder, "--repo_id", "rooms")
    more = create(tmp_path / "more", "--seed", 1)
    for method in ("GET", "HEAD", "POST"):
        hub.fail(method, path, 503, times=2, headers={"Retry-After": "0"})
    run("publish", more, "--repo_id", "rooms", "--append")
    assert load_dataset("alice/rooms", split="train").num_rows == 14


def test_an_overwrite_that_is_stopped_is_completed(
    hub: Hub, d2i1: D2i1, folder: Path, create: Callable[..., Path], tmp_path: Path
) -> None:
    run("publish", folder, "--repo_id", "rooms")
    other = create(tmp_path / "other", "--seed", 1)
    hub.fail("POST", r"/commit/", 403)
    d2i1("publish", other, "--repo_id", "rooms", "--overwrite", code=2)
    assert load_dataset("alice/rooms", split="train").num_rows == 7  # still the first
    run("publish", other, "--repo_id", "rooms", "--overwrite")
    assert len([n for n in hub.files("alice/rooms", "dataset") if n.startswith("data/")]) == 3
    rows = load_dataset("alice/rooms", split="train")
    assert {row["seed"] for row in rows["provenance"]} == {1}


def test_a_lost_answer_does_not_commit_twice(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, lost = HfApi.create_commit, []

    def forgetful(self: HfApi, *arguments: object, **options: object) -> object:
        answer = commit(self, *arguments, **options)
        if len(lost) < 1:
            lost.append(True)
            raise ConnectionError("the answer was lost")
        return answer

    monkeypatch.setattr(HfApi, "create_commit", forgetful)
    run("publish", folder, "--repo_id", "rooms")
    assert_complete(hub, folder)
    assert len(hub.repo("alice/rooms", "dataset").commits) == 2
    assert set(hub.sent.values()) == {1}


def test_retries_end(hub: Hub, d2i1: D2i1, folder: Path) -> None:
    hub.fail("POST", ROUTES["commit"][1], 503, times=1000, headers={"Retry-After": "0"})
    output = d2i1("publish", folder, "--repo_id", "rooms", code=2)
    assert "datasets/alice/rooms: the Hub answers 503" in last(output)
    assert "data/train-00000.parquet" not in hub.files("alice/rooms", "dataset")
    hub.faults.clear()
    run("publish", folder, "--repo_id", "rooms")
    assert_complete(hub, folder)


# --- errors that do not pass ---


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "no token of the Hub: log in with `hf auth login`, or set HF_TOKEN"),
        ("hf_" + "wrong" * 7, "does not accept the token"),
    ],
)
@pytest.mark.parametrize("name", ["rooms", "alice/rooms"])
def test_no_right_token(
    hub: Hub,
    d2i1: D2i1,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    message: str,
    name: str,
) -> None:
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    error = d2i1("publish", folder, "--repo_id", name, code=2)
    assert error.count("\n") == 1
    assert message in error or (token is None and "there is none: log in" in error)
    assert "hf_" not in error


def test_no_right_to_write(hub: Hub, d2i1: D2i1, folder: Path) -> None:
    error = d2i1("publish", folder, "--repo_id", "bob/rooms", code=2)
    assert "datasets/bob/rooms: the Hub refuses (403)" in error and error.count("\n") == 1


def test_a_repository_that_vanishes(hub: Hub, d2i1: D2i1, folder: Path) -> None:
    hub.fail("POST", ROUTES["commit"][1], 404, headers={"X-Error-Code": "RepoNotFound"})
    error = d2i1("publish", folder, "--repo_id", "rooms", code=2)
    assert "datasets/alice/rooms: not on the Hub" in last(error)


@pytest.mark.parametrize("token", ["right", "wrong"])
def test_a_missing_pipeline(
    hub: Hub, d2i1: D2i1, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token == "wrong":
        monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 7)
    flags = ("--source", "rooms:test", "--max_samples", 1)
    error = d2i1("evaluate", "--pipeline", "alice/nothing", *flags, code=2)
    assert error.count("\n") == 1
    assert "pipeline alice/nothing: neither a folder nor on the Hub: " in error
    assert ("does not accept the token" if token == "wrong" else "hidden from this token") in error


def test_a_full_quota(hub: Hub, d2i1: D2i1, folder: Path, sending: str) -> None:
    hub.quota = 1000
    error = d2i1("publish", folder, "--repo_id", "rooms", code=2)
    assert "datasets/alice/rooms: " in last(error) and "storage" in last(error)
    hub.quota = None
    run("publish", folder, "--repo_id", "rooms")
    assert_complete(hub, folder)


def test_a_bad_card_is_refused_before_anything_is_sent(
    hub: Hub, d2i1: D2i1, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fail("POST", ROUTES["card"][1], 400, body=b'{"errors": [{"message": "license is odd"}]}')
    error = d2i1("publish", folder, "--repo_id", "rooms", code=2)
    assert "its card" in error and "license" in error and error.count("\n") == 1
    assert not [name for name in hub.files("alice/rooms", "dataset") if name.startswith("data/")]


# --- kills ---


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("sending", "moments"),
    [("lfs", 1), *(pytest.param(way, 5, marks=pytest.mark.slow) for way in ("lfs", "xet"))],
    indirect=["sending"],
)
def test_killed_at_random_and_restarted(
    hub: Hub, folder: Path, tmp_path: Path, sending: str, moments: int
) -> None:
    """SIGKILL at some moment of sending; the same command then completes it."""
    command = [sys.executable, "-m", "d2i1_train.cli", "publish", str(folder), "--repo_id", "rooms"]
    chance, killed = random.Random(0), 0
    for moment in range(moments):
        hub.reset()
        hub.delay = 0.05
        environment = os.environ | {"HF_HOME": str(tmp_path / str(moment))}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while not hub.log and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 1.0))
        killed += process.poll() is None
        process.kill()
        process.wait()
        hub.delay = 0
        subprocess.run(command, env=environment, check=True, capture_output=True)
        assert_complete(hub, folder)
    assert killed


# --- secrets ---


def test_the_token_is_nowhere(
    hub: Hub,
    create: Callable[..., Path],
    pipeline: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The token is not printed, logged, written or sent; paths of this machine are not sent."""
    caplog.set_level("DEBUG")
    folder = create(tmp_path / "created")
    report = ("report", folder, "--max_samples", "2")
    for command in (
        report,
        ("publish", folder, "--pipeline", pipeline, "--repo_id", "rooms", "--dry_run"),
        ("publish", folder, "--pipeline", pipeline, "--repo_id", "rooms"),
        ("publish", folder, "--repo_id", "bob/rooms"),
    ):
        main([str(argument) for argument in command])
    output = capfd.readouterr()
    assert "alice/rooms" in output.out and "bob/rooms" in output.err
    assert hub.token not in output.out + output.err + caplog.text
    for file in (one for one in tmp_path.rglob("*") if one.is_file()):
        assert hub.token.encode() not in file.read_bytes(), file
    sent = {**hub.files("alice/rooms", "dataset"), **hub.files("alice/rooms")}
    assert "report/quality.png" in sent and "training.json" in sent
    for name, data in sent.items():
        for secret in (hub.token, str(tmp_path), str(pipeline.parent)):
            assert secret.encode() not in data, (name, secret)
