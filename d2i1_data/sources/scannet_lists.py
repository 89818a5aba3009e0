"""Lists of ScanNet: the scenes of a split, FrameNet's frames, the classes of raw labels."""

import csv
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .official import read_ids

LABELS = "scannetv2-labels.combined.tsv"
FRAMENET = "train_test_split.pkl"
FRAME = re.compile(r"(?:.*[/\\])?(scene\d{4}_\d\d)[/\\]frame-(\d{6})-color\.png")
MOST = 1 << 16  # a label has 16 bits


class PlainUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, texts and numbers. A pickle that asks for code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"asks for {module}.{name}, which could run code")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("asks for an object outside of the file")


def read_scenes(root: Path, split: str) -> list[str]:
    """The scenes of a split in the official list.

    Raises:
        InputError: if the list is missing, or something else.
    """
    name = f"scannetv2_{split}.txt"
    places = [root / name, root / "Tasks" / "Benchmark" / name]
    file = next((place for place in places if place.is_file()), places[0])
    scenes = read_ids(file)
    if wrong := [scene for scene in scenes if not re.fullmatch(r"scene\d{4}_\d\d", scene)]:
        raise InputError(f"{file}: got {wrong[0]!r:.40}, expected scenes such as scene0000_00")
    return scenes


def read_framenet(file: Path, split: str) -> list[tuple[str, int]]:
    """Scene and number of the frames in FrameNet's list, whose paths are of another machine.

    Raises:
        InputError: if it is no such list. A pickle that would run code is not read.
    """
    try:
        content = PlainUnpickler(io.BytesIO(file.read_bytes()), encoding="latin1").load()
        colours = content[split][0]
        matches = [FRAME.fullmatch(path) for path in colours]
    except pickle.UnpicklingError as error:
        raise InputError(f"{file}: not read: {' '.join(str(error).split())}") from error
    except Exception as error:  # damaged pickles raise errors of many kinds
        raise InputError(f"{file}: not readable as FrameNet's list of {split} frames") from error
    frames = [(match[1], int(match[2])) for match in matches if match]
    if not frames or len(frames) < len(matches):
        raise InputError(f"{file}: expected paths such as .../scene0000_00/frame-000000-color.png")
    return frames


def read_raw_labels(file: Path) -> NDArray[np.uint8]:
    """The number among the 40 classes of NYUv2 of each raw label, [65536]; 0 for unknown ones.

    Raises:
        InputError: if the table is missing, or something else.
    """
    if not file.is_file():
        raise InputError(f"no such file: {file}, which tells the classes of raw labels")
    numbers = np.zeros(MOST, np.uint8)
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                label, number = int(row["id"]), int(row["nyu40id"])
                if not (0 <= label < MOST and 0 <= number <= 40):
                    raise ValueError(f"id {label} with nyu40id {number}")
                numbers[label] = number
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{file}: expected columns id and nyu40id, got {error}") from error
    return numbers
