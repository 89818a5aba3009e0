"""Splits: their shares are met, no source image is in two of them, and every reader finds them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import load_dataset

from d2i1_data.creation.plan import read_plan
from d2i1_data.dataset.sample import Provenance, Sample
from d2i1_data.dataset.splits import draw_splits, read_splits
from d2i1_data.errors import InputError
from d2i1_data.sources.dataset import Dataset
from d2i1_data.sources.rooms import Rooms
from tests.hub import Hub
from tests.made import contents, run, samples, save_dataset

D2i1 = Callable[..., str]
HALVES = ("--splits", "train=0.5,val=0.5")


def variants(count: int, each: int = 3) -> list[Sample]:
    """Some created samples from each of some source images."""
    made = Rooms("val", (8, 8))
    return [
        replace(
            made[n], id=f"{n}-{k}", provenance=Provenance("created", source_id=made.identity(n))
        )
        for k in range(each)
        for n in range(count)
    ]


def origins(folder: Path, split: str) -> set[str | None]:
    return {sample.provenance.source_id for sample in Dataset(str(folder), split)}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train=0.9", "expected names and shares that add up to 1"),
        ("a=0.5,b=0.5", "with train among them"),
        ("train=0.9,val=0.2", "add up to 1"),
        ("train=0.5,train=0.5", "cannot use 'train=0.5'"),
        ("train=0.9,../val=0.1", "cannot use '../val=0.1'"),
        ("train=0.9,all=0.1", "cannot use 'all=0.1'"),
        ("train=0.9,val", "cannot use 'val'"),
        ("train=0.9,val=nan", "cannot use 'val=nan'"),
        ("train=1.1,val=-0.1", "cannot use 'train=1.1'"),
    ],
)
def test_other_forms_are_refused(text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        read_splits(text)
    assert told in str(caught.value) and "train=0.9,val=0.1" in str(caught.value)


@pytest.mark.parametrize("count", [3, 10, 97, 1000])
def test_shares_are_met(count: int) -> None:
    shares = read_splits("train=0.7,val=0.2,test=0.1")
    drawn = draw_splits([f"image {n}" for n in range(count)], shares)
    for name, share in shares.items():
        assert drawn.count(name) >= 1 and abs(drawn.count(name) - share * count) < 2
    with pytest.raises(InputError, match="2 source images are too few for 3 splits"):
        draw_splits(["a", "b", "a"], shares)


def test_variants_stay_together_in_every_dataset_of_the_same_images() -> None:
    images, shares = [f"image {n}" for n in range(50)], read_splits("train=0.6,val=0.4")
    once = dict(zip(images, draw_splits(images, shares), strict=True))
    many = [image for image in reversed(images) for _ in range(4)]
    assert draw_splits(many, shares) == [once[image] for image in many]


def test_variants_stay_together_at_another_resolution(tmp_path: Path) -> None:
    made = save_dataset(tmp_path / "made", variants(6), dict(Rooms.tasks))
    flags = ("--source", f"dataset:{made}", "--resolution", 8, "--output_dir", tmp_path / "parted")
    run("import", *flags, *HALVES)
    train, val = (origins(tmp_path / "parted", name) for name in ("train", "val"))
    assert len(train) == len(val) == 3 and not train & val


def test_an_imported_dataset_has_them(tmp_path: Path, d2i1: D2i1) -> None:
    made = save_dataset(tmp_path / "made", variants(6), dict(Rooms.tasks))
    folder = tmp_path / "parted"
    flags = ("--source", f"dataset:{made}", "--shard_size", 5, "--output_dir", folder)
    run("import", *flags, *HALVES)
    assert [file.name for file in sorted((folder / "data").iterdir())] == [
        *("train-00000.parquet", "train-00001.parquet", "val-00002.parquet", "val-00003.parquet")
    ]
    loaded = load_dataset(str(folder))  # which checks the counts of the card
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 9, "val": 9}
    assert len(samples(folder)) == 9 and Dataset(str(folder)).splits == ["train", "val"]
    train, val = origins(folder, "train"), origins(folder, "val")
    assert len(train) == len(val) == 3 and not train & val
    assert (
        "(9 rows), <code>val</code> (9 rows). All rows of one" in (folder / "README.md").read_text()
    )
    before = contents(folder)
    (folder / "data/val-00003.parquet").unlink()
    run("import", *flags, *HALVES)
    assert contents(folder) == before
    message = d2i1("import", *flags, code=2)
    assert 'another dataset (splits: {"train": 2, "val": 2}, now {"train": 4})' in message
    run("import", *flags, "--overwrite", "true")
    assert [file.name[:5] for file in (folder / "data").iterdir()] == ["train"] * 4


def test_a_created_dataset_has_them(create: Callable[..., Path], hub: Hub, tmp_path: Path) -> None:
    folder = create(tmp_path / "created", *HALVES)
    assert origins(folder, "train").isdisjoint(origins(folder, "val"))
    run("create", "--verify", folder, "--rows", 7)
    run("publish", folder, "--repo_id", "rooms")
    loaded = load_dataset("alice/rooms")
    assert sum(map(len, loaded.values())) == 7 and {*loaded} == {"train", "val"}
    assert len(Dataset("alice/rooms", "val")) == len(loaded["val"])


def test_another_one_with_other_splits_is_not_appended(
    hub: Hub, tmp_path: Path, d2i1: D2i1
) -> None:
    made = save_dataset(tmp_path / "made", variants(4), dict(Rooms.tasks))
    for name, flags in (("parted", HALVES), ("more", HALVES), ("whole", ())):
        run("import", "--source", f"dataset:{made}", *flags, "--output_dir", tmp_path / name)
    run("publish", tmp_path / "parted", "--repo_id", "rooms")
    message = d2i1("publish", tmp_path / "whole", "--repo_id", "rooms", "--append", code=2)
    assert "has the splits train, val, this dataset train" in message


def test_names_in_a_plan_stay_in_the_folder(tmp_path: Path, d2i1: D2i1) -> None:
    made = save_dataset(tmp_path / "made", variants(4), dict(Rooms.tasks))
    folder = tmp_path / "parted"
    run("import", "--source", f"dataset:{made}", *HALVES, "--output_dir", folder)
    plan = json.loads((folder / "plan.json").read_text())
    for splits in ({"train": 1, "../../x": 1}, {"train": 3}, ["train"], {"train": -1, "val": 3}):
        (folder / "plan.json").write_text(json.dumps(plan | {"splits": splits}))
        with pytest.raises(InputError, match=r"plan.json is no plan of ours"):
            read_plan(folder)
    shutil.rmtree(folder / "data")
    metadata = json.loads((folder / "diff2in1.json").read_text())
    (folder / "diff2in1.json").write_text(json.dumps(metadata | {"splits": ["../x"]}))
    with pytest.raises(InputError, match=r"splits: expected a list of names, got \['../x'\]"):
        Dataset(str(folder))
