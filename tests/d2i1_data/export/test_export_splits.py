"""Exports with splits, and the layouts of PASCAL VOC and of transformers."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import load_dataset
from huggingface_hub import HfApi, hf_hub_download
from PIL import Image
from pycocotools.coco import COCO

from d2i1_data.dataset.sample import Sample
from d2i1_data.sources import open_source
from d2i1_data.sources.dataset import Dataset
from d2i1_data.sources.rooms import Rooms
from tests.d2i1_data.dataset.test_splits import HALVES, variants
from tests.exports import export
from tests.hub import Hub
from tests.made import run, save_dataset

D2i1 = Callable[..., str]
SEMSEG = ("--tasks", "semseg")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve samples of four source images, without splits."""
    return save_dataset(tmp_path_factory.mktemp("splits") / "whole", variants(4), dict(Rooms.tasks))


@pytest.fixture(scope="module")
def parted(whole: Path) -> Path:
    """The same samples in two splits."""
    folder = whole.parent / "parted"
    run("import", "--source", f"dataset:{whole}", *HALVES, "--output_dir", folder)
    return folder


def images(folder: Path) -> set[str]:
    """The source images of the files of a folder."""
    return {file.stem.partition("-")[0] for file in folder.iterdir()}


def own(dataset: Path, split: str) -> dict[str, Sample]:
    return {sample.id: sample for sample in Dataset(str(dataset), split)}


def test_stored_splits_are_kept_and_new_ones_are_the_same(
    whole: Path, parted: Path, d2i1: D2i1, tmp_path: Path
) -> None:
    kept = export(d2i1, parted, "yolo", tmp_path / "kept", *SEMSEG)
    drawn = export(d2i1, whole, "yolo", tmp_path / "drawn", *SEMSEG, *HALVES)
    for folder in (kept, drawn):
        layout = yaml.safe_load((folder / "data.yaml").read_text())
        assert (layout["train"], layout["val"]) == ("images/train", "images/val")
        for split in ("train", "val"):
            names = {file.stem for file in (folder / "images" / split).iterdir()}
            assert names == {file.stem for file in (folder / "labels" / split).iterdir()}
            assert names == own(parted, split).keys()
    assert not images(kept / "images/train") & images(kept / "images/val")
    one = export(d2i1, parted, "yolo", tmp_path / "one", *SEMSEG, "--split", "val")
    assert [file.name for file in (one / "images").iterdir()] == ["val"]
    flags = ("--format", "yolo", "--split", "tset", "--output_dir", tmp_path / "no")
    assert "parted: no split 'tset', it has train, val" in d2i1("export", parted, *flags, code=2)


def test_yolo_without_val_says_so(
    whole: Path, d2i1: D2i1, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        folder = export(d2i1, whole, "yolo", tmp_path / "out", *SEMSEG)
    assert "val" not in yaml.safe_load((folder / "data.yaml").read_text())
    assert "export again with --splits train=0.9,val=0.1" in caplog.text


def test_coco_has_annotations_for_each_split(parted: Path, d2i1: D2i1, tmp_path: Path) -> None:
    folder = export(d2i1, parted, "coco", tmp_path / "out")
    numbers: set[int] = set()
    for split in ("train", "val"):
        coco = COCO(folder / f"annotations/stuff_semseg_{split}.json")
        assert coco.dataset["info"]["description"] == f"parted, split {split}"
        assert coco.dataset["licenses"] == [] and not numbers & coco.imgs.keys()
        numbers |= coco.imgs.keys()
        files = {image["file_name"] for image in coco.imgs.values()}
        assert files == {file.name for file in (folder / "images" / split).iterdir()}
        assert files == {f"{name}.png" for name in own(parted, split)}
        for kind in ("panoptic", "semantic"):
            pictures = folder / f"annotations/{kind}_semseg_{split}"
            assert files == {file.name for file in pictures.iterdir()}
        assert (folder / f"annotations/panoptic_semseg_{split}.json").is_file()


def test_coco_names_the_licences(d2i1: D2i1, tmp_path: Path) -> None:
    run(
        "import", "--source", "rooms:val", "--max_source_samples", 1, "--output_dir", tmp_path / "d"
    )
    folder = export(d2i1, tmp_path / "d", "coco", tmp_path / "out")
    coco = COCO(folder / "annotations/stuff_semseg.json")
    assert coco.dataset["licenses"] == [{"id": 1, "name": "cc0-1.0", "url": ""}]
    assert coco.imgs[1]["license"] == 1
    coco.info()


def test_voc_lists_images_whose_ids_have_a_palette(
    parted: Path, d2i1: D2i1, tmp_path: Path
) -> None:
    folder = export(d2i1, parted, "voc", tmp_path / "out", *SEMSEG) / "VOCdevkit/VOC2012"
    family, listed = Rooms.tasks["semseg"].family, {}
    for split in ("train", "val", "trainval"):
        text = (folder / f"ImageSets/Segmentation/{split}.txt").read_text()
        listed[split] = text.splitlines()
    assert listed["trainval"] == listed["train"] + listed["val"]
    for split in ("train", "val"):
        samples = own(parted, split)
        assert listed[split] == [*samples]
        for name, sample in samples.items():
            with Image.open(folder / f"SegmentationClass/{name}.png") as picture:
                assert picture.mode == "P" and np.array_equal(picture, sample.targets["semseg"])
            with Image.open(folder / f"JPEGImages/{name}.jpg") as picture:
                assert picture.format == "JPEG" and picture.size == (8, 8)
                off = np.abs(np.asarray(picture, int) - sample.image)
                assert off.mean() < 5
    lines = (folder / "labelmap.txt").read_text().splitlines()[1:]
    colours = [",".join(map(str, colour)) for colour in family.palette]
    assert lines == [f"{n}:{c}::" for n, c in zip(family.names, colours, strict=True)]


def test_transformers_finds_images_labels_and_names(
    parted: Path, d2i1: D2i1, hub: Hub, tmp_path: Path
) -> None:
    """What run_semantic_segmentation.py reads, through the calls that it makes."""
    folder = export(d2i1, parted, "transformers", tmp_path / "out", *SEMSEG, "--shard_size", 4)
    assert [file.name for file in sorted((folder / "data").iterdir())] == [
        *("train-00000.parquet", "train-00001.parquet"),
        *("validation-00000.parquet", "validation-00001.parquet"),
    ]
    HfApi().create_repo("rooms", repo_type="dataset")
    HfApi().upload_folder(folder_path=folder, repo_id="alice/rooms", repo_type="dataset")
    for place in (str(folder), "alice/rooms"):
        loaded = load_dataset(place)
        assert {*loaded} == {"train", "validation"}
        for split, ours in (("train", "train"), ("validation", "val")):
            samples = own(parted, ours)
            assert loaded[split]["id"] == [*samples]
            for row in loaded[split]:
                target = np.array(row["label"])
                assert target.dtype == np.uint8
                assert np.array_equal(target, samples[row["id"]].targets["semseg"])
                assert np.array_equal(row["image"].convert("RGB"), samples[row["id"]].image)
    names = json.loads(
        Path(hf_hub_download("alice/rooms", "id2label.json", repo_type="dataset")).read_text()
    )
    assert [names[str(n)] for n in range(len(names))] == [*Rooms.tasks["semseg"].family.names]


def test_folders_and_tar_files_keep_splits(parted: Path, d2i1: D2i1, tmp_path: Path) -> None:
    folder = export(d2i1, parted, "folders", tmp_path / "folders")
    for split in ("train", "val"):
        found = open_source(f"folder:{folder}/folder.yaml:{split}")
        assert {sample.id for sample in found} == own(parted, split).keys()
    folder = export(d2i1, parted, "webdataset", tmp_path / "tar", "--shard_size", 4)
    loaded = load_dataset(str(folder))
    assert {row["__key__"] for row in loaded["validation"]} == own(parted, "val").keys()
    assert len(loaded["train"]) == 6


def test_splits_in_the_list_of_samples(whole: Path, d2i1: D2i1, tmp_path: Path) -> None:
    folder = export(d2i1, whole, "folders", tmp_path / "out", *HALVES)
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    split_of = {line["provenance"]["source_id"]: line["split"] for line in lines}
    assert all(split_of[line["provenance"]["source_id"]] == line["split"] for line in lines)
    assert {line["split"] for line in lines} == {"train", "val"} and len(lines) == 12
