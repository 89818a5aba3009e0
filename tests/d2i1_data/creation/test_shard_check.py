"""A shard counts as done if it is complete and of this plan, not by its name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from d2i1_data.dataset.shards import read_shard_record
from tests.hub import Hub
from tests.made import SEVEN, contents, run, shards

D2i1 = Callable[..., str]
FIRST, SECOND, EXTRA = (f"data/train-0000{n}.parquet" for n in (0, 1, 7))


@pytest.fixture
def command(photos: Path, tmp_path: Path) -> tuple[object, ...]:
    """Imports six photographs in three shards."""
    source = ("--source", f"folder:{photos}", "--shard_size", 2)
    return ("import", *source, "--output_dir", tmp_path / "made")


@pytest.fixture
def made(command: tuple[object, ...], tmp_path: Path) -> Path:
    run(*command)
    return tmp_path / "made"


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "a bit of a picture": lambda data: flip(data, len(data) // 3),
    "a bit of the names of columns": lambda data: flip(data, data.rindex(b"semseg")),
    "a bit of its hash": lambda data: flip(data, data.rindex(b'"sha256": "') + 20),
}


def test_a_shard_states_its_plan(made: Path) -> None:
    records = [read_shard_record(made / name) for name in (FIRST, SECOND)]
    assert [(one.shard, one.rows, len(one.sha256 or "")) for one in records] == [
        (0, 2, 64),
        (1, 2, 64),
    ]
    assert records[0].plan == records[1].plan is not None
    assert records[0].sha256 != records[1].sha256


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_shard_is_made_again(
    made: Path, command: tuple[object, ...], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = contents(made)
    (made / SECOND).write_bytes(DAMAGES[damage](before[SECOND]))
    run(*command)
    assert contents(made) == before
    (told,) = [text for text in caplog.messages if "made again" in text]
    assert str(made / SECOND) in told and "\n" not in told


def test_foreign_and_extra_shards_are_refused(
    made: Path, command: tuple[object, ...], photos: Path, tmp_path: Path, d2i1: D2i1
) -> None:
    other = ("--source", f"folder:{photos}", "--shard_size", 2, "--max_source_samples", 5)
    run("import", *other, "--output_dir", tmp_path / "other")
    whole = shards(made)
    for name, source, expected in (
        (SECOND, tmp_path / "other" / SECOND, f"{made / SECOND} was made from another plan"),
        (SECOND, made / FIRST, f"{made / SECOND} holds shard 0 of its plan"),
        (EXTRA, made / FIRST, f"{made / EXTRA} is none of the 3 shards of {made}"),
    ):
        shutil.copyfile(source, made / name)
        before = shards(made)
        message = d2i1(*command, code=2)
        assert expected in message and "move it to another folder" in message
        assert shards(made) == before and message.count("\n") == 1
        (made / EXTRA).unlink(missing_ok=True)
        (made / SECOND).write_bytes(whole[SECOND])
    run(*command)
    assert shards(made) == whole


def test_a_shard_of_another_seed_is_refused(
    create: Callable[..., Path], pipeline: Path, tmp_path: Path, d2i1: D2i1
) -> None:
    """In `create` and in `create --verify`, which also refuses extra and broken shards."""
    one, other = (create(tmp_path / str(seed), "--seed", seed) for seed in range(2))
    whole = shards(one)
    verify = ("create", "--verify", one)
    shutil.copyfile(other / SECOND, one / SECOND)
    assert f"{SECOND} was made from another plan" in d2i1(*verify, code=2)
    again = ("create", "--pipeline", pipeline, *SEVEN, "--seed", 0, "--output_dir", one)
    assert f"{SECOND} was made from another plan" in d2i1(*again, code=2)
    (one / SECOND).write_bytes(whole[SECOND][:-100])
    assert f"{SECOND}: not a complete shard" in d2i1(*verify, code=2)
    (one / SECOND).write_bytes(whole[SECOND])
    shutil.copyfile(other / SECOND, one / EXTRA)
    assert f"{EXTRA} is none of the 3 shards" in d2i1(*verify, code=2)
    (one / EXTRA).unlink()
    assert "equal byte for byte" in d2i1(*verify)


@pytest.mark.parametrize("damage", ["empty", "truncated"])
def test_every_command_says_which_shard_is_broken(
    made: Path, tmp_path: Path, d2i1: D2i1, hub: Hub, damage: str
) -> None:
    (made / SECOND).write_bytes(DAMAGES[damage]((made / SECOND).read_bytes()))
    out = ("--output_dir", tmp_path / "out")
    for line in (
        ("import", "--source", f"dataset:{made}", *out),
        ("export", made, "--format", "folders", *out),
        ("report", made),
        ("publish", made, "--repo_id", "rooms"),
        ("evaluate", "--pipeline", tmp_path, "--source", f"dataset:{made}"),
        ("warm-up", "--base", "rooms", "--host", "light", "--source", f"dataset:{made}", *out),
    ):
        message = d2i1(*line, code=2)
        assert f"{made / SECOND}: not a complete shard" in message, line
        assert message.startswith(f"d2i1 {line[0]}: error: ") and message.count("\n") == 1, line


def test_a_shard_of_an_earlier_version_must_be_readable(
    made: Path, command: tuple[object, ...]
) -> None:
    """It has no hash."""
    before = shards(made)
    table = pq.read_table(made / SECOND)
    pq.write_table(table, made / SECOND, use_dictionary=False, compression="none")
    run(*command)
    earlier = shards(made)[SECOND]
    assert earlier != before[SECOND]  # it is kept
    (made / SECOND).write_bytes(earlier.replace(b"a street with", b"a str\xff\xfft with"))
    run(*command)
    assert shards(made) == before
