"""Commands that read files, each with the files that it reads."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from d2i1_data.sources.rooms import Rooms
from tests.fixtures.write_formats import CREATE, FORMATS, IMPROVE, LAST, LATEST

SOURCE = """\
name: photos
licence: cc0-1.0
root: photos
columns: {image: image, depth: {folder: depth, scale: 1000}, semseg: semseg, normals: normals}
classes: {semseg: CLASSES}
caption: {template: "a room"}
"""
WARM_UP = """\
base: pipeline
source: folder:photos.yaml
host: light
tasks: depth
width: 16
resolution: "16"
max_train_steps: 1
real_batch_size: 2
"""
PHOTOS = ("--source", "folder:photos.yaml", "--resolution", "16")
OUT = ("--output_dir", "out")
SHORT = ("--max_train_steps", 1, "--real_batch_size", 2)  # a damaged file may ask for hours


class Door(NamedTuple):
    """A command, and patterns of the files that it reads."""

    command: tuple[object, ...]
    files: tuple[str, ...]


DATASET = ("dataset/data/*", "dataset/*.json", "dataset/logs/*")
PIPELINE = ("pipeline/**/*.json", "pipeline/**/*.safetensors")
ADAPTER = ("adapter/**/*.json", "adapter/**/*.safetensors")
CHECKPOINT = ("checkpoint/*.json", "checkpoint/checkpoint-2/*")
IMAGE = "photos/image/0.png"
DOORS = {
    "import photos": Door(("import", *PHOTOS, *OUT), ("photos/*/*", "photos.yaml")),
    "import photos, skip": Door(("import", *PHOTOS, "--on_bad_row", "skip", *OUT), ("photos/*/*",)),
    "predict a photo": Door(("predict", IMAGE, "--pipeline", "pipeline", *OUT), (IMAGE, *PIPELINE)),
    "evaluate": Door(("evaluate", "--pipeline", "pipeline", *PHOTOS[:2]), ("photos/*/*",)),
    "predict with an adapter": Door(("predict", IMAGE, "--pipeline", "adapter", *OUT), ADAPTER),
    "import a dataset": Door(("import", "--source", "dataset:dataset", *OUT), DATASET),
    "verify": Door(("create", "--verify", "dataset", "--pipeline", "pipeline"), DATASET),
    "report": Door(("report", "dataset", "--pipeline", "pipeline"), DATASET),
    "export": Door(("export", "dataset", "--format", "coco", *OUT), DATASET),
    "continue a dataset": Door(CREATE, DATASET),
    "continue a checkpoint": Door((*IMPROVE, "--max_train_steps", LAST + 1, *LATEST), CHECKPOINT),
    "self-improve": Door(
        (*IMPROVE, "--max_train_steps", 1, "--output_dir", "out"), (*DATASET, *PIPELINE)
    ),
    "settings": Door(("warm-up", "--config", "settings.yaml", *SHORT, *OUT), ("settings.yaml",)),
}


def make_files(folder: Path) -> None:
    """Write intact files for all commands.

    Args:
        folder: an empty folder. The commands run inside it.
    """
    shutil.copytree(FORMATS, folder, dirs_exist_ok=True)
    classes = Rooms.tasks["semseg"].family.config()
    known = {key: classes[key] for key in ("names", "palette")}
    (folder / "photos.yaml").write_text(SOURCE.replace("CLASSES", json.dumps(known)))
    (folder / "settings.yaml").write_text(WARM_UP)
    rooms, draw = Rooms("train", size=(16, 16)), np.random.default_rng(0)
    for n in range(3):
        sample = rooms[n]
        depth = (1000 * sample.targets["depth"]).astype(np.uint16)
        normals = (127.5 * (sample.targets["normals"] + 1)).astype(np.uint8)
        labels = draw.integers(0, len(known["names"]), sample.image.shape[:2], np.uint8)
        maps = {"depth": depth, "normals": normals, "semseg": labels}
        for name, pixels in {"image": sample.image, **maps}.items():
            file = folder / "photos" / name / f"{n}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    jpg = folder / "photos/image/2.png"
    Image.open(jpg).save(jpg.with_suffix(".jpg"))
    jpg.unlink()
