"""Pieces of the official layouts that several tests write."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

FACING, FLOOR, LEFT_WALL = (0, 0, 1), (0, 1, 0), (1, 0, 0)  # ours; the left wall faces right
PLANES = np.array([FACING, FLOOR, LEFT_WALL], np.float32)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def stored_planes(size: tuple[int, int], stored: Sequence[Sequence[int]]) -> np.ndarray:
    """Three stripes: a plane that faces the camera, a floor and a left wall, as colours.

    stored: what the channels say of each of the three, from -1 to 1.
    """
    colours = np.round((np.array(stored, np.float64) + 1) * 127.5).astype(np.uint8)
    stripe = np.minimum(np.arange(size[1]) * 3 // size[1], 2)
    return np.tile(colours[stripe], (size[0], 1, 1))


def save_matlab(path: Path, arrays: Mapping[str, np.ndarray], cells: Mapping[str, list]) -> None:
    """A MATLAB 7.3 file. Arrays are in MATLAB's order, such as height x width x 3 x count."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array.T  # MATLAB stores columns first
        texts = file.create_group("#refs#")
        for name, words in cells.items():
            references = []
            for number, word in enumerate(words):
                codes = np.array([[ord(letter)] for letter in word], np.uint16)
                references.append(texts.create_dataset(f"{name}{number}", data=codes).ref)
            file.create_dataset(name, data=np.array([references], dtype=h5py.ref_dtype))
