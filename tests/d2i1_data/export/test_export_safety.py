"""Exports: no name breaks out, nothing is overwritten, wrong input is told in one line."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
import yaml
from PIL import Image
from pycocotools.coco import COCO

from d2i1_data.dataset.sample import Quality
from d2i1_data.errors import InputError
from d2i1_data.export.entries import LONGEST, entries, file_name
from d2i1_data.export.staging import staged
from d2i1_data.sources import open_source
from d2i1_data.sources.dataset import Dataset
from d2i1_data.sources.rooms import Rooms
from d2i1_data.tasks import HUMAN_PARSING, SEMSEG
from tests.exports import assert_same_samples, export
from tests.made import contents, save_dataset

# what could break out of a folder, a tar, a YAML or a JSON file
IDS = ("../../evil", "a/b.c d", 'say "yes": {no}', "房间" * 60, "~", "")
NAMES = ['"]}', "a: b\n- c", "{split}", "no", "0", "<b>", "../x", "'", "\\", "#", "🪑"]
CAPTION = 'a "room"\n---\ncaption: {evil}\n\tand § 房间'


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A room with classes of two kinds and no score of depth."""
    room = Rooms("val", (8, 8))[0]
    parsing = {"human_parsing": np.zeros((8, 8), np.uint8)}
    known = replace(room, targets={**room.targets, **parsing}, quality={"semseg": Quality(0.5)})
    tasks = {**Rooms.tasks, "human_parsing": HUMAN_PARSING.with_classes(["head"])}
    return save_dataset(tmp_path_factory.mktemp("rooms") / "r", [known], tasks)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples whose ids, captions and class names try to break out; some know less than others."""
    samples = [replace(Rooms("val", (8, 8))[n], id=name) for n, name in enumerate(IDS)]
    samples[0].caption = CAPTION
    samples[1].caption = None
    for name in ("depth", "semseg", "normals"):
        del samples[2].targets[name]
    palette = [[n, 2 * n, 255 - n] for n in range(len(NAMES))]
    tasks = {**Rooms.tasks, "semseg": SEMSEG.with_classes(NAMES, palette)}
    return save_dataset(tmp_path_factory.mktemp("hostile") / "hostile", samples, tasks)


def test_names_stay_in_the_folder_and_apart() -> None:
    ids = [*IDS, ".", "..", "a", "A", "a.b", "a%2Eb", "%", "con\0trol", "x" * 500, "x" * 501]
    ids += [file_name(identity) for identity in ids if file_name(identity) not in ids]
    names = [file_name(identity) for identity in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        assert 0 < len(name.encode()) <= LONGEST and not set("/\\. \"'\0") & set(name)
    assert file_name("rooms-train_00000") == "rooms-train_00000"


@pytest.mark.parametrize("form", ["coco", "yolo", "webdataset", "folders"])
def test_hostile_words_break_nothing(
    hostile: Path, d2i1: Callable[..., str], tmp_path: Path, form: str
) -> None:
    folder = export(d2i1, hostile, form, tmp_path / "deep" / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]
    assert [p.name for p in folder.parent.iterdir()] == ["out"]
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [(one["name"], one["id"]) for one in lines] == [(file_name(i), i) for i in IDS]
    assert lines[0]["caption"] == CAPTION and lines[1]["caption"] is None
    if form == "coco":
        coco = COCO(folder / "annotations/stuff_semseg.json")
        assert [kind["name"] for kind in coco.cats.values()] == NAMES
        assert coco.getAnnIds(imgIds=[3]) == [] != coco.getAnnIds(imgIds=[2])
    elif form == "yolo":
        layout = yaml.safe_load((folder / "data.yaml").read_text())
        assert list(layout["names"].values()) == NAMES
        assert len(list((folder / "labels/train").iterdir())) == len(IDS)
    elif form == "webdataset":
        (shard,) = map(str, (folder / "data").iterdir())
        rows = list(webdataset.WebDataset(shard, shardshuffle=False))
        assert [row["__key__"] for row in rows] == [file_name(identity) for identity in IDS]
        assert len({tuple(row) for row in (map(tuple, map(sorted, rows)))}) == 1  # the same parts
    else:
        assert_same_samples(open_source(f"folder:{folder}/folder.yaml"), Dataset(str(hostile)))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            "--format coco --tasks depth",
            "--tasks depth: --format coco holds only tasks with classes",
        ),
        ("--format coco --tasks smell", "dataset r has no 'smell', it has normals, depth"),
        ("--format yolo", "holds one task: choose one of semseg, human_parsing with --tasks"),
        (
            "--format coco --shard_size 5",
            "--shard_size has no effect without --format transformers or",
        ),
        ("--format folders --min_region 5", "--min_region has no effect without --format yolo"),
        ("--format yolo --min_region 0", "--min_region 0: expected at least 1"),
        ("--format zip", "coco"),
        ("--format folders --split test", "cannot be loaded"),
        ("--format folders --min_quality {depth.flip:0.5}", "min_quality"),
        ("--format folders --min_quality '{depth.flip: 0.5}'", "has no depth.flip"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    rooms: Path, d2i1: Callable[..., str], tmp_path: Path, flags: str, told: str
) -> None:
    words = [word.strip("'") for word in flags.replace(": ", ":\0").split()]
    words = [word.replace("\0", " ") for word in words]
    assert told in d2i1("export", rooms, *words, "--output_dir", tmp_path / "out", code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_without_classes_is_refused(d2i1: Callable[..., str], tmp_path: Path) -> None:
    samples = [replace(Rooms("val", (8, 8))[0], targets={})]
    dataset = save_dataset(tmp_path / "plain", samples, {"depth": Rooms.tasks["depth"]})
    flags = ("--format", "coco", "--output_dir", tmp_path / "out")
    assert "--format coco needs a task with classes; dataset plain has depth" in d2i1(
        "export", dataset, *flags, code=2
    )


def test_ids_that_are_not_unique_are_refused(d2i1: Callable[..., str], tmp_path: Path) -> None:
    dataset = save_dataset(tmp_path / "twice", [Rooms("val", (8, 8))[0]] * 2, dict(Rooms.tasks))
    flags = ("--format", "folders", "--output_dir", tmp_path / "out")
    assert "rows 0 and 1 have the same id 'rooms-val-00000'" in d2i1(
        "export", dataset, *flags, code=2
    )


def test_a_file_or_a_full_folder_is_left_alone(
    rooms: Path, d2i1: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("years of work")
    for name, told in (
        ("full", "is not empty: choose another --output_dir"),
        ("full/thesis.txt", "is a file; --output_dir needs a folder"),
        ("full/thesis.txt/in", "full/thesis.txt is a file; --output_dir needs a folder"),
    ):
        flags = ("--format", "folders", "--output_dir", tmp_path / name)
        assert told in d2i1("export", rooms, *flags, code=2)
    assert contents(tmp_path) == {"full/thesis.txt": b"years of work"}
    (tmp_path / "empty").mkdir()
    assert contents(export(d2i1, rooms, "folders", tmp_path / "empty"))


@pytest.mark.parametrize("ends", [KeyboardInterrupt, InputError])
def test_what_was_interrupted_is_not_there(ends: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(ends), staged(target) as folder:
        (folder / "half.png").write_bytes(b"half")
        assert not target.exists() and folder.name.startswith(".")
        raise ends
    assert list(tmp_path.iterdir()) == []
    with staged(target) as folder:
        (folder / "whole.png").write_bytes(b"whole")
    assert contents(tmp_path) == {"out/whole.png": b"whole"}
    assert target.stat().st_mode & 0o777 == 0o777 & ~os.umask(os.umask(0o22))


def spoilt(
    folder: Path, column: str, pixels: np.ndarray | None, form: str = "PNG", most: int | None = None
) -> Dataset:
    """A dataset of one room whose picture in a column is another, or none that can be read."""
    dataset = Dataset(str(save_dataset(folder, [Rooms("val", (8, 8))[0]], dict(Rooms.tasks))))
    row, data = dataset.stored(0), io.BytesIO(b"no picture")
    if pixels is not None:
        Image.fromarray(pixels).save(data, form)
    row[column]["bytes"] = data.getvalue()[:most]
    dataset.stored = {0: row}.__getitem__  # type: ignore[method-assign]
    return dataset


def test_a_torn_picture_is_not_copied(tmp_path: Path) -> None:
    dataset = spoilt(tmp_path / "d", "image", np.zeros((8, 8, 3), np.uint8), most=60)
    with pytest.raises(InputError, match="dataset d: row 'rooms-val-00000': "):
        next(entries(dataset, {}))


def test_pictures_that_are_no_png_become_one(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    dataset = spoilt(tmp_path / "d", "image", image, "JPEG")
    (entry,) = entries(dataset, {})
    with Image.open(io.BytesIO(entry.image)) as picture:
        assert picture.format == "PNG" and np.array_equal(picture, dataset[0].image)


@pytest.mark.parametrize(
    ("column", "pixels", "told"),
    [
        ("image", None, "cannot identify image file"),
        ("semseg", None, "cannot identify image file"),
        ("semseg", np.zeros((4, 8), np.uint8), "semseg is 8x4, its image 8x8"),
        ("semseg", np.full((8, 8), 200, np.uint8), "semseg holds class id 200, allowed are 0 to"),
    ],
)
def test_unusable_pictures_name_their_row(
    tmp_path: Path, column: str, pixels: np.ndarray | None, told: str
) -> None:
    dataset = spoilt(tmp_path / "d", column, pixels)
    with pytest.raises(InputError, match=f"row 'rooms-val-00000': {told}"):
        for entry in entries(dataset, dataset.tasks):
            entry.classes(dataset.tasks["semseg"])
