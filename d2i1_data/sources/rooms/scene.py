"""Draw a random room: walls, a window, furniture, coloured objects and a camera.

World frame: x right, y up, the camera looks along -z. All lengths are metres.
"""

from dataclasses import dataclass, field

import numpy as np

from .solids import Array, Colour, Solid

SHAPES = ("sphere", "box", "cylinder", "cone")
COLOURS: dict[str, Colour] = {
    "red": (0.85, 0.13, 0.12),
    "green": (0.15, 0.62, 0.20),
    "blue": (0.13, 0.28, 0.85),
    "yellow": (0.93, 0.80, 0.12),
    "purple": (0.55, 0.17, 0.68),
    "cyan": (0.12, 0.70, 0.74),
}
HEIGHTS = {"sphere": 1.0, "box": 0.9, "cylinder": 1.2, "cone": 1.3}  # half height / radius


@dataclass(frozen=True)
class Room:
    """One furnished room and the camera in it."""

    half: Array  # half extent of the room, [3]; the floor is at y = -half[1]
    colours: tuple[Colour, Colour, Colour]  # floor, ceiling, wall
    window: tuple[float, float, float, float]  # x, y, half width, half height on the far wall
    solids: tuple[Solid, ...]
    light: Array  # position of the lamp, [3]
    eye: Array  # position of the camera, [3]
    camera: Array  # rows: the camera's right, up and backward axes, [3, 3]
    tan_half_fov: float  # of the longer side


@dataclass
class Plan:
    """The floor plan while a room is furnished. It keeps objects from overlapping."""

    rng: np.random.Generator
    half: Array
    wood: Array
    taken: list[tuple[float, float, float]] = field(default_factory=list)  # x, z, radius

    @property
    def floor(self) -> float:
        return -float(self.half[1])

    def place(self, radius: float, x: tuple[float, float], z: tuple[float, float]) -> Array | None:
        """Reserve a free spot (x, z) for an object.

        Args:
            radius: radius of the object.
            x: range of x.
            z: range of z.

        Returns:
            The spot, or None if twenty tries find none.
        """
        for _ in range(20):
            spot = np.array([self.rng.uniform(*x), self.rng.uniform(*z)])
            if all(np.hypot(spot[0] - a, spot[1] - b) > radius + r for a, b, r in self.taken):
                self.taken.append((spot[0], spot[1], radius))
                return spot
        return None


def draw_room(rng: np.random.Generator) -> Room:
    """A room with one to three coloured objects (the first is large) and some furniture."""
    half = np.array(
        [rng.uniform(1.7, 2.6), rng.uniform(1.2, 1.5), rng.uniform(2.2, 3.0)], np.float32
    )
    plan = Plan(rng, half, np.array([0.55, 0.38, 0.24], np.float32) * rng.uniform(0.7, 1.3))
    solids = [solid for number in range(rng.integers(1, 4)) for solid in _object(plan, number)]
    for furniture in rng.permutation(len(FURNITURE))[: rng.integers(1, 3)]:
        solids += FURNITURE[furniture](plan)
    floor = _tint(plan, plan.wood * rng.uniform(0.75, 1.1), 0.05)
    wall = _tint(plan, np.full(3, rng.uniform(0.55, 0.92)), 0.08)
    return Room(
        half=half,
        colours=(floor, (0.92, 0.92, 0.90), wall),
        window=(
            *(float(rng.uniform(-0.5, 0.5) * half[0]), 0.25 * float(half[1])),
            *(rng.uniform(0.45, 0.8), rng.uniform(0.3, 0.45)),
        ),
        solids=tuple(solids),
        light=np.array([rng.uniform(-1, 1), half[1] - 0.25, rng.uniform(-0.5, 1.5)], np.float32),
        eye=np.array([rng.uniform(-0.4, 0.4), rng.uniform(0, 0.4), half[2] - 0.15], np.float32),
        camera=_camera(yaw=rng.uniform(-0.18, 0.18), pitch=rng.uniform(-0.32, -0.16)),
        tan_half_fov=float(rng.uniform(0.6, 0.72)),
    )


def _camera(yaw: float, pitch: float) -> Array:
    """Right, up and backward axes of a camera turned by yaw around y, then tilted by pitch."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    return np.array([[cy, 0, -sy], [sy * sp, cp, cy * sp], [sy * cp, -sp, cy * cp]], np.float32)


def _tint(plan: Plan, colour: Array, spread: float) -> Colour:
    r, g, b = np.clip(colour + plan.rng.uniform(-spread, spread, 3), 0.05, 1.0)
    return float(r), float(g), float(b)


def _object(plan: Plan, number: int) -> list[Solid]:
    """One coloured object; the first is large and near the middle of the view."""
    shape = SHAPES[plan.rng.integers(len(SHAPES))]
    name = list(COLOURS)[plan.rng.integers(len(COLOURS))]
    large = number == 0
    radius = plan.rng.uniform(0.38, 0.55) if large else plan.rng.uniform(0.22, 0.36)
    spot = plan.place(radius * 1.3, (-0.9, 0.9), (-0.9, 0.4) if large else (-1.6, 0.3))
    if spot is None:
        return []
    width, height = radius * (0.8 if shape == "box" else 1.0), HEIGHTS[shape] * radius
    centre = (spot[0], plan.floor + height, spot[1])
    yaw = plan.rng.uniform(0, np.pi)
    return [Solid(shape, shape, centre, (width, height, width), yaw, COLOURS[name], name)]


def _cabinet(plan: Plan) -> list[Solid]:
    """A closed box against the far wall."""
    deep, tall = plan.rng.uniform(0.2, 0.3), plan.rng.uniform(0.4, 0.9)
    wide, z = plan.rng.uniform(0.35, 0.6), deep - float(plan.half[2])
    reach = float(plan.half[0]) - wide
    spot = plan.place(wide, (-reach, reach), (z, z))
    if spot is None:
        return []
    centre, colour = (spot[0], plan.floor + tall, z), _tint(plan, plan.wood * 0.8 + 0.08, 0.03)
    return [Solid("box", "cabinet", centre, (wide, tall, deep), 0.0, colour)]


def _sofa(plan: Plan) -> list[Solid]:
    """A seat and its back along a side wall."""
    side, long = plan.rng.choice([-1.0, 1.0]), plan.rng.uniform(0.6, 0.85)
    x = side * (float(plan.half[0]) - 0.4)
    spot = plan.place(long, (x, x), (-1.4, -0.4))
    if spot is None:
        return []
    colour = _tint(plan, np.full(3, plan.rng.uniform(0.25, 0.5)), 0.05)
    seat, back = (x, plan.floor + 0.2, spot[1]), (x + side * 0.3, plan.floor + 0.42, spot[1])
    return [
        Solid("box", "sofa", seat, (0.4, 0.2, long), 0.0, colour),
        Solid("box", "sofa", back, (0.1, 0.42, long), 0.0, colour),
    ]


def _table(plan: Plan) -> list[Solid]:
    """A top on four legs."""
    wide, deep = plan.rng.uniform(0.4, 0.6), plan.rng.uniform(0.28, 0.4)
    tall, reach = plan.rng.uniform(0.5, 0.65), float(plan.half[0]) - wide
    spot = plan.place(wide, (-reach, reach), (-1.9, -0.6))
    if spot is None:
        return []
    colour, (x, z) = _tint(plan, plan.wood * 1.15, 0.03), spot
    top = Solid("box", "table", (x, plan.floor + tall, z), (wide, 0.04, deep), 0.0, colour)
    feet = [(x + i * (wide - 0.05), z + j * (deep - 0.05)) for i in (-1, 1) for j in (-1, 1)]
    size = (0.04, tall / 2, 0.04)
    legs = [
        Solid("box", "table", (a, plan.floor + tall / 2, b), size, 0.0, colour) for a, b in feet
    ]
    return [top, *legs]


FURNITURE = (_table, _cabinet, _sofa)
