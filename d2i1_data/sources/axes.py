"""Axes of stored normals: which channel means which direction. At least five ways are in use."""

import re

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

OURS = "+r+g+b"
FORM = re.compile(r"([+-][rgb])([+-][rgb])([+-][rgb])")


def read_axes(text: str, where: str) -> tuple[list[int], list[int]]:
    """Read which channels of a file are our x (right), y (up) and z (towards the viewer).

    Args:
        text: three channels with signs, such as `-r+g+b`: x is the negative red channel.
        where: begins the message.

    Returns:
        The channel of x, y and z, and their signs.

    Raises:
        InputError: if the text has another form, or names a channel twice.
    """
    match = FORM.fullmatch(text)
    parts = match.groups() if match else ()
    channels = ["rgb".index(part[1]) for part in parts]
    if len({*channels}) != 3:
        raise InputError(
            f"{where}: axes {text!r}: expected the channels of x (right), y (up) and z (towards the"
            " viewer) with their signs, such as -r+g+b"
        )
    return channels, [-1 if part[0] == "-" else 1 for part in parts]


def to_ours(
    vectors: NDArray[np.floating], axes: str, known: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Turn stored normals into unit vectors of our frame; unknown ones are (0, 0, 0).

    Args:
        vectors: stored channels as signed numbers, [H, W, 3].
        axes: see `read_axes`.
        known: the known pixels, [H, W]; None takes all vectors but (0, 0, 0).

    Raises:
        InputError: if the axes have another form.
    """
    channels, signs = read_axes(axes, "normals")
    turned = np.asarray(vectors, np.float32)[..., channels] * np.asarray(signs, np.float32)
    length = np.linalg.norm(turned, axis=-1, keepdims=True)
    valid = length > 0 if known is None else known[..., None] & (length > 0)
    return np.where(valid, turned / np.where(length > 0, length, 1), np.float32(0))


def decode(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    """Channels of 8 bits as numbers from -1 to 1."""
    return pixels.astype(np.float32) / 127.5 - 1
