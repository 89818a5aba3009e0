"""The binary formats of Xet: chunks in a xorb, files in a shard. Serves no route.

A file is cut into chunks of some 64 KiB. Chunks travel in xorbs, each behind a header of 8 bytes:
version, packed size (3 bytes), packing, size (3 bytes). A shard lists the chunks of each file, in
entries of 48 bytes. See https://huggingface.co/docs/xet.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

HEADER, ENTRY = 8, 48
WITH_HASHES, WITH_SHA256 = 1 << 31, 1 << 30
END = b"\xff" * 32


class FormatError(ValueError):
    """Raised for bytes that are no xorb or no shard."""


@dataclass(frozen=True)
class Chunk:
    """A chunk, and its end in the xorb."""

    content: bytes
    end: int


@dataclass(frozen=True)
class Term:
    """Chunks [first, last) of a xorb, with `size` bytes."""

    xorb: str
    first: int
    last: int
    size: int


@dataclass(frozen=True)
class File:
    """A file as a shard describes it."""

    name: str
    sha256: str
    terms: tuple[Term, ...]


def chunks(xorb: bytes) -> list[Chunk]:
    """The chunks of a xorb."""
    found, at = [], 0
    while at + HEADER <= len(xorb) and xorb[at : at + 7] != b"XETBLOB":  # the start of a footer
        packed = int.from_bytes(xorb[at + 1 : at + 4], "little")
        size = int.from_bytes(xorb[at + 5 : at + 8], "little")
        end = at + HEADER + packed
        if xorb[at] != 0 or end > len(xorb):
            raise FormatError(f"no chunk at byte {at}")
        found.append(Chunk(_unpacked(xorb[at + 4], xorb[at + HEADER : end], size), end))
        at = end
    if not found:
        raise FormatError("no chunks")
    return found


def _unpacked(packing: int, packed: bytes, size: int) -> bytes:
    """The bytes of a chunk: stored, LZ4, or LZ4 of bytes grouped by their index modulo four."""
    if packing == 0:
        content = packed
    elif packing in {1, 2}:
        import pyarrow  # loaded only when Xet is used

        content = pyarrow.decompress(packed, size, codec="lz4", asbytes=True)
    else:
        raise FormatError(f"unknown packing {packing}")
    if len(content) != size:
        raise FormatError(f"a chunk of {len(content)} bytes instead of {size}")
    return _ungrouped(content) if packing == 2 else content


def _ungrouped(content: bytes) -> bytes:
    """Undo the grouping: AAA BBB CC DD becomes A B C D A B C D A B."""
    grouped = np.frombuffer(content, np.uint8)
    mixed = np.empty_like(grouped)
    start = 0
    for place in range(4):
        count = len(mixed[place::4])
        mixed[place::4] = grouped[start : start + count]
        start += count
    return mixed.tobytes()


def files(shard: bytes) -> list[File]:
    """The files of a shard. Each must have its SHA-256, which is its id in git."""
    found: list[File] = []
    at = ENTRY  # after the header
    while True:
        name, flags, count = struct.unpack_from("<32sII", shard, _inside(shard, at))
        if name == END:
            return found
        at += ENTRY
        terms: list[Term] = []
        for _ in range(count):
            xorb, _, size, first, last = struct.unpack_from("<32sIIII", shard, _inside(shard, at))
            terms.append(Term(spelled(xorb), first, last, size))
            at += ENTRY
        at += count * ENTRY * bool(flags & WITH_HASHES)
        if not flags & WITH_SHA256:
            raise FormatError("a file without its SHA-256")
        (sha256,) = struct.unpack_from("<32s", shard, _inside(shard, at))
        at += ENTRY
        found.append(File(spelled(name), spelled(sha256), tuple(terms)))


def _inside(shard: bytes, at: int) -> int:
    """The offset of an entry, which must lie inside the shard."""
    if at + ENTRY > len(shard):
        raise FormatError(f"it ends at byte {len(shard)}, inside an entry")
    return at


def spelled(value: bytes) -> str:
    """A hash in the form of Xet: four little-endian numbers in hexadecimal."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", value))
