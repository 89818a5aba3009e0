"""Render a room: its picture and its exact labels.

Letters in shape comments: N rays, H W pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .scene import SHAPES, Room
from .solids import Array, slab

CLASSES = ("floor", "ceiling", "wall", "window", "table", "cabinet", "sofa", *SHAPES)
SUPERSAMPLE = 2  # colour is the mean of this many rays a side; labels come from the centre ray
EDGE_RATIO = 1.15  # neighbouring depths further apart than this factor form an edge
GLASS = np.array([0.75, 0.90, 1.0], np.float32)


@dataclass
class View:
    """The first surface that each ray of a picture hits."""

    depth: Array  # [N] along the optical axis
    points: Array  # [N, 3]
    normals: Array  # [N, 3] world frame, facing the viewer
    classes: NDArray[np.uint8]  # [N]
    things: NDArray[np.int64]  # [N] index into the solids of the room, -1 for its walls
    albedo: Array  # [N, 3]


def render(room: Room, size: tuple[int, int]) -> tuple[NDArray[np.uint8], View]:
    """Render a room.

    Args:
        room: the room.
        size: height and width in pixels.

    Returns:
        The image [H, W, 3], and the first surface behind the centre of each pixel.
    """
    height, width = size
    fine = cast(room, rays(room, (height * SUPERSAMPLE, width * SUPERSAMPLE)))
    colour = shade(room, fine).reshape(height, SUPERSAMPLE, width, SUPERSAMPLE, 3).mean((1, 3))
    image = np.round(np.clip(colour, 0, 1) * 255).astype(np.uint8)
    return image, cast(room, rays(room, size))


def rays(room: Room, size: tuple[int, int]) -> Array:
    """World directions through the pixel centres, scaled to advance one metre of depth, [N, 3]."""
    height, width = size
    pixel = 2 * room.tan_half_fov / max(size)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) * pixel
    y = (height / 2 - 0.5 - np.arange(height, dtype=np.float32)) * pixel
    x, y = np.meshgrid(x, y)
    return np.stack([x, y, -np.ones_like(x)], -1).reshape(-1, 3) @ room.camera


def cast(room: Room, directions: Array) -> View:
    """Follow rays from the room's camera to the first surface."""
    eye = np.broadcast_to(room.eye, directions.shape)
    hits = np.stack([solid.hit(eye, directions) for solid in room.solids])
    shell = slab(eye, directions, room.half)[1]
    things = np.where(hits.min(0) < shell, hits.argmin(0), -1)
    depth = np.minimum(hits.min(0), shell).astype(np.float32)
    points = room.eye + depth[:, None] * directions
    normals, classes, albedo = _walls(room, points)
    for index, solid in enumerate(room.solids):
        mine = things == index
        if mine.any():
            normals[mine] = solid.normal(points[mine])
            classes[mine] = CLASSES.index(solid.kind)
            albedo[mine] = solid.colour
    return View(depth, points, normals, classes, things, albedo)


def _walls(room: Room, points: Array) -> tuple[Array, NDArray[np.uint8], Array]:
    """Normals, classes and colours of points on the floor, the ceiling and the walls."""
    axis = (np.abs(points) / room.half).argmax(-1)
    sign = np.sign(np.take_along_axis(points, axis[:, None], -1))
    normals = -sign * np.eye(3, dtype=np.float32)[axis]
    part = np.where(axis == 1, np.where(sign[:, 0] < 0, 0, 1), 2)
    classes, albedo = part.astype(np.uint8), np.array(room.colours, np.float32)[part]
    x, y, wide, high = room.window
    glass = (axis == 2) & (sign[:, 0] < 0)
    glass &= (np.abs(points[:, 0] - x) < wide) & (np.abs(points[:, 1] - y) < high)
    classes[glass], albedo[glass] = CLASSES.index("window"), GLASS
    return normals, classes, albedo


def shade(room: Room, view: View) -> Array:
    """Lambertian colour under one lamp with shadows, and light from all sides, [N, 3]."""
    start = view.points + 2e-3 * view.normals
    to_light = room.light - start
    dark = np.zeros(len(start), bool)
    for solid in room.solids:
        dark |= solid.hit(start, to_light) < 1.0
    distance = np.linalg.norm(to_light, axis=-1)
    facing = np.clip((view.normals * to_light).sum(-1) / distance, 0, 1)
    lamp = 0.75 * facing * np.where(dark, 0.0, 1.0) / (1 + 0.06 * distance**2)
    sky = 0.40 + 0.10 * view.normals[:, 1] + 0.06 * view.normals[:, 2]
    light = np.where(view.classes == CLASSES.index("window"), 1.0, lamp + sky)
    return view.albedo * light[:, None]


def edges(depth: Array, classes: NDArray[np.uint8]) -> Array:
    """1 where a pixel and its right or lower neighbour differ in class or much in depth, [H, W]."""
    found = np.zeros(depth.shape, np.float32)
    for axis in (0, 1):
        near, far = _neighbours(depth, axis)
        a, b = _neighbours(classes, axis)
        jump = (np.maximum(near, far) > EDGE_RATIO * np.minimum(near, far)) | (a != b)
        found[tuple(slice(0, n) for n in jump.shape)] += jump
    return np.minimum(found, 1.0)


def _neighbours(pixels: NDArray[np.generic], axis: int) -> tuple[Array, Array]:
    last = pixels.shape[axis] - 1
    return np.take(pixels, range(last), axis), np.take(pixels, range(1, last + 1), axis)
