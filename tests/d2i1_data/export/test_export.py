"""What is exported is read by the tools it is for, and is what the dataset holds."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
import yaml
from datasets import load_dataset
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from d2i1_data.dataset.sample import Quality
from d2i1_data.export.coco import encode_mask
from d2i1_data.export.polygons import polygons
from d2i1_data.sources import open_source
from d2i1_data.sources.dataset import Dataset
from d2i1_data.sources.rooms import Rooms
from d2i1_data.tasks import HUMAN_PARSING
from tests.exports import assert_same_samples, drawn, export
from tests.made import contents, save_dataset

SIZE = (48, 64)


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
    return save_dataset(
        tmp_path_factory.mktemp("rooms") / "r", samples, {**Rooms.tasks, "human_parsing": parsing}
    )


# --- COCO ---


@pytest.mark.parametrize("task", ["semseg", "human_parsing"])
def test_coco_loads_and_masks_are_the_datasets(
    rooms: Path, d2i1: Callable[..., str], tmp_path: Path, task: str
) -> None:
    folder = export(d2i1, rooms, "coco", tmp_path / "out") / "annotations"
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
    folder = export(d2i1, rooms, "coco", tmp_path / "out", "--tasks", "semseg") / "annotations"
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
    folder = export(d2i1, rooms, "yolo", tmp_path / "out", "--tasks", "semseg", *flags)
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


def test_small_regions_are_left_out_if_told(
    rooms: Path, d2i1: Callable[..., str], tmp_path: Path
) -> None:
    def count(*flags: object) -> int:
        folder = export(
            d2i1, rooms, "yolo", tmp_path / str(flags), "--tasks", "human_parsing", *flags
        )
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
    folder = export(d2i1, rooms, "webdataset", tmp_path / "out", "--shard_size", 5)
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
    one = contents(export(d2i1, rooms, "webdataset", tmp_path / "one", "--tasks", "depth"))
    assert one == contents(export(d2i1, rooms, "webdataset", tmp_path / "two", "--tasks", "depth"))
    with tarfile.open(fileobj=io.BytesIO(one["data/train-00000.tar"])) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (
                *(0, 0, 0),
                *("", ""),
            )


# --- folders ---


def test_folders_are_read_back(rooms: Path, d2i1: Callable[..., str], tmp_path: Path) -> None:
    folder = export(d2i1, rooms, "folders", tmp_path / "out")
    source, found = Dataset(str(rooms)), open_source(f"folder:{folder}/folder.yaml")
    assert_same_samples(found, source)
    for row, identity in enumerate(source.ids):
        stored = source.stored(row)
        assert (folder / "image" / f"{identity}.png").read_bytes() == stored["image"]["bytes"]
        sure = (folder / "confidence/semseg" / f"{identity}.png").read_bytes()
        assert sure == stored["confidence"]["semseg"]["bytes"]
    assert found[0].provenance.licence == "cc0-1.0"


def test_thresholds_choose_what_is_exported(
    rooms: Path, d2i1: Callable[..., str], tmp_path: Path
) -> None:
    flags = ("--tasks", "depth", "--min_quality", "{semseg.flip: 0.5}")
    folder = export(d2i1, rooms, "folders", tmp_path / "out", *flags)
    ids = open_source(f"dataset:{rooms}", None, {"semseg.flip": 0.5}).ids  # type: ignore[attr-defined]
    assert sorted(p.stem for p in (folder / "image").iterdir()) == ids
    assert len(ids) == 6 and not (folder / "semseg").exists()
    assert not (folder / "confidence").exists()
