"""Columns of stored rows: take them out of structs, count values, and describe counts."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def take_column(table: pa.Table, name: str, schema: pa.Schema) -> pa.ChunkedArray:
    """A column of a table, undecoded; one that is missing is null in every row.

    Args:
        table: rows as they are stored.
        name: name of the column; a dot leads into a struct, as in `quality.depth.flip`.
        schema: gives missing columns their type.
    """
    first, *inner = name.split(".")
    try:
        _type(table.schema, first, inner)
    except KeyError:
        return pa.chunked_array([pa.nulls(table.num_rows, _type(schema, first, inner))])
    return pc.struct_field(table[first], inner) if inner else table[first]


def _type(schema: pa.Schema, first: str, inner: list[str]) -> pa.DataType:
    """The type of a column; KeyError if there is no such column."""
    kind = schema.field(first).type
    for part in inner:
        kind = kind.field(part).type
    return kind


def count_values(column: pa.ChunkedArray) -> Counter[Any]:
    """How often each value occurs; null is None."""
    found = pc.value_counts(column.combine_chunks())
    return Counter({one["values"]: one["counts"] for one in found.to_pylist()})


def describe_counts(counts: Mapping[Any, int], most: int = 4) -> str:
    """Values and how often they occur, in a few words.

    Of more than `most` numbers it gives the range, of more than `most` other values their number.
    """
    known = [value for value in counts if value is not None]
    if len(counts) == 1:
        return _describe(*counts)
    if len(counts) <= most:
        pairs = sorted(counts.items(), key=lambda pair: -pair[1])
        return ", ".join(f"{_describe(value)} ({n:,})" for value, n in pairs)
    if all(isinstance(value, int | float) for value in known):
        return f"{len(known):,} values, {_describe(min(known))} to {_describe(max(known))}"
    return f"{len(known):,} different"


def _describe(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "empty"
