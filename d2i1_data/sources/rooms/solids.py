"""Ray casting of upright solids with numpy: where a ray hits, and the normals of surfaces.

Right-handed frame, y up, lengths in metres. N is the number of rays.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Solid:
    """An upright, closed, convex shape. size: half of its extent. yaw: rotation around y."""

    shape: str
    kind: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float
    colour: Colour
    colour_name: str | None = None  # only for objects that captions name

    def _turn(self) -> Array:
        """Rotation from world axes to the solid's own."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]], np.float32)

    def _local(self, points: Array) -> Array:
        return (points - np.array(self.centre, np.float32)) @ self._turn().T

    def hit(self, origin: Array, ray: Array) -> Array:
        """Distance to the first surface point in multiples of each ray, inf for a miss, [N]."""
        half = np.array(self.size, np.float32)
        return _HITS[self.shape](self._local(origin), ray @ self._turn().T, half)

    def normal(self, points: Array) -> Array:
        """Outward unit normals at surface points, [N, 3]."""
        half = np.array(self.size, np.float32)
        return _NORMALS[self.shape](self._local(points), half) @ self._turn()


def slab(o: Array, d: Array, half: Array) -> tuple[Array, Array]:
    """Entry and exit distances of rays through an axis-aligned box, [N] each."""
    d = np.where(np.abs(d) < 1e-7, np.float32(1e-7), d)
    a, b = (-half - o) / d, (half - o) / d
    return np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)


def _hit_box(o: Array, d: Array, half: Array) -> Array:
    near, far = slab(o, d, half)
    return np.where((near <= far) & (near > 1e-4), near, np.inf)


def _hit_sphere(o: Array, d: Array, half: Array) -> Array:
    a, b = (d * d).sum(-1), (o * d).sum(-1)
    root = b * b - a * ((o * o).sum(-1) - half[0] ** 2)
    t = (-b - np.sqrt(np.maximum(root, 0))) / a
    return np.where((root > 0) & (t > 1e-4), t, np.inf)


def _hit_side(o: Array, d: Array, half: Array, slope: float, apex: float) -> Array:
    """Distances to the side: its radius is `half[0] + slope * (apex - y)`, for |y| to half[1]."""
    r0 = half[0] + slope * (apex - o[..., 1])
    k = slope * d[..., 1]
    a = d[..., 0] ** 2 + d[..., 2] ** 2 - k * k
    a = np.where(np.abs(a) < 1e-9, np.float32(1e-9), a)
    b = o[..., 0] * d[..., 0] + o[..., 2] * d[..., 2] + r0 * k
    c = o[..., 0] ** 2 + o[..., 2] ** 2 - r0 * r0
    root = b * b - a * c
    square = np.sqrt(np.maximum(root, 0))
    best = np.full(d.shape[:-1], np.inf, np.float32)
    for t in ((-b - square) / a, (-b + square) / a):
        y = o[..., 1] + t * d[..., 1]
        fits = (root > 0) & (t > 1e-4) & (np.abs(y) <= half[1]) & (r0 - k * t > 0)
        best = np.where(fits, np.minimum(best, t), best)
    return best


def _hit_cap(o: Array, d: Array, half: Array, y: float) -> Array:
    """Distances to the disc of radius half[0] at height y."""
    dy = np.where(np.abs(d[..., 1]) < 1e-7, np.float32(1e-7), d[..., 1])
    t = (y - o[..., 1]) / dy
    x, z = o[..., 0] + t * d[..., 0], o[..., 2] + t * d[..., 2]
    return np.where((t > 1e-4) & (x * x + z * z <= half[0] ** 2), t, np.inf)


def _hit_cylinder(o: Array, d: Array, half: Array) -> Array:
    caps = np.minimum(_hit_cap(o, d, half, half[1]), _hit_cap(o, d, half, -half[1]))
    return np.minimum(caps, _hit_side(o, d, half, 0.0, 0.0))


def _hit_cone(o: Array, d: Array, half: Array) -> Array:
    slope = half[0] / (2 * half[1])
    tip = np.array([0, half[1], 0], np.float32)  # the radius is zero at the tip
    return np.minimum(_hit_side(o, d, tip, slope, half[1]), _hit_cap(o, d, half, -half[1]))


def _normal_box(p: Array, half: Array) -> Array:
    face = np.abs(p / half).argmax(-1)
    return np.eye(3, dtype=np.float32)[face] * np.sign(np.take_along_axis(p, face[..., None], -1))


def _normal_sphere(p: Array, half: Array) -> Array:
    return p / half[0]


def _normal_cylinder(p: Array, half: Array) -> Array:
    side = p * np.array([1, 0, 1], np.float32) / half[0]
    cap = np.array([0, 1, 0], np.float32) * np.sign(p[..., 1:2])
    return np.where(np.abs(np.abs(p[..., 1:2]) - half[1]) < 1e-3, cap, side)


def _normal_cone(p: Array, half: Array) -> Array:
    radius = np.maximum(np.hypot(p[..., 0], p[..., 2]), 1e-6)
    rise = np.full_like(radius, half[0] / (2 * half[1]))
    side = np.stack([p[..., 0] / radius, rise, p[..., 2] / radius], -1)
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    down = np.array([0, -1, 0], np.float32)
    return np.where(p[..., 1:2] < -half[1] + 1e-3, down, side)


_HITS = {"box": _hit_box, "sphere": _hit_sphere, "cylinder": _hit_cylinder, "cone": _hit_cone}
_NORMALS = {
    "box": _normal_box,
    "sphere": _normal_sphere,
    "cylinder": _normal_cylinder,
    "cone": _normal_cone,
}
