"""Convert dataclasses to JSON and back. Reading checks the types."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """Convert a dataclass to a JSON object. Fields that are None are left out."""
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if not is_dataclass(value):
        return value
    values = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: to_json(own) for name, own in values.items() if own is not None}


def from_json(kind: type[T], content: Any) -> T:
    """Convert a JSON object to a dataclass. Unknown keys are ignored.

    Args:
        kind: the dataclass; its annotations give the allowed types.
        content: a result of `json.loads`.

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


def _value(kind: Any, value: Any, name: str) -> Any:
    """Check that a JSON value has a type. The name is for the message."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else _value(inner[0], value, name)
    if isinstance(kind, type) and is_dataclass(kind):
        try:
            return from_json(kind, value)
        except (TypeError, KeyError) as error:
            raise TypeError(f"{name}: {error}") from error
    if origin in (list, tuple) and isinstance(value, list):
        return origin(_value(inner[0], item, name) for item in value)
    if origin is not None and origin not in (list, tuple) and isinstance(value, dict):
        return {str(key): _value(inner[1], item, name) for key, item in value.items()}
    if origin is None and isinstance(value, (int, float) if kind is float else kind):
        return value
    raise TypeError(f"{name}: got {value!r}")
