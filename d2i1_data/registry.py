"""Registries: tables of small records. Flags, errors, help and docs come from them."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

from .errors import InputError

Record = TypeVar("Record")


def load(target: str) -> Any:
    """Import the code of a record.

    Records name their code as text, so that help and errors need not import it.

    Args:
        target: text of the form `module:name`.
    """
    module, name = target.split(":")
    return getattr(import_module(module), name)


def find(records: Mapping[str, Record], name: str, where: str) -> Record:
    """Find a record by its name.

    Args:
        records: all records, by name.
        name: the name that a user gave.
        where: the flag or file that gave it, for the error.

    Raises:
        InputError: if there is no such record.
    """
    if name not in records:
        raise InputError(f"{where} {name!r}: choose from {', '.join(records)}")
    return records[name]


def as_markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table for the docs, without a newline at its end."""
    ruler = "|" + "---|" * len(heads)
    lines = ("| " + " | ".join(cells) + " |" for cells in (heads, *rows))
    first, *others = lines
    return "\n".join([first, ruler, *others])
