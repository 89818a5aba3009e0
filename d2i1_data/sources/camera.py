"""The camera of a source, and the axes of stored directions."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

DIRECTIONS = {  # word -> number of our axis, and its sign
    "right": (0, 1),
    "left": (0, -1),
    "up": (1, 1),
    "down": (1, -1),
    "viewer": (2, 1),
    "away": (2, -1),
}
WORDS = {direction: word for word, direction in DIRECTIONS.items()}


class Axes(NamedTuple):
    """The directions that the three channels of stored vectors point to.

    order: our axis of each stored channel: 0 is right, 1 up, 2 towards the viewer. signs: 1, or -1
    for left, down and away from the viewer.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    signs: tuple[int, int, int] = (1, 1, 1)

    def __str__(self) -> str:
        return " ".join(WORDS[one] for one in zip(self.order, self.signs, strict=True))

    def to_ours(self, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        """Turn stored vectors [..., 3] into ours: right, up, towards the viewer."""
        ours = np.empty_like(stored)
        for channel, (axis, sign) in enumerate(zip(self.order, self.signs, strict=True)):
            ours[..., axis] = stored[..., channel] * sign
        return ours + ours.dtype.type(0)  # no negative zeros

    def from_ours(self, ours: NDArray[np.generic]) -> NDArray[np.generic]:
        """Undo `to_ours`."""
        return ours[..., list(self.order)] * np.array(self.signs, ours.dtype)


OURS = Axes()


def read_axes(text: str, where: str) -> Axes:
    """Read a text such as `left up viewer`, the directions of red, green and blue.

    Args:
        text: three words of `DIRECTIONS`.
        where: the flag or key that gave it, for the error.

    Raises:
        InputError: if it has another form, or names one axis twice.
    """
    found = [DIRECTIONS.get(word) for word in text.replace(",", " ").split()]
    if len(found) != 3 or None in found or len({one[0] for one in found if one}) < 3:
        raise InputError(
            f"{where}: got {text!r}, expected three of {', '.join(DIRECTIONS)}, such as"
            " 'right up viewer' for red, green and blue"
        )
    order, signs = zip(*(one for one in found if one), strict=True)
    return Axes(order, signs)


@dataclass(frozen=True)
class Camera:
    """The camera that took the images of a source, in pixels of the images.

    focal: focal length, horizontal and vertical. centre: the pixel on the optical axis, from the
    left and from the top; None is the middle of the image.
    """

    focal: list[float]
    centre: list[float] | None = None

    def checked(self, file: str) -> "Camera":
        """This camera.

        Args:
            file: the YAML file, for the error.

        Raises:
            InputError: if it is not two numbers above 0, and two numbers.
        """
        pairs = [self.focal, *([] if self.centre is None else [self.centre])]
        if any(len(pair) != 2 for pair in pairs) or not min(self.focal) > 0:
            raise InputError(
                f"{file}: camera: got focal {self.focal}, centre {self.centre}, expected two"
                " numbers of pixels each, horizontal and vertical"
            )
        return self
