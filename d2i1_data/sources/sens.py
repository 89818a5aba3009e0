"""`.sens` files of ScanNet, version 4: frames of a colour and a depth camera, with calibration."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .camera import Camera

VERSION = 4
JPEG, ZLIB = 2, 1  # kinds of compression of colour and depth
LONGEST_NAME = 10_000  # bytes of the sensor's name
POSE_AND_TIMES = 16 * 4 + 2 * 8  # bytes of a frame before its two sizes


class Header(NamedTuple):
    """The head of a file. size: width and height of depth. start: place of the first frame."""

    colour: Camera
    depth: Camera
    size: tuple[int, int]
    shift: float  # stored value of a metre
    frames: int
    start: int


class Place(NamedTuple):
    """Where a frame lies in its file."""

    colour: int
    colour_bytes: int
    depth_bytes: int


def read_header(file: Path) -> Header:
    """Read the head of a file.

    Raises:
        InputError: if it is no such file, or its frames are compressed in another way.
    """
    with file.open("rb") as stream:
        (version,) = _unpack(stream, "<I", file)
        if version != VERSION:
            raise InputError(f"{file}: version {version} of .sens, expected {VERSION}")
        (length,) = _unpack(stream, "<Q", file)
        if length > LONGEST_NAME:
            raise InputError(f"{file}: damaged: the sensor has a name of {length} bytes")
        stream.seek(length, 1)
        matrices = np.array(_unpack(stream, "<64f", file)).reshape(4, 4, 4)
        colour, depth, _, _, width, height, shift, frames = _unpack(stream, "<2i4IfQ", file)
        if (colour, depth) != (JPEG, ZLIB):
            raise InputError(
                f"{file}: colour and depth are compressed as {colour} and {depth}, expected"
                f" {JPEG} (JPEG) and {ZLIB} (zlib)"
            )
        if not shift > 0 or frames * POSE_AND_TIMES > file.stat().st_size:
            raise InputError(f"{file}: damaged: {shift} for a metre, {frames} frames")
        cameras = read_camera(matrices[0], file), read_camera(matrices[2], file)
        return Header(*cameras, (width, height), shift, frames, stream.tell())


def read_camera(matrix: NDArray[np.floating], file: Path) -> Camera:
    """The camera of an intrinsic matrix.

    Args:
        matrix: at least 3 x 3.
        file: the file that holds it, for the error.

    Raises:
        InputError: if it is no such matrix.
    """
    if matrix.ndim != 2 or min(matrix.shape) < 3 or not np.isfinite(matrix).all():
        raise InputError(f"{file}: expected an intrinsic matrix, 4 x 4 numbers")
    focal, centre = [matrix[0, 0], matrix[1, 1]], [matrix[0, 2], matrix[1, 2]]
    return Camera([*map(float, focal)], [*map(float, centre)]).checked(str(file))


def find_frames(file: Path, header: Header) -> list[Place]:
    """The places of all frames. Their sizes differ, so the file is walked through.

    Raises:
        InputError: if the file ends too early.
    """
    places, size = [], file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(header.start)
        for number in range(header.frames):
            stream.seek(POSE_AND_TIMES, 1)
            colour, depth = _unpack(stream, "<2Q", file)
            places.append(Place(stream.tell(), colour, depth))
            if places[-1].colour + colour + depth > size:
                raise InputError(f"{file}: ends in frame {number} of {header.frames}")
            stream.seek(colour + depth, 1)
    return places


def read_colour(file: Path, place: Place) -> bytes:
    """The JPEG file of a frame."""
    with file.open("rb") as stream:
        stream.seek(place.colour)
        return stream.read(place.colour_bytes)


def read_depth(file: Path, place: Place, header: Header) -> NDArray[np.uint16]:
    """The depth of a frame as it is stored, [H, W]; 0 is unknown.

    Raises:
        InputError: if it is damaged.
    """
    with file.open("rb") as stream:
        stream.seek(place.colour + place.colour_bytes)
        data = stream.read(place.depth_bytes)
    (width, height), unpacker = header.size, zlib.decompressobj()
    try:
        pixels = unpacker.decompress(data, width * height * 2 + 1)
    except zlib.error as error:
        raise InputError(f"{file}: depth of a frame is damaged: {error}") from error
    if len(pixels) != width * height * 2:
        raise InputError(f"{file}: depth of a frame is damaged: expected {width}x{height} pixels")
    return np.frombuffer(pixels, "<u2").reshape(height, width)


def _unpack(stream: BinaryIO, form: str, file: Path) -> tuple:
    data = stream.read(struct.calcsize(form))
    try:
        return struct.unpack(form, data)
    except struct.error as error:
        raise InputError(f"{file}: ends too early for a .sens file") from error
