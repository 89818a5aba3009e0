"""What we write loads with plain `datasets`, comes back the same, and no folder is lost."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from d2i1_data.card import write_card
from d2i1_data.dataset.sample import Provenance, Quality, Sample
from d2i1_data.dataset.schema import FORMAT_VERSION, METADATA, Schema
from d2i1_data.dataset.shards import (
    ShardRecord,
    read_shard_record,
    shard_path,
    write_metadata,
    write_shard,
)
from d2i1_data.errors import InputError
from d2i1_data.sources import open_source
from d2i1_data.sources.dataset import Dataset
from d2i1_data.sources.rooms import Rooms

SCHEMA = Schema.of(Rooms.tasks)


def made() -> list[Sample]:
    """Five samples: three real ones, two that were created and know no depth or caption."""
    rooms = [Rooms("val", (16, 24))[index] for index in range(5)]
    origin = Provenance(
        "created", "rooms", "x", strength=0.6, guidance=1.1, seed=7, noise_seed=2**62, variant=1
    )
    for n in (3, 4):
        targets = {name: rooms[n].targets[name] for name in rooms[n].targets if name != "depth"}
        quality = {name: Quality(0.5, 0.25 * n / 4, None) for name in targets}
        changed = {"targets": targets, "quality": quality, "provenance": origin, "caption": None}
        rooms[n] = replace(rooms[n], **changed)
    return rooms


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two shards; the second holds no depth."""
    folder = tmp_path_factory.mktemp("written") / "rooms-made"
    samples = made()
    write_shard(shard_path(folder, 0), samples[:3], SCHEMA)
    write_shard(shard_path(folder, 1), samples[3:], SCHEMA)
    write_metadata(folder, SCHEMA)
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_loads_with_plain_datasets(written: Path, streaming: bool) -> None:
    loaded = datasets.load_dataset(str(written), split="train", streaming=streaming)
    assert loaded.features == SCHEMA.features
    rows, samples = list(loaded), made()
    assert [row["id"] for row in rows] == [sample.id for sample in samples]
    for row, sample in zip(rows, samples, strict=True):
        assert set(row) == set(SCHEMA.columns)
        np.testing.assert_array_equal(np.asarray(row["image"]), sample.image)
        assert {name for name in Rooms.tasks if row[name] is not None} == set(sample.targets)
        np.testing.assert_array_equal(np.asarray(row["semseg"]), sample.targets["semseg"])
        assert set(row["quality"]) == set(Rooms.tasks)
    millimetres = np.asarray(rows[0]["depth"])
    np.testing.assert_allclose(millimetres / 1000, samples[0].targets["depth"], atol=0.00051)
    assert rows[3]["provenance"]["noise_seed"] == 2**62
    assert rows[3]["caption"] is None


def test_written_samples_come_back(written: Path) -> None:
    source, samples = open_source(f"dataset:{written}"), made()
    assert isinstance(source, Dataset)
    assert source.name == "rooms-made"
    assert list(source.tasks) == list(SCHEMA.tasks)
    assert source.identity(4) == samples[4].id
    assert len(source) == 5
    for ours, theirs in zip(samples, source, strict=True):
        assert (theirs.id, theirs.caption, theirs.size) == (ours.id, ours.caption, ours.size)
        assert theirs.provenance == ours.provenance
        assert theirs.quality == {name: ours.quality.get(name, Quality()) for name in ours.targets}
        np.testing.assert_array_equal(theirs.image, ours.image)
        assert set(theirs.targets) == set(ours.targets)
        for name, target in ours.targets.items():
            limit = {"normals": 0.008, "depth": 0.00051}.get(name, 0)
            np.testing.assert_allclose(theirs.targets[name], target, atol=limit, rtol=0)


def test_same_samples_are_the_same_bytes(written: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.parquet"
    write_shard(again, made()[:3], SCHEMA)
    assert again.read_bytes() == shard_path(written, 0).read_bytes()
    assert list(tmp_path.iterdir()) == [again]  # no temporary file is left


def test_an_interrupted_shard_is_not_there(tmp_path: Path) -> None:
    def broken() -> Any:
        yield made()[0]
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_shard(shard_path(tmp_path, 0), broken(), SCHEMA)
    assert not shard_path(tmp_path, 0).exists()


def test_a_shard_records_what_it_leaves_out(tmp_path: Path) -> None:
    record = ShardRecord({"b": "the checkpoint gives NaN"}, {"depth resized": 3})
    write_shard(shard_path(tmp_path, 0), made()[:1], SCHEMA, lambda: record)
    write_shard(shard_path(tmp_path, 1), made()[1:2], SCHEMA)
    found = [read_shard_record(shard_path(tmp_path, n)) for n in range(2)]
    assert [(one.rows, len(one.sha256 or "")) for one in found] == [(1, 64)] * 2
    assert [replace(one, rows=None, sha256=None) for one in found] == [record, ShardRecord()]
    rows = datasets.load_dataset("parquet", data_files=f"{tmp_path}/data/*", split="train")
    assert len(rows) == 2 and rows.features == SCHEMA.features


def test_metadata_has_class_names(written: Path) -> None:
    content = json.loads((written / METADATA).read_text())
    assert set(content["tasks"]) == set(SCHEMA.tasks)
    assert content["tasks"]["semseg"]["names"] == list(Rooms.tasks["semseg"].family.names)  # type: ignore[attr-defined]
    assert content["versions"]["datasets"] == datasets.__version__
    source = Dataset(str(written))
    for name, task in Rooms.tasks.items():
        assert source.tasks[name].family.config() == task.family.config()


def test_folders_of_one_name_and_size_are_not_confused(tmp_path: Path) -> None:
    """By name and size alone `datasets` would give what it keeps of the other."""
    for name in ("one", "two"):
        folder, room = tmp_path / name / "same", Rooms("train")[0]
        write_shard(shard_path(folder, 0), [replace(room, id=name)], SCHEMA)
        write_metadata(folder, SCHEMA)
        write_card(folder)
        assert [sample.id for sample in Dataset(str(folder))] == [name]


WITHOUT_US = """
import sys
sys.modules.update(dict.fromkeys(("d2i1_data", "d2i1_train", "hub_cards")))  # importing them fails
from datasets import load_dataset
for streaming in (False, True):
    rows = list(load_dataset(sys.argv[1], split="train", streaming=streaming))
    assert [row["depth"] is None for row in rows] == [False] * 3 + [True] * 2
    assert rows[0]["image"].size == rows[0]["normals"].size == (24, 16)
    assert rows[0]["depth"].mode.startswith("I") and "human_parsing" not in rows[0]
    print(len(rows))
"""


def test_loads_without_our_package(written: Path, tmp_path: Path) -> None:
    environment = os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_US, str(written)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["5", "5"]


def test_a_wrong_dataset_is_refused(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "copy")
    (folder / METADATA).write_text("{}")
    with pytest.raises(InputError, match=f"copy/{METADATA}: not a metadata file of ours"):
        Dataset(str(folder))
    newer = {"format_version": FORMAT_VERSION + 1, **SCHEMA.config()}
    (folder / METADATA).write_text(json.dumps(newer))
    with pytest.raises(InputError, match=r"copy/diff2in1.json: format version 2, .*up to 1"):
        Dataset(str(folder))
    (folder / METADATA).write_text(json.dumps({"format_version": 1, "tasks": {}}))
    with pytest.raises(InputError, match=r"copy/diff2in1.json: no schema of ours .*columns"):
        Dataset(str(folder))
    (folder / METADATA).unlink()
    with pytest.raises(InputError, match=f"no {METADATA} there"):
        Dataset(str(folder))
    write_metadata(folder, SCHEMA)
    with pytest.raises(InputError, match=r"copy: cannot be loaded: .*test"):
        Dataset(str(folder), "test")
    shard_path(folder, 1).write_bytes(b"PAR1 torn")
    with pytest.raises(InputError, match=r"train-00001.parquet: not a complete shard") as caught:
        Dataset(str(folder))
    assert "\n" not in str(caught.value)
    shard_path(folder, 1).unlink()
    datasets.Dataset.from_dict({"id": ["a"]}).to_parquet(folder / "data" / "train-00000.parquet")
    with pytest.raises(InputError, match="columns image are missing"):
        Dataset(str(folder))


def test_an_unreadable_picture_names_its_row(tmp_path: Path) -> None:
    folder = tmp_path / "torn"
    row = SCHEMA.to_row(made()[0]) | {"id": "torn-1"}
    row["image"] = {"bytes": b"no picture", "path": None}
    (folder / "data").mkdir(parents=True)
    rows = datasets.Dataset.from_list([row], features=SCHEMA.features)
    rows.to_parquet(folder / "data" / "train-00000.parquet")
    write_metadata(folder, SCHEMA)
    with pytest.raises(InputError, match="torn: row 'torn-1'"):
        Dataset(str(folder))[0]
