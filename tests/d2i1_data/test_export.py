"""What is exported is read by the tools it is for, and is what the dataset holds."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
import yaml
from datasets import load_dataset
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from d2i1_data.errors import InputError
from d2i1_data.export.coco import encode_mask
from d2i1_data.export.entries import LONGEST, entries, file_name
from d2i1_data.export.polygons import polygons
from d2i1_data.export.staging import staged
from d2i1_data.sample import Quality, Sample
from d2i1_data.sources import open_source
from d2i1_data.sources.dataset import Dataset
from d2i1_data.sources.rooms import Rooms
from d2i1_data.tasks import HUMAN_PARSING, SEMSEG
from d2i1_data.write import shard_path, write_metadata, write_shard

SIZE = (48, 64)
# what could break out of a folder, a tar, a YAML or a JSON file
IDS = ("../../evil", "a/b.c d", 'say "yes": {no}', "房间" * 60, "~", "")
NAMES = ['"]}', "a: b\n- c", "{split}", "no", "0", "<b>", "../x", "'", "\\", "#", "🪑"]
CAPTION = 'a "room"\n---\ncaption: {evil}\n\tand § 房间'


def run(d2i1: Callable[..., str], dataset: Path, form: str, folder: Path, *flags: object) -> Path:
    d2i1("export", dataset, "--format", form, "--output_dir", folder, *flags)
    return folder


def save(folder: Path, samples: list[Sample], tasks: dict[str, Any]) -> Path:
    write_shard(shard_path(folder, 0), samples, tasks)
    write_metadata(folder, tasks)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rooms with unknown pixels, confidence, quality, and classes of a second kind."""
    rng, samples = np.random.default_rng(0), []
    for index in range(12):
        room = Rooms("val", SIZE)[index]
        classes = room.targets["semseg"].copy()
        classes[5 : 5 + index, 20:40] = 255
        parts = np.where(rng.random(SIZE) < 0.5, 255, classes % 3).astype(np.uint8)
        targets = {**room.targets, "semseg": classes, "human_parsing": parts}
        sure = {"semseg": Quality(0.5, index / 12, None)}
        confidence = {"semseg": rng.random(SIZE).astype(np.float32)}
        changed = {"targets": targets, "quality": sure, "confidence": confidence}
        samples.append(replace(room, **changed))
    parsing = HUMAN_PARSING.with_classes(["head", "arm", "leg"])
    return save(
        tmp_path_factory.mktemp("rooms") / "r", samples, {**Rooms.tasks, "human_parsing": parsing}
    )


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
    return save(tmp_path_factory.mktemp("hostile") / "hostile", samples, tasks)


# --- COCO ---


@pytest.mark.parametrize("task", ["semseg", "human_parsing"])
def test_coco_loads_and_masks_are_the_datasets(
    rooms: Path, d2i1: Callable[..., str], tmp_path: Path, task: str
) -> None:
    folder = run(d2i1, rooms, "coco", tmp_path / "out") / "annotations"
    source = open_source(f"dataset:{rooms}")
    names = source.tasks[task].family.names  # type: ignore[attr-defined]
    coco = COCO(folder / f"stuff_{task}.json")
    assert {n: c["name"] for n, c in coco.cats.items()} == dict(enumerate(names, 1))
    assert len(coco.imgs) == len(source) == 12
    for number, sample in enumerate(source, 1):
        told = coco.imgs[number]
        assert (told["file_name"], told["height"], told["width"]) == (f"{sample.id}.png", *SIZE)
        truth, found = sample.targets[task], np.full(SIZE, 255)
        for one in coco.loadAnns(coco.getAnnIds(imgIds=[number])):
            mask = coco.annToMask(one).astype(bool)
            assert (found[mask] == 255).all() and one["iscrowd"] == 0
            found[mask] = one["category_id"] - 1
            assert one["area"] == mask.sum()
            assert one["bbox"] == coco_mask.toBbox(coco.annToRLE(one)).tolist()
        assert np.array_equal(found, truth)
        assert np.array_equal(pixels(folder / f"semantic_{task}" / f"{sample.id}.png"), truth)


def test_panoptic_pictures_decode_to_the_classes(
    rooms: Path, d2i1: Callable[..., str], tmp_path: Path
) -> None:
    folder = run(d2i1, rooms, "coco", tmp_path / "out", "--tasks", "semseg") / "annotations"
    content = json.loads((folder / "panoptic_semseg.json").read_text())
    assert not list(folder.glob("*human_parsing*"))
    kinds = {kind["id"]: kind for kind in content["categories"]}
    family = Rooms.tasks["semseg"].family
    assert [kind["name"] for kind in kinds.values()] == list(family.names)  # type: ignore[attr-defined]
    assert {kind["isthing"] for kind in kinds.values()} == {0}
    images = {image["id"]: image["file_name"] for image in content["images"]}
    source = open_source(f"dataset:{rooms}")
    for one, sample in zip(content["annotations"], source, strict=True):
        assert images[one["image_id"]] == one["file_name"] == f"{sample.id}.png"
        coloured = pixels(folder / "panoptic_semseg" / one["file_name"]).astype(int)
        ids = coloured @ (1, 256, 256**2)
        found = np.full(SIZE, 255)
        for segment in one["segments_info"]:
            mask = ids == segment["id"]
            assert segment["area"] == mask.sum() > 0 and segment["iscrowd"] == 0
            found[mask] = segment["category_id"] - 1
        assert np.array_equal(found, sample.targets["semseg"])
        assert ((ids == 0) == (found == 255)).all()


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99, 1])
def test_masks_are_encoded_as_by_pycocotools(share: float) -> None:
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (7, 3), (300, 200)):
        mask = rng.random(shape) < share
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert encode_mask(mask) == {"size": list(shape), "counts": expected["counts"].decode()}


# --- YOLO ---


def drawn(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose middle is in a polygon, by Pillow at eight times the size."""
    canvas = Image.new("1", (8 * size[1], 8 * size[0]))
    ImageDraw.Draw(canvas).polygon([tuple(one) for one in (8 * corners - 0.5).tolist()], fill=1)
    return np.asarray(canvas)[4::8, 4::8]


def cut(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What readers get that cut coordinates to whole pixels, as Pillow does, and draw the line."""
    canvas = Image.new("1", (size[1], size[0]))
    ImageDraw.Draw(canvas).polygon([tuple(one) for one in corners.tolist()], fill=1, outline=1)
    return np.asarray(canvas)


def rounded(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same of readers that round."""
    return cut(np.round(corners), size)


@pytest.mark.parametrize(
    ("flags", "readers"),
    [((), (drawn, cut)), (("--outline", "pixels"), (cut, rounded))],
)
def test_yolo_polygons_drawn_again_are_the_classes(
    rooms: Path,
    d2i1: Callable[..., str],
    tmp_path: Path,
    flags: tuple[str, ...],
    readers: tuple[Callable[..., np.ndarray], ...],
) -> None:
    folder = run(d2i1, rooms, "yolo", tmp_path / "out", "--tasks", "semseg", *flags)
    layout = yaml.safe_load((folder / "data.yaml").read_text())
    family = Rooms.tasks["semseg"].family
    assert layout["names"] == dict(enumerate(family.names))  # type: ignore[attr-defined]
    for sample in open_source(f"dataset:{rooms}"):
        image = pixels(folder / layout["train"] / f"{sample.id}.png")
        assert np.array_equal(image, sample.image)
        for read in readers:
            found = np.full(SIZE, 255)
            for line in (folder / "labels/train" / f"{sample.id}.txt").read_text().splitlines():
                number, *shares = line.split()
                corners = np.array(shares, float).reshape(-1, 2)
                assert len(corners) >= 4 and (corners > 0).all() and (corners < 1).all()
                found[read(corners * SIZE[::-1], SIZE)] = int(number)
            assert np.array_equal(found, sample.targets["semseg"])


@pytest.mark.parametrize("seed", range(40))
def test_polygons_keep_every_pixel_and_hole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 20, 2)) < rng.random()
    if seed % 2:
        mask = np.kron(mask, np.ones((2, 3), bool))
    found = np.zeros(mask.shape, int)
    for corners, area in polygons(mask):
        region = drawn(corners, mask.shape)
        assert region.sum() == area
        found += region
    assert np.array_equal(found, mask)


def test_holes_in_holes_are_one_polygon_each() -> None:
    mask = np.zeros((30, 30), bool)
    for ring in range(0, 15, 2):
        mask[ring : 30 - ring, ring : 30 - ring] = ring % 4 == 0
    assert len(list(polygons(mask))) == 4
    assert list(polygons(np.zeros((3, 3), bool))) == []
    touching = np.eye(4, dtype=bool)
    assert [area for _, area in polygons(touching)] == [1] * 4  # corners do not connect


def test_small_regions_are_left_out_if_told(
    rooms: Path, d2i1: Callable[..., str], tmp_path: Path
) -> None:
    def count(*flags: object) -> int:
        folder = run(d2i1, rooms, "yolo", tmp_path / str(flags), "--tasks", "human_parsing", *flags)
        return sum(text.count(b"\n") for text in contents(folder / "labels").values())

    source = open_source(f"dataset:{rooms}")
    maps = [sample.targets["human_parsing"] for sample in source]
    areas = [area for ids in maps for k in range(3) for _, area in polygons(ids == k)]
    assert count() == len(areas)
    assert count("--min_region", 4) == sum(area >= 4 for area in areas) < len(areas)


# --- WebDataset ---


def as_stored(key: str, data: bytes) -> Image.Image | None:
    """The decoder of the README: the library's own would turn class ids and depth into RGB."""
    return Image.open(io.BytesIO(data)) if key.endswith(".png") else None


def test_webdataset_is_read_by_its_library(
    rooms: Path, d2i1: Callable[..., str], tmp_path: Path
) -> None:
    folder = run(d2i1, rooms, "webdataset", tmp_path / "out", "--shard_size", 5)
    shards = sorted(map(str, (folder / "data").iterdir()))
    assert [Path(shard).name for shard in shards] == [f"train-0000{n}.tar" for n in range(3)]
    source, rows = Dataset(str(rooms)), 0
    loaded = webdataset.WebDataset(shards, shardshuffle=False)
    decoded = webdataset.WebDataset(shards, shardshuffle=False).decode(as_stored)
    for raw, seen, sample in zip(loaded, decoded, source, strict=True):
        stored, rows = source.stored(rows), rows + 1
        assert raw["__key__"] == sample.id
        assert raw["image.png"] == stored["image"]["bytes"]
        for name in source.tasks:
            assert raw[f"{name}.png"] == stored[name]["bytes"]
        assert raw["confidence.semseg.png"] == stored["confidence"]["semseg"]["bytes"]
        assert np.array_equal(seen["image.png"], sample.image)
        assert np.array_equal(seen["semseg.png"], sample.targets["semseg"])
        depth = np.asarray(seen["depth.png"], np.float32) / 1000
        assert np.array_equal(depth, sample.targets["depth"])
        facts = seen["json"]
        assert (facts["id"], facts["caption"]) == (sample.id, sample.caption)
        assert facts["quality"]["semseg"]["flip"] == sample.quality["semseg"].flip
        assert facts["provenance"]["source_sha256"] == sample.provenance.source_sha256
    assert rows == 12
    again = load_dataset(str(folder), split="train", streaming=True)
    assert [row["__key__"] for row in again] == source.ids


def test_tar_files_tell_nothing_but_samples(
    rooms: Path, d2i1: Callable[..., str], tmp_path: Path
) -> None:
    one = contents(run(d2i1, rooms, "webdataset", tmp_path / "one", "--tasks", "depth"))
    assert one == contents(run(d2i1, rooms, "webdataset", tmp_path / "two", "--tasks", "depth"))
    with tarfile.open(fileobj=io.BytesIO(one["data/train-00000.tar"])) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (
                *(0, 0, 0),
                *("", ""),
            )


# --- folders ---


def test_folders_are_read_back(rooms: Path, d2i1: Callable[..., str], tmp_path: Path) -> None:
    folder = run(d2i1, rooms, "folders", tmp_path / "out")
    source, found = Dataset(str(rooms)), open_source(f"folder:{folder}/folder.yaml")
    same_samples(found, source)
    for row, identity in enumerate(source.ids):
        stored = source.stored(row)
        assert (folder / "image" / f"{identity}.png").read_bytes() == stored["image"]["bytes"]
        sure = (folder / "confidence/semseg" / f"{identity}.png").read_bytes()
        assert sure == stored["confidence"]["semseg"]["bytes"]
    assert found[0].provenance.licence == "cc0-1.0"


def same_samples(found: Any, source: Any) -> None:
    configs = [{n: t.family.config() for n, t in one.tasks.items()} for one in (found, source)]
    assert configs[0] == configs[1]
    samples = {sample.id: sample for sample in found}
    assert len(samples) == len(source)
    for real in source:
        own = samples[file_name(real.id)]
        assert np.array_equal(own.image, real.image)
        assert (own.caption or None) == real.caption
        for name, task in source.tasks.items():
            blank = task.family.to_array(task.family.blank(real.size))
            assert np.array_equal(own.targets[name], real.targets.get(name, blank))


# --- all ---


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
    folder = run(d2i1, hostile, form, tmp_path / "deep" / "out")
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
        same_samples(open_source(f"folder:{folder}/folder.yaml"), Dataset(str(hostile)))


def test_thresholds_choose_what_is_exported(
    rooms: Path, d2i1: Callable[..., str], tmp_path: Path
) -> None:
    flags = ("--tasks", "depth", "--min_quality", "{semseg.flip: 0.5}")
    folder = run(d2i1, rooms, "folders", tmp_path / "out", *flags)
    ids = open_source(f"dataset:{rooms}", None, {"semseg.flip": 0.5}).ids  # type: ignore[attr-defined]
    assert sorted(p.stem for p in (folder / "image").iterdir()) == ids
    assert len(ids) == 6 and not (folder / "semseg").exists()
    assert not (folder / "confidence").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--format coco --tasks depth", "--tasks depth: --format coco holds classes; choose from"),
        ("--format coco --tasks smell", "dataset r has no 'smell', it has normals, depth"),
        ("--format yolo", "holds one task: choose one with --tasks, of semseg, human_parsing"),
        ("--format coco --shard_size 5", "--shard_size says nothing without --format webdataset"),
        ("--format folders --min_region 5", "--min_region says nothing without --format yolo"),
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
    dataset = save(tmp_path / "plain", samples, {"depth": Rooms.tasks["depth"]})
    flags = ("--format", "coco", "--output_dir", tmp_path / "out")
    assert "--format coco holds classes; dataset plain has depth" in d2i1(
        "export", dataset, *flags, code=2
    )


def test_ids_that_are_not_unique_are_refused(d2i1: Callable[..., str], tmp_path: Path) -> None:
    dataset = save(tmp_path / "twice", [Rooms("val", (8, 8))[0]] * 2, dict(Rooms.tasks))
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
        ("full/thesis.txt/in", "Not a directory"),
    ):
        flags = ("--format", "folders", "--output_dir", tmp_path / name)
        assert told in d2i1("export", rooms, *flags, code=2)
    assert contents(tmp_path) == {"full/thesis.txt": b"years of work"}
    (tmp_path / "empty").mkdir()
    assert contents(run(d2i1, rooms, "folders", tmp_path / "empty"))


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
    dataset = Dataset(str(save(folder, [Rooms("val", (8, 8))[0]], dict(Rooms.tasks))))
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
