"""Class ids: viewers show their colours, readers get the ids, and a file names the classes."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from datasets import load_dataset
from PIL import Image

from d2i1_data.dataset.schema import Schema, read_schema
from d2i1_data.sources import open_source
from d2i1_data.sources.dataset import Dataset
from d2i1_data.sources.rooms import Rooms
from d2i1_data.tasks import HUMAN_PARSING
from tests.fixtures.write_formats import FORMATS
from tests.made import rows, run, save_dataset

FLAGS = ("--source", "rooms:val", "--max_source_samples", 3, "--resolution", "16x24")


def test_viewers_show_colours_and_readers_get_ids(tmp_path: Path) -> None:
    run("import", *FLAGS, "--output_dir", tmp_path / "made")
    family, source = Rooms.tasks["semseg"].family, Dataset(str(tmp_path / "made"))
    loaded = load_dataset(str(tmp_path / "made"), split="train")
    tensors = loaded.with_format("torch")
    for row, tensor, sample in zip(loaded, tensors, source, strict=True):
        ids, picture = sample.targets["semseg"], row["semseg"]
        assert picture.mode == "P" and np.array_equal(picture, ids)
        assert np.array_equal(picture.convert("RGB"), family.colorize(ids))
        assert np.array_equal(tensor["semseg"][0], ids)
    rooms = open_source("rooms:val", "16x24")
    rows = [row for row in range(len(rooms)) if rooms.identity(row) in source.ids]
    real = {rooms.identity(row): rooms[row].targets["semseg"] for row in rows}
    assert all(np.array_equal(sample.targets["semseg"], real[sample.id]) for sample in source)


def test_unknown_is_black_and_stays_255() -> None:
    family, ids = Rooms.tasks["semseg"].family, np.array([[0, 1], [10, 255]], np.uint8)
    with Image.open(io.BytesIO(family.to_png(ids))) as picture:
        assert np.asarray(picture.convert("RGB"))[1, 1].tolist() == [0, 0, 0]
    assert np.array_equal(family.from_png(family.to_png(ids)), ids)


def test_a_dataset_of_the_first_version_continues_without_colours() -> None:
    file = FORMATS / "dataset/diff2in1.json"
    schema = read_schema(file.read_bytes(), str(file))
    assert not schema.palettes and "palettes" not in schema.config()
    assert Schema.real(schema.tasks).config()["palettes"]
    for row in rows(FORMATS / "dataset"):
        sample = schema.from_row(row)
        plain = schema.to_row(sample)["semseg"]["bytes"]
        with Image.open(io.BytesIO(plain)) as picture:
            assert picture.mode == "L" and np.array_equal(picture, sample.targets["semseg"])


def test_a_file_names_the_classes(tmp_path: Path) -> None:
    room = Rooms("val", (8, 8))[0]
    names = Rooms.tasks["semseg"].family.names
    parsing = HUMAN_PARSING.with_classes(["head", "arm"])
    both = replace(room, targets=room.targets | {"human_parsing": room.targets["semseg"] * 0})
    folder = save_dataset(tmp_path, [both], {**Rooms.tasks, "human_parsing": parsing})
    first, second = (
        json.loads((folder / file).read_text())
        for file in ("id2label.json", "id2label_human_parsing.json")
    )
    assert first == {str(number): name for number, name in enumerate(names)}
    assert second == {"0": "head", "1": "arm"}
    save_dataset(folder, [room], {"depth": Rooms.tasks["depth"]})
    assert not list(folder.glob("id2label*"))
