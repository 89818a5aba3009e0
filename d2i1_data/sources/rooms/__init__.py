"""The source `rooms`: rendered rooms with exact labels and captions, at any resolution."""

import hashlib
import re
from collections.abc import Iterable, Mapping

import numpy as np

from ...dataset.sample import Provenance, Sample, image_sha256
from ...errors import InputError
from ...tasks import DEPTH, EDGES, NORMALS, SALIENCY, SEMSEG, Task
from ..source import Source, fingerprint
from .render import CLASSES, View, edges, render
from .scene import COLOURS, SHAPES, Room, draw_room

PALETTE = (
    *((120, 94, 70), (222, 222, 214), (176, 190, 205), (120, 200, 255), (160, 100, 40)),
    *((96, 64, 112), (70, 110, 90), (230, 60, 60), (60, 120, 230), (70, 190, 80), (240, 190, 50)),
)
SPLITS = {"train": 20_000, "val": 500, "test": 500}
MAIN_OBJECTS = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
VISIBLE = 0.012  # an object is visible if it covers at least this share of the image


class Rooms(Source):
    """Random rooms. The same index gives the same room on every machine.

    Args:
        split: `train`, `val` or `test`. No room is in two of them.
        size: height and width in pixels.
    """

    name = "rooms"
    licence = "cc0-1.0"
    tasks: Mapping[str, Task] = {
        task.name: task
        for task in (NORMALS, DEPTH, SEMSEG.with_classes(CLASSES, PALETTE), SALIENCY, EDGES)
    }

    def __init__(self, split: str = "train", size: tuple[int, int] = (64, 64)) -> None:
        super().__init__()
        if split not in SPLITS:
            raise InputError(f"rooms has no split {split!r}: choose from {', '.join(SPLITS)}")
        self.split, self.size = split, size
        self.fingerprint = fingerprint(self.name, split, size)

    def __len__(self) -> int:
        return SPLITS[self.split]

    def identity(self, index: int) -> str:
        return f"rooms-{self.split}-{index:05d}"

    def image_size(self, index: int) -> tuple[int, int]:
        return self.size

    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        identity = self.identity(index)
        seed = hashlib.blake2b(identity.encode(), digest_size=8).digest()
        rng, caption = np.random.default_rng(int.from_bytes(seed, "big")), None
        while caption is None:  # a room that hides all its objects is drawn again
            room = draw_room(rng)
            image, view = render(room, self.size)
            caption = describe(room, view)
        provenance = Provenance("real", self.name, identity, image_sha256(image), self.licence)
        return Sample(identity, image, _targets(room, view, self.size), caption, provenance)


def _targets(room: Room, view: View, size: tuple[int, int]) -> dict[str, np.ndarray]:
    depth, classes = view.depth.reshape(size), view.classes.reshape(size)
    normals = view.normals @ room.camera.T  # the camera frame: x right, y up, z towards the viewer
    return {
        "normals": normals.reshape(*size, 3).astype(np.float32),
        "depth": depth,
        "semseg": classes,
        "saliency": (classes >= CLASSES.index(SHAPES[0])).astype(np.float32),
        "edges": edges(depth, classes),
    }


def main_object(caption: str | None) -> str:
    """Colour and shape of the object that a caption names first, which is the largest one."""
    colour, shape = re.findall(r"\w+", caption or "")[4:6]
    return f"{colour} {shape}"


def describe(room: Room, view: View) -> str | None:
    """A caption: the visible objects, largest first, then furniture. None without objects."""
    share = np.bincount(view.things + 1, minlength=len(room.solids) + 1)[1:] / view.things.size
    visible = [room.solids[i] for i in np.argsort(-share, kind="stable") if share[i] >= VISIBLE]
    objects = [f"{solid.colour_name} {solid.kind}" for solid in visible if solid.colour_name]
    if not objects:
        return None
    furniture = sorted({solid.kind for solid in visible if not solid.colour_name})
    *first, last = [f"a {thing}" for thing in (*objects, *furniture)]
    return f"a room with {', '.join(first)} and {last}" if first else f"a room with {last}"
