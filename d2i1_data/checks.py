"""Checks of settings that several commands share."""

from collections.abc import Sequence
from string import Formatter
from typing import Any

from .errors import InputError


def check_template(template: str, allowed: Sequence[str], where: str) -> None:
    """Check the braces of a template.

    Args:
        template: a text such as `a street with {classes}`.
        allowed: words that may stand in braces.
        where: begins the message.

    Raises:
        InputError: for broken braces, or for a word that is not allowed.
    """
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise InputError(f"{where}: template {template!r}: {error}") from error
    for _, word, form, conversion in parts:
        if word not in allowed or form or conversion:
            given = f"{word}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}"
            known = ", ".join(f"{{{one}}}" for one in allowed)
            raise InputError(f"{where}: template has {{{given}}}, the only one known is {known}")


def require_positive(settings: Any, *names: str) -> None:
    """Raise InputError for settings below 1. None is allowed."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: expected at least 1")


def refuse_without(settings: Any, names: Sequence[str], wanted: str) -> None:
    """Check settings that have no effect without another one.

    Args:
        settings: all of them.
        names: those to check; they must have their defaults.
        wanted: what is missing, such as `--format yolo`.

    Raises:
        InputError: if one of them differs from its default.
    """
    for name in names:
        if getattr(settings, name) != getattr(type(settings), name):
            raise InputError(f"--{name} has no effect without {wanted}")
