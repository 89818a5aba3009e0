"""Published datasets: the files on the Hub, their order, and what is replaced only on request."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import DatasetCard, HfApi

from d2i1_data.sources import open_source
from tests.hub import Hub
from tests.made import run, samples

D2i1 = Callable[..., str]
STAYS_HERE = ("run.json", "skipped.json", "logs/")


def data(hub: Hub, repo_id: str = "alice/rooms") -> dict[str, bytes]:
    """The shards of a repository."""
    files = hub.files(repo_id, "dataset")
    return {name: files[name] for name in sorted(files) if name.startswith("data/")}


def shard_bytes(*folders: Path) -> list[bytes]:
    return [file.read_bytes() for one in folders for file in sorted((one / "data").iterdir())]


def test_a_dataset_arrives_as_it_is(hub: Hub, d2i1: D2i1, created: Callable[..., Path]) -> None:
    folder = created(0)
    output = d2i1("publish", folder, "--repo_id", "rooms")  # under the user whose token it is
    assert output.split() == [f"{hub.url}/datasets/alice/rooms"]
    files = hub.files("alice/rooms", "dataset")
    for name in ("plan.json", "diff2in1.json", "preview.png", *data(hub)):
        assert files[name] == (folder / name).read_bytes()
    assert len(data(hub)) == 3
    assert not [name for name in files if name.startswith(STAYS_HERE)]

    rows = load_dataset("alice/rooms", split="train")
    local = load_dataset(str(folder), split="train")
    assert rows.features == local.features
    assert rows["id"][:] == local["id"][:]
    streamed = list(load_dataset("alice/rooms", split="train", streaming=True))
    for one, other, third in zip(local, rows, streamed, strict=True):
        assert one == other == third  # pictures are compared by their pixels
    some = load_dataset("alice/rooms", split="train", columns=["id", "depth"], streaming=True)
    assert [sorted(row) for row in some] == [["depth", "id"]] * 7


def test_our_own_readers_open_it(hub: Hub, created: Callable[..., Path]) -> None:
    run("publish", created(0), "--repo_id", "rooms")
    ours = list(open_source("dataset:alice/rooms"))
    assert [one.id for one in ours] == [one.id for one in samples(created(0))]


def test_the_card_names_the_repository(hub: Hub, created: Callable[..., Path]) -> None:
    run("publish", created(0), "--repo_id", "rooms")
    card = DatasetCard.load("alice/rooms")
    assert 'name = "alice/rooms"' in card.text
    assert card.data.dataset_info["splits"][0]["num_examples"] == 7
    assert card.data.configs[0]["data_files"][0]["path"] == "data/train-*.parquet"


def test_hostile_names_stay_words(hub: Hub, photos: Path) -> None:
    """Class names, captions, name and licence of a source add no path, key or HTML element."""
    hostile = "---\nlicense: mit\n---\n</code><script>alert(1)</script> | [x](http://evil) {{ 7 }}"
    described = yaml.safe_load(photos.read_text())
    described |= {"name": "../../" + hostile, "licence": hostile}
    described["classes"]["semseg"]["names"] = [hostile, "../../etc", "tree"]
    described["caption"]["template"] = "</td> | {classes}"
    photos.write_text(yaml.safe_dump(described))
    folder = photos.parent / "imported"
    run("import", "--source", f"folder:{photos}", "--output_dir", folder)
    run("publish", folder, "--repo_id", "rooms")
    files = hub.files("alice/rooms", "dataset")
    assert set(files) - {".gitattributes", "data/train-00000.parquet"} == {
        *("README.md", "diff2in1.json", "id2label.json", "plan.json", "preview.png")
    }
    card = DatasetCard.load("alice/rooms")
    assert card.data.license in (None, "other") and "<script" not in card.text
    assert "](http://evil)" not in card.text and "\n---\n" not in card.text
    assert len(load_dataset("alice/rooms", split="train")) == 6


def test_shards_come_first_and_the_card_last(
    hub: Hub, created: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2i1_data.hub.repository.FILES_A_COMMIT", 2)
    run("publish", created(0), "--repo_id", "rooms")
    trees = [set(commit.tree) for commit in reversed(hub.repo("alice/rooms", "dataset").commits)]
    history = [after - before for before, after in pairwise(trees)]
    order = [name for group in history for name in sorted(group)]
    assert order[:4] == ["data/train-00000.parquet", "diff2in1.json", *sorted(data(hub))[1:]]
    assert "README.md" in history[-1] and len(history) == 4


def test_published_again_nothing_is_sent(hub: Hub, created: Callable[..., Path]) -> None:
    run("publish", created(0), "--repo_id", "rooms")
    sent, commits = dict(hub.sent), len(hub.repo("alice/rooms", "dataset").commits)
    run("publish", created(0), "--repo_id", "rooms")
    assert dict(hub.sent) == sent
    assert len(hub.repo("alice/rooms", "dataset").commits) == commits


def test_a_dataset_grows(hub: Hub, created: Callable[..., Path], tmp_path: Path) -> None:
    """A shard is added to a folder without a plan, such as a download."""
    folder = shutil.copytree(created(0), tmp_path / "growing")
    (folder / "plan.json").unlink()
    last = (folder / "data" / "train-00002.parquet").rename(tmp_path / "last")
    run("publish", folder, "--repo_id", "rooms")
    last.rename(folder / "data" / "train-00002.parquet")
    run("publish", folder, "--repo_id", "rooms")
    assert list(data(hub).values()) == shard_bytes(folder)
    assert len(load_dataset("alice/rooms", split="train")) == 7
    assert set(hub.sent.values()) == {1}


def test_other_samples_are_replaced_only_on_request(
    hub: Hub, d2i1: D2i1, created: Callable[..., Path]
) -> None:
    run("publish", created(0), "--repo_id", "rooms")
    before = hub.files("alice/rooms", "dataset")
    output = d2i1("publish", created(1), "--repo_id", "rooms", code=2)
    assert "datasets/alice/rooms holds other samples" in output
    assert "--append" in output and "--overwrite" in output and output.count("\n") == 1
    assert hub.files("alice/rooms", "dataset") == before


def test_append_adds_and_deletes_nothing(hub: Hub, created: Callable[..., Path]) -> None:
    run("publish", created(0), "--repo_id", "rooms")
    before = data(hub)
    for _ in range(2):  # the second time nothing is left to do
        run("publish", created(1), "--repo_id", "rooms", "--append")
        assert data(hub).items() >= before.items()
        assert list(data(hub).values()) == shard_bytes(created(0), created(1))
    files = hub.files("alice/rooms", "dataset")
    assert files["plan.json"] == (created(0) / "plan.json").read_bytes()
    assert files["plan-00003.json"] == (created(1) / "plan.json").read_bytes()
    rows = load_dataset("alice/rooms", split="train")  # which checks the counts of the card
    assert len(rows) == 14
    assert {row["seed"] for row in rows["provenance"]} == {0, 1}
    run("publish", created(0), "--repo_id", "rooms")  # nothing to do, so no flag is needed
    assert len(data(hub)) == 6


def test_append_continues_where_it_was_stopped(
    hub: Hub, created: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, d2i1: D2i1
) -> None:
    monkeypatch.setattr("d2i1_data.hub.repository.FILES_A_COMMIT", 1)
    run("publish", created(0), "--repo_id", "rooms")
    settings = ("publish", created(1), "--repo_id", "rooms", "--append")
    at = len(hub.repo("alice/rooms", "dataset").commits)
    hub.quota = sum(map(len, hub.files("alice/rooms", "dataset").values())) + 2 * max(
        map(len, shard_bytes(created(1)))
    )
    d2i1(*settings, code=2)
    assert len(hub.repo("alice/rooms", "dataset").commits) > at
    assert 3 < len(data(hub)) < 6
    hub.quota = None
    run(*settings)
    assert list(data(hub).values()) == shard_bytes(created(0), created(1))
    assert max(hub.sent[name] for name in hub.sent) <= 2


def test_append_refuses_other_classes(
    hub: Hub, d2i1: D2i1, created: Callable[..., Path], tmp_path: Path
) -> None:
    run("publish", created(0), "--repo_id", "rooms")
    folder = shutil.copytree(created(1), tmp_path / "other")
    metadata = json.loads((folder / "diff2in1.json").read_text())
    metadata["tasks"]["semseg"]["names"][0] = "lava"
    (folder / "diff2in1.json").write_text(json.dumps(metadata))
    output = d2i1("publish", folder, "--repo_id", "rooms", "--append", code=2)
    assert "tasks or classes differ in semseg" in output
    assert len(data(hub)) == 3


def test_overwrite_replaces(hub: Hub, created: Callable[..., Path]) -> None:
    for seed, flag in ((0, "--append"), (1, "--append"), (2, "--overwrite")):
        run("publish", created(seed), "--repo_id", "rooms", flag)
    assert list(data(hub).values()) == shard_bytes(created(2))
    assert [name for name in hub.files("alice/rooms", "dataset") if "plan" in name] == ["plan.json"]
    assert len(load_dataset("alice/rooms", split="train")) == 7


def test_append_to_what_datasets_pushed(hub: Hub, created: Callable[..., Path]) -> None:
    """`Dataset.push_to_hub` has its own names of shards; ours get the next numbers."""
    run("publish", created(0), "--repo_id", "rooms")
    load_dataset("alice/rooms", split="train").push_to_hub("alice/rooms")
    assert list(data(hub)) == ["data/train-00000-of-00001.parquet"]
    run("publish", created(1), "--repo_id", "rooms", "--append")
    numbers = [name.removeprefix("data/train-")[:5] for name in sorted(data(hub))]
    assert numbers == ["00000", "00001", "00002", "00003"]
    assert len(load_dataset("alice/rooms", split="train")) == 14
    run("publish", created(2), "--repo_id", "rooms", "--overwrite")
    assert list(data(hub).values()) == shard_bytes(created(2))


def test_two_append_at_once(
    hub: Hub, created: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else appends before our commit: their shards stay, ours come after them."""
    monkeypatch.setattr("d2i1_data.hub.retry.FIRST_WAIT", 0.01)
    run("publish", created(0), "--repo_id", "rooms")
    commit, raced = HfApi.create_commit, []

    def race(self: HfApi, *arguments: object, **options: object) -> object:
        if not raced:
            raced.append(True)
            run("publish", created(1), "--repo_id", "rooms", "--append")
        return commit(self, *arguments, **options)

    monkeypatch.setattr(HfApi, "create_commit", race)
    run("publish", created(2), "--repo_id", "rooms", "--append")
    assert raced
    assert list(data(hub).values()) == shard_bytes(created(0), created(1), created(2))
    assert len(load_dataset("alice/rooms", split="train")) == 21


def test_an_unfinished_dataset_is_refused(
    hub: Hub, d2i1: D2i1, created: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(created(0), tmp_path / "part")
    (folder / "data" / "train-00001.parquet").unlink()
    assert ": no such file" in d2i1("publish", folder, "--repo_id", "rooms", code=2)
    shutil.rmtree(folder / "data")
    assert "no shards of ours" in d2i1("publish", folder, "--repo_id", "rooms", code=2)
    assert "no such folder" in d2i1("publish", tmp_path / "no", "--repo_id", "rooms", code=2)
    assert not hub.log or all(entry.method == "GET" for entry in hub.log)


def test_equal_and_moved_shards(hub: Hub, created: Callable[..., Path], tmp_path: Path) -> None:
    folder = shutil.copytree(created(0), tmp_path / "moved")
    (folder / "plan.json").unlink()
    first, second, third = sorted((folder / "data").iterdir())
    third.unlink()
    shutil.copy(first, third)  # equal to the first
    run("publish", folder, "--repo_id", "rooms")
    assert list(data(hub).values()) == shard_bytes(folder)
    assert len(load_dataset("alice/rooms", split="train")) == 9
    second.rename(tmp_path / "kept")
    shutil.copy(created(1) / "data" / first.name, first)  # another one in its place
    shutil.copy(tmp_path / "kept", folder / "data" / "train-00003.parquet")
    run("publish", folder, "--repo_id", "rooms", "--append")
    assert set(shard_bytes(folder)) <= set(data(hub).values())
    assert load_dataset("alice/rooms", split="train").num_rows == 3 * len(data(hub))
