"""Checks of settings that several commands share."""

import importlib.util
import json
import math
from collections.abc import Sequence
from string import Formatter
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .errors import InputError

MAX_DEPTH = 100  # of the objects and lists in a JSON file
MAX_PIXELS = 50_000_000  # of an image, unless a flag says otherwise; photographs have less
MAX_SIDE = 8192  # pixels, of images that a model works on
LARGEST = 65_536  # of widths, ranks and batches: more is a slip of the hand


def require_library(name: str, extra: str, user: str) -> None:
    """Refuse a setting that needs a library of an extra.

    Args:
        name: the library.
        extra: the extra of this package that installs it.
        user: what needs it, for the error.

    Raises:
        InputError: if the library is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise InputError(f"{user} needs {name}: pip install 'diff2in1[{extra}]'")


def check_template(template: str, allowed: Sequence[str], where: str) -> None:
    """Check the `{words}` of a template.

    Args:
        template: text with words in braces.
        allowed: the words that it may contain.
        where: the flag or file that gave it, for the error.

    Raises:
        InputError: if the braces are broken, or a word is not allowed.
    """
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise InputError(f"{where}: template {template!r}: {error}") from error
    for _, word, form, conversion in parts:
        if word not in allowed or form or conversion:
            given = f"{word}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}"
            expected = " and ".join(f"{{{name}}}" for name in allowed)
            verb = "is" if len(allowed) == 1 else "are"
            raise InputError(f"{where}: template has {{{given}}}, only {expected} {verb} allowed")


def require_positive(settings: Any, *names: str) -> None:
    """Refuse numbers below 1. None is accepted.

    Args:
        settings: any settings.
        names: names of the settings to check.

    Raises:
        InputError: if a number is below 1.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: expected at least 1")


def require_choices(settings: Any) -> None:
    """Refuse values that are none of the choices of their setting. A stored plan may hold any.

    Args:
        settings: any settings.

    Raises:
        InputError: if a setting of type `Literal`, or `Literal | None`, has another value.
    """
    for name, hint in get_type_hints(type(settings)).items():
        value, parts = getattr(settings, name), get_args(hint)
        if len(parts) == 2 and type(None) in parts and value is not None:
            hint = parts[0]
        choices = get_args(hint)
        if get_origin(hint) is Literal and value not in choices:
            raise InputError(f"--{name} {value}: expected one of {', '.join(choices)}")


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON file, which may come from a stranger.

    Raises:
        ValueError: if it is no JSON, or nested too deep.
    """
    too_deep = f"nested more than {MAX_DEPTH} deep"
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError(too_deep) from error
    level, depth = [content], 0
    while level:
        depth += 1
        inner = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for values in inner for one in values if isinstance(one, dict | list)]
        if depth > MAX_DEPTH:
            raise ValueError(too_deep)
    return content


def require_between(settings: Any, low: float, high: float, *names: str) -> None:
    """Refuse numbers outside of a range. None is accepted.

    Args:
        settings: any settings.
        low: the smallest allowed number.
        high: the largest allowed number; infinity allows all larger ones.
        names: names of the settings to check.

    Raises:
        InputError: if a number is outside.
    """
    allowed = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
    for name in names:
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise InputError(f"--{name} {value}: expected {allowed}")


def refuse_without(settings: Any, names: Sequence[str], wanted: str) -> None:
    """Refuse settings without effect.

    Args:
        settings: any settings.
        names: names of the settings that have no effect here.
        wanted: the flag without which they have no effect, for the error.

    Raises:
        InputError: if one of them differs from its default.
    """
    for name in names:
        if getattr(settings, name) != getattr(type(settings), name):
            raise InputError(f"--{name} has no effect without {wanted}")


def check_format(version: object, newest: int, where: str) -> None:
    """Check that this version of the package can read a stored format.

    Args:
        version: the format version of the file or folder.
        newest: the newest format version that this version of the package reads.
        where: the file or folder, for the error.

    Raises:
        InputError: if the format is newer.
    """
    if not isinstance(version, int) or version > newest:
        raise InputError(
            f"{where}: format version {version!r}, this version of diff2in1 opens up to {newest}:"
            " update the package"
        )
