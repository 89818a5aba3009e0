"""Images, downloads and comparisons for the tests of the app."""

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from d2i1_data.app.session import PipelineSession
from d2i1_data.sources.rooms import Rooms

ROOM: NDArray[np.uint8] = Rooms("test")[3].image
SIDE = 48  # longest side of the tests' uploads


def small(image: NDArray[np.uint8] = ROOM, side: int = SIDE) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def as_read(session: PipelineSession, predictions: dict[str, list[Any]]) -> dict[str, NDArray[Any]]:
    """Predictions after they were stored and read."""
    families = {name: task.family for name, task in session.tasks.items()}
    return {n: f.from_png(f.to_png(predictions[n][0])) for n, f in families.items()}


def assert_near(session: PipelineSession, targets: Any, predictions: dict[str, list[Any]]) -> None:
    """Equal up to one stored step; torch rounds differently for other memory layouts."""
    assert {*targets} == {*predictions} == {*session.tasks}
    for name, task in session.tasks.items():
        one, other = task.family.to_png(targets[name]), task.family.to_png(predictions[name][0])
        first, second = (
            np.asarray(Image.open(io.BytesIO(png))).astype(int) for png in (one, other)
        )
        assert first.std() > 0
        assert (np.abs(first - second) <= 1).mean() > 0.995


def saved(folder: Path, name: str, picture: Image.Image, **options: Any) -> Path:
    picture.save(folder / name, **options)
    return folder / name


def broken(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def decoded(address: str) -> NDArray[np.uint8]:
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def unpack(file: Path, folder: Path) -> Path:
    """The dataset in a zip, whose files all lie in one folder."""
    with zipfile.ZipFile(file) as packed:
        (top,) = {Path(name).parts[0] for name in packed.namelist()}
        packed.extractall(folder)
    assert top == file.stem
    return folder / top
