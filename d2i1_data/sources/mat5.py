"""The structure of MATLAB 5 files, checked before SciPy reads them: damaged ones crash SciPy 1.17.

Source: "MAT-File Format", The MathWorks.
"""

import struct
import zlib
from collections.abc import Iterator
from math import prod

HEADER = 128  # bytes
ORDERS = {b"IM": "<", b"MI": ">"}  # the mark at the end of the header -> order of bytes
# numbers of types, and bytes of an item
ITEM = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
CELL, STRUCT, CHARACTERS, NUMBERS = 1, 2, 4, range(6, 16)  # classes of arrays
IS_COMPLEX = 0x800
DEEPEST, LARGEST = 20, 1 << 32  # nested arrays; bytes of a variable

Element = tuple[int, memoryview]  # type and content


def uncompressed(content: bytes) -> bytes:
    """A MATLAB 5 file with whole, sound variables, without compression.

    Args:
        content: the file. It may hold arrays of numbers and characters, cells and structs.

    Raises:
        ValueError: if it is damaged, or another file.
    """
    order = ORDERS.get(content[126:128], "")
    if not order:
        raise ValueError("it has no such header")
    parts = [content[:HEADER]]
    for kind, data in _elements(memoryview(content)[HEADER:], order):
        if kind == COMPRESSED:
            ((kind, data),) = _elements(memoryview(_inflate(data)), order)
        if kind != MATRIX:
            raise ValueError(f"it has an element of type {kind}")
        _check_array(data, order, 0)
        parts += [
            struct.pack(f"{order}2I", MATRIX, len(data)),
            bytes(data),
            b"\0" * (-len(data) % 8),
        ]
    return b"".join(parts)


def _inflate(compressed: memoryview) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(compressed, LARGEST)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not unpacker.eof:
        raise ValueError("a compressed variable ends too early")
    return plain


def _elements(data: memoryview, order: str) -> Iterator[Element]:
    """The elements that follow each other in some bytes."""
    at = 0
    while at < len(data):
        if len(data) - at < 8:
            raise ValueError("an element ends too early")
        kind, size = struct.unpack_from(f"{order}2I", data, at)
        start, following = at + 8, at + 8 + size + (-size % 8 if kind != COMPRESSED else 0)
        if kind >> 16:  # up to four bytes lie in the tag
            kind, size, start, following = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        if start + size > min(following, len(data)):
            raise ValueError("an element ends too early")
        yield kind, data[start : start + size]
        at = following


def _check_array(data: memoryview, order: str, depth: int) -> None:
    """Raise ValueError if the elements of an array do not fit each other."""
    if not data:
        return  # an empty array
    parts = list(_elements(data, order))
    kinds = [kind for kind, _ in parts]
    if depth > DEEPEST or kinds[:3] != [UINT32, INT32, INT8]:
        raise ValueError("an array does not begin with flags, size and name")
    (flags, _), sizes = _unpack(parts[0], order, "I", 2), parts[1][1]
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes[: len(sizes) // 4 * 4])
    if len(sizes) % 4 or len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"an array of shape {shape}")
    what, count, rest = flags & 0xFF, prod(shape), parts[3:]
    if what in NUMBERS or what == CHARACTERS:
        _check_values(rest, count, 2 if flags & IS_COMPLEX else 1, what == CHARACTERS)
        return
    if what == STRUCT and len(rest) >= 2:
        (length,) = _unpack(rest[0], order, "i", 1)
        if length < 1 or len(rest[1][1]) % length or rest[1][0] != INT8:
            raise ValueError("a struct has damaged names")
        count *= len(rest[1][1]) // length
        rest = rest[2:]
    elif what != CELL:
        raise ValueError(f"an array of class {what}")
    if len(rest) != count or any(kind != MATRIX for kind, _ in rest):
        raise ValueError(f"{len(rest)} values, expected {count}")
    for _, inner in rest:
        _check_array(inner, order, depth + 1)


def _check_values(parts: list[Element], count: int, columns: int, characters: bool) -> None:
    if len(parts) != columns or any(kind not in ITEM for kind, _ in parts):
        raise ValueError("an array without values")
    for kind, values in parts:
        if len(values) != count * ITEM[kind] and not (characters and kind == 16):
            raise ValueError(f"{len(values)} bytes, expected {count} values")


def _unpack(part: Element, order: str, form: str, count: int) -> tuple[int, ...]:
    if len(part[1]) != 4 * count:
        raise ValueError("an element has another length")
    return struct.unpack(f"{order}{count}{form}", part[1])
