"""Dataclasses as JSON and back, with types checked on the way."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """A dataclass as an object of JSON. Fields that are None are left out."""
    if isinstance(value, tuple | list):
        return [to_json(one) for one in value]
    if not is_dataclass(value):
        return value
    known = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: to_json(one) for name, one in known.items() if one is not None}


def from_json(kind: type[T], content: Any) -> T:
    """The dataclass of an object of JSON. Keys that it does not know are ignored.

    Args:
        kind: the dataclass; its annotations say what is allowed.
        content: what `json.loads` gave.

    Raises:
        TypeError: if a value has another type.
        KeyError: if a field without a default is missing.
    """
    if not isinstance(content, Mapping):
        raise TypeError(f"expected an object, got {content!r}")
    hints, values = get_type_hints(kind), {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in content:
            values[field.name] = _value(hints[field.name], content[field.name], field.name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise KeyError(field.name)
    return kind(**values)


def _value(kind: Any, found: Any, name: str) -> Any:
    """A value of JSON that must have a type; its name is for the message."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return found
    if origin in (Union, types.UnionType):
        return None if found is None else _value(inner[0], found, name)
    if isinstance(kind, type) and is_dataclass(kind):
        try:
            return from_json(kind, found)
        except (TypeError, KeyError) as error:
            raise TypeError(f"{name}: {error}") from error
    if origin in (list, tuple) and isinstance(found, list):
        return origin(_value(inner[0], one, name) for one in found)
    if origin is not None and origin not in (list, tuple) and isinstance(found, dict):
        return {str(key): _value(inner[1], one, name) for key, one in found.items()}
    if origin is None and isinstance(found, (int, float) if kind is float else kind):
        return found
    raise TypeError(f"{name}: got {found!r}")
