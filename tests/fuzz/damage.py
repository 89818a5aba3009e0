"""Ways to damage a file, each drawn at random."""

import io
import json
import random
import struct
from collections.abc import Callable
from typing import Any

import yaml
from PIL import Image

SECRET = "secret"  # no command may open a file of this name; it lies outside all folders given
DEEP = 100_000  # levels of nesting; parsers give up far earlier
ODD: list[Any] = [
    *(None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf")),
    *("", "\0", "\u202e", "a" * 100_000, "../" * 9 + SECRET, f"/{SECRET}", "%s{0}{x}"),
    *([], {}, [[]], [None] * 1000, {"a": {"b": {}}}),
]

KINDS = (
    *(("RGB", "PPM"), ("L", "BMP"), ("P", "GIF"), ("F", "TIFF"), ("I;16", "TIFF"), ("1", "PNG")),
    *(("RGBA", "WEBP"), ("CMYK", "JPEG"), ("LA", "PNG"), ("RGB", "ICO"), ("RGB", "EPS")),
)

Draw = random.Random
Damage = Callable[[bytes, Draw], bytes]


def damage(name: str, data: bytes, draw: Draw) -> bytes:
    """Damage the content of a file in one way that fits its name.

    Args:
        name: name of the file.
        data: its content.
        draw: decides the way and its details.
    """
    suffix = name.rpartition(".")[2]
    ways = [*BYTES, *OF_SUFFIX.get(suffix, []), *OF_SUFFIX.get(suffix, [])]
    return draw.choice(ways)(data, draw)


def _cut(data: bytes, draw: Draw) -> bytes:
    return data[: draw.randrange(len(data) + 1)]


def _flip(data: bytes, draw: Draw) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, draw: Draw) -> bytes:
    start, noise = draw.randrange(len(data)), draw.randbytes(draw.choice((1, 4, 100)))
    return data[:start] + noise + data[start + len(noise) :]


def _insert(data: bytes, draw: Draw) -> bytes:
    start = draw.randrange(len(data) + 1)
    return data[:start] + draw.randbytes(draw.choice((1, 4, 100))) + data[start:]


def _repeat(data: bytes, draw: Draw) -> bytes:
    return data * draw.choice((2, 3))


def _replace(data: bytes, draw: Draw) -> bytes:
    text = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/{SECRET}) run\n".encode()
    return draw.choice((b"", b"\0" * 64, draw.randbytes(200), b"{}", b"[]", b"PK\3\4", text))


def _value(data: bytes, draw: Draw) -> bytes:
    """JSON with one value replaced, left out or doubled."""
    content = json.loads(data)
    _change(content, draw)
    return json.dumps(content).encode()


def _deep(data: bytes, draw: Draw) -> bytes:
    return (b"[" * DEEP) + (b"]" * DEEP)


def _yaml_value(data: bytes, draw: Draw) -> bytes:
    content = yaml.safe_load(data)
    _change(content, draw)
    return yaml.safe_dump(content).encode()


def _yaml_alias(data: bytes, draw: Draw) -> bytes:
    """Nested references that grow to 10^9 values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return data + b"\n" + "\n".join(lines).encode()


def _change(content: Any, draw: Draw) -> None:
    """Change a random value somewhere inside."""
    places = list(_places(content))
    if not places:
        return
    where, key = draw.choice(places)
    way = draw.randrange(4)
    if way == 0:
        del where[key]
    elif way == 1 and isinstance(where, list):
        where.append(where[key])
    elif way == 1:
        where[str(key) + "x"] = where.pop(key)
    else:
        where[key] = draw.choice(ODD)


def _places(content: Any) -> Any:
    """Every place of a nested value: its container and its key."""
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _places(content[key])


def _header(data: bytes, draw: Draw) -> bytes:
    """Safetensors with another header."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if draw.random() < 0.2:
        return draw.choice((2**63, 2**40, length + 1, 0)).to_bytes(8, "little") + data[8:]
    _change(header, draw)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def _size(data: bytes, draw: Draw) -> bytes:
    """A PNG that says that it is much larger."""
    sides = struct.pack(">II", *draw.choice(((2**31 - 1, 2**31 - 1), (60_000, 60_000), (0, 5))))
    return data[:16] + sides + data[24:]


def _format(data: bytes, draw: Draw) -> bytes:
    """The same picture in another format or mode."""
    image = Image.open(io.BytesIO(data))
    buffer = io.BytesIO()
    mode, kind = draw.choice(KINDS)
    image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
    image.save(buffer, kind)
    return buffer.getvalue()


BYTES: list[Damage] = [_cut, _flip, _flip, _overwrite, _insert, _repeat, _replace]
OF_SUFFIX: dict[str, list[Damage]] = {
    "json": [_value, _value, _value, _deep],
    "yaml": [_yaml_value, _yaml_value, _yaml_value, _yaml_alias],
    "safetensors": [_header, _header],
    "png": [_size, _format],
    "jpg": [_format],
}
