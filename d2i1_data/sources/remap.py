"""Other classes in place of the stored ones: renamed, joined, or unknown."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..diff2in1.families import Encoding, Family
from ..errors import InputError
from .layout import Classes

UNKNOWN = 255
OTHERS = "*"  # in `remap`: all stored classes that have no other place


class Remap(NamedTuple):
    """What stored class ids mean.

    meanings: stored id -> class id; 255 is unknown. others: the meaning of all other ids; None
    refuses them.
    """

    meanings: dict[int, int]
    others: int | None

    def decode(
        self, pixels: NDArray[np.generic], family: Family, encoding: Encoding
    ) -> NDArray[np.generic]:
        """Class ids of the pixels of a label file.

        Args:
            pixels: [H, W] stored ids, or [H, W, 3] colours.
            family: the label map.
            encoding: how the file is stored.

        Raises:
            ValueError: if an id has no meaning, or a colour no id.
        """
        unknown, colours = encoding.is_unknown(pixels), pixels.ndim == 3
        pixels = family.from_file(pixels, encoding) if colours else encoding.meant(pixels)
        if pixels.dtype.kind == "f" and bool(np.any(pixels != np.round(pixels.astype(np.float64)))):
            return pixels  # no class ids, which the family tells
        stored, place = np.unique(pixels[~unknown].astype(np.int64), return_inverse=True)
        ids = [self.meanings.get(one, self.others) for one in stored.tolist()]
        if None in ids:
            missing = stored[ids.index(None)]
            raise ValueError(f"class id {missing}, which `remap` does not name")
        found = np.full(pixels.shape, UNKNOWN, np.uint8)
        found[~unknown] = np.array(ids, np.uint8)[place.reshape(-1)]
        return found

    def colours(self, count: int, palette: list[list[int]]) -> list[list[int]] | None:
        """The colour of each class: that of the first stored class that becomes it.

        Args:
            count: number of classes.
            palette: the colours of the stored classes.

        Returns:
            The colours; None if a class has none.
        """
        first: dict[int, list[int]] = {}
        for stored, meaning in sorted(self.meanings.items()):
            first.setdefault(meaning, palette[stored])
        return [first[one] for one in range(count)] if {*range(count)} <= {*first} else None


def read_remap(classes: Classes, where: str) -> tuple[list[str], Remap | None]:
    """The class names of a source, and what its stored ids mean; None if they mean themselves.

    A stored class that `remap` does not name has the class of its own name. Without `names` the
    classes are those that stored ones become, in their order.

    Args:
        classes: the classes of a YAML file.
        where: begins the message.

    Raises:
        InputError: if a name or id is unknown, or a stored class has no place.
    """
    if classes.stored is None and not classes.remap:
        if classes.names is None:
            raise InputError(f"{where}: 'names' is missing")
        return classes.names, None
    goals = {key: goal for key, goal in classes.remap.items() if key != OTHERS}
    if classes.stored is None:
        if classes.names is None:
            raise InputError(f"{where}: give `names`, or `stored` and `remap`")
        by_id = {_stored_id(key, where): goal for key, goal in goals.items()}
    else:
        by_id = _goals_of_stored(classes.stored, goals, classes, where)
    names = classes.names
    if names is None:
        if numbers := [goal for goal in by_id.values() if isinstance(goal, int)]:
            raise InputError(f"{where}: remap: got {numbers[0]}, which needs `names`")
        names = list(dict.fromkeys(goal for _, goal in sorted(by_id.items()) if goal is not None))
    meanings = {stored: _class_id(goal, names, where) for stored, goal in by_id.items()}
    others = None
    if OTHERS in classes.remap:
        others = _class_id(classes.remap[OTHERS], names, where)
    return names, Remap(meanings, others)


def _goals_of_stored(
    stored: list[str], goals: dict[str, Any], classes: Classes, where: str
) -> dict[int, Any]:
    """Stored id -> its class, as `remap` or its own name gives it."""
    for key in goals:
        if key not in stored and not (key.isdecimal() and int(key) < len(stored)):
            raise InputError(f"{where}: remap: {key!r} is neither one of `stored` nor its number")
    found = {}
    for number, name in enumerate(stored):
        if name in goals or str(number) in goals:
            found[number] = goals.get(name, goals.get(str(number)))
        elif name in (classes.names or ()):
            found[number] = name
        elif OTHERS in classes.remap:
            found[number] = classes.remap[OTHERS]
        elif classes.names is None:
            found[number] = name
        else:
            raise InputError(
                f"{where}: stored class {name!r} is not one of `names`: name it in `remap`"
                " (null is unknown)"
            )
    return found


def _stored_id(key: str, where: str) -> int:
    try:
        return int(key)
    except ValueError as error:
        raise InputError(
            f"{where}: remap: {key!r}: give the names of stored ids under `stored`, or use ids"
        ) from error


def _class_id(goal: Any, names: list[str], where: str) -> int:
    """The id of a class that `remap` names."""
    if goal is None:
        return UNKNOWN
    if isinstance(goal, str) and goal in names:
        return names.index(goal)
    if isinstance(goal, int) and not isinstance(goal, bool) and 0 <= goal < len(names):
        return goal
    expected = f"one of `names`, 0 to {len(names) - 1}, or null for unknown"
    raise InputError(f"{where}: remap: got {goal!r}, expected {expected}")
