"""Checks of settings that several acts share."""

from collections.abc import Sequence
from string import Formatter
from typing import Any

from .errors import InputError


def check_template(template: str, allowed: Sequence[str], where: str) -> None:
    """Refuse a text with broken braces, or with others than those of the allowed words."""
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
    """Refuse numbers below 1; None is left to mean what it means."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: expected at least 1")


def refuse_without(settings: Any, names: Sequence[str], wanted: str) -> None:
    """Refuse settings that differ from their default where they have no effect."""
    for name in names:
        if getattr(settings, name) != getattr(type(settings), name):
            raise InputError(f"--{name} has no effect without {wanted}")
