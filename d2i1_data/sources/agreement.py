"""Whether the stored normals of a source agree with its depth, or other axes fit better."""

from collections.abc import Sequence
from itertools import permutations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .axes import OURS, read_axes
from .camera import Camera
from .source import Source, evenly_spaced

IMAGES = 24  # that are compared
PIXELS = 4000  # of each image
FEWEST = 100  # pixels of an image; others say too little
FIELD_OF_VIEW = 60.0  # degrees, of an unknown camera: that of most cameras in rooms
STEP = 1 / 80  # of the width: the distance of the pixels whose depths are compared
FLAT = 0.02  # of the depth: what is bent more is no surface, but an edge
CLEARLY, SHARE = 5.0, 0.9  # degrees that other axes must gain, and in how many of the images
WORDS = [
    "".join(sign + channel for sign, channel in zip(signs, order, strict=True))
    for order in permutations("rgb")
    for signs in product("+-", repeat=3)
]


class Agreement(NamedTuple):
    """The mean angles between stored normals and those of the depth.

    images: number of compared images. degrees: mean angle of each of `WORDS`, if these were the
    axes, [48]. better: share of images in which each has a smaller angle than the declared axes,
    [48]. axes: the declared axes.
    """

    images: int
    degrees: NDArray[np.float64]
    better: NDArray[np.float64]
    axes: str

    @property
    def declared(self) -> float:
        """Mean angle with the declared axes, in degrees."""
        return float(self.degrees[WORDS.index(self.axes)])

    @property
    def best(self) -> tuple[str, float]:
        """The axes with the smallest angle, and this angle in degrees."""
        number = int(self.degrees.argmin())
        return WORDS[number], float(self.degrees[number])

    @property
    def refuted(self) -> bool:
        """Whether other axes fit clearly better than the declared ones."""
        number = int(self.degrees.argmin())
        gain = self.declared - self.degrees[number]
        return bool(gain >= max(CLEARLY, 0.2 * self.declared) and self.better[number] >= SHARE)


def check_axes(source: Source, rows: Sequence[int], chosen: bool) -> str | None:
    """Compare the normals of a source with its depth.

    Args:
        source: any source.
        rows: its rows that are used. Some of them are compared.
        chosen: whether the user has chosen the axes; they are then never refused.

    Returns:
        One line about the agreement; None if the source lacks depth or normals.

    Raises:
        InputError: if other axes fit clearly better.
    """
    source = source.original
    depths = [name for name, task in source.tasks.items() if task.family.in_metres]
    directions = [name for name, task in source.tasks.items() if task.family.axes]
    if not depths or not directions:
        return None
    normals, depth = directions[0], depths[0]
    found = measure(source, rows, normals, depth)
    if found is None:
        return f"{normals}: no image has enough {depth} to compare"
    camera = "" if source.camera else f", for a field of view of {FIELD_OF_VIEW:.0f} degrees"
    about = f"{found.images} images{camera}"
    (better, degrees), axes = found.best, found.axes
    if found.refuted and not chosen and not source.is_ours:
        raise InputError(
            f"source {source.name}: {normals} differ from those of {depth} by {found.declared:.1f}"
            f" degrees on average with the axes {axes}, but by {degrees:.1f} with {better}"
            f" ({about}); give --axes={better}, or --axes={axes} to keep them"
        )
    line = f"{normals} differ from those of {depth} by {found.declared:.1f} degrees on average"
    more = f"; with the axes {better} by {degrees:.1f}" if found.refuted else ""
    return f"{line} ({about}){more}"


def measure(source: Source, rows: Sequence[int], normals: str, depth: str) -> Agreement | None:
    """Measure how well each way to read the normals of a source agrees with its depth.

    Args:
        source: the source at its own resolution.
        rows: its rows that are used.
        normals: name of the task of the normals.
        depth: name of the task of the depth.

    Returns:
        The agreement; None if no image has enough pixels that both know.
    """
    axes = source.axes or OURS
    channels, signs = read_axes(axes, source.name)
    angles = []
    for place in evenly_spaced(len(rows), IMAGES):
        try:
            targets = source.read(rows[place], (normals, depth)).targets
        except InputError:
            continue  # the import tells it
        ours = normals_from_depth(np.asarray(targets[depth], np.float64), source.camera)
        stored = np.zeros_like(ours)
        stored[..., channels] = np.asarray(targets[normals], np.float64) * signs
        known = (ours != 0).any(-1) & (stored != 0).any(-1)
        places = np.flatnonzero(known)[:: max(1, known.sum() // PIXELS)]
        if len(places) >= FEWEST:
            angles.append(_angles(ours.reshape(-1, 3)[places], stored.reshape(-1, 3)[places]))
    if not angles:
        return None
    table = np.array(angles)  # [images, 48]
    better = (table < table[:, [WORDS.index(axes)]]).mean(0)
    return Agreement(len(table), table.mean(0), better, axes)


def _angles(ours: NDArray[np.float64], stored: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean angle between vectors [N, 3], the second read with each of `WORDS`; degrees, [48]."""
    found = []
    for word in WORDS:
        channels, signs = read_axes(word, "")
        cosine = (ours * stored[:, channels] * signs).sum(-1)
        found.append(np.degrees(np.arccos(cosine.clip(-1, 1))).mean())
    return np.array(found)


def normals_from_depth(
    depth: NDArray[np.float64], camera: Camera | None = None
) -> NDArray[np.float64]:
    """Normals of the surfaces that a depth map shows, in our axes; (0, 0, 0) is unknown.

    Args:
        depth: [H, W] along the optical axis; 0 is unknown.
        camera: the camera; None is one with a field of view of 60 degrees.

    Returns:
        [H, W, 3].
    """
    height, width = depth.shape
    if camera is None:
        focal = max(height, width) / 2 / np.tan(np.radians(FIELD_OF_VIEW / 2))
        camera = Camera([focal, focal])
    left, top = camera.centre or ((width - 1) / 2, (height - 1) / 2)
    rows, columns = np.indices(depth.shape)
    right, up = (columns - left) / camera.focal[0], (top - rows) / camera.focal[1]
    points = np.stack([right * depth, up * depth, -depth], -1)
    step = max(1, round(width * STEP))
    found = np.zeros((height, width, 3))
    if min(height, width) <= 2 * step:
        return found
    inner = slice(step, -step)
    across = points[inner, 2 * step :] - points[inner, : -2 * step]
    upwards = points[: -2 * step, inner] - points[2 * step :, inner]
    normal = np.cross(across, upwards)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    middle = depth[inner, inner]
    pairs = (
        (depth[inner, 2 * step :], depth[inner, : -2 * step]),
        (depth[: -2 * step, inner], depth[2 * step :, inner]),
    )
    known = middle > 0
    for one, other in pairs:
        bend = np.abs(one + other - 2 * middle)
        known &= (one > 0) & (other > 0) & (bend <= FLAT * middle)
    found[inner, inner] = np.where(known[..., None], normal, 0)
    return found
