"""Types of settings in words, for help texts and errors."""

import types
from typing import Any, Literal, Union, get_args, get_origin

WORDS: dict[Any, tuple[str, str]] = {  # one; several
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    bool: ("true or false", "switches"),
    dict: ("a mapping", "mappings"),
    list: ("a list", "lists"),
    Any: ("any value", "values"),
    type(None): ("null", "nulls"),
}


def in_words(kind: Any, several: bool = False) -> str:
    """Describe a type: `int | None` is "an integer or null".

    Args:
        kind: a type as a settings dataclass states it.
        several: whether to describe several values.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, types.UnionType):
        *first, last = (in_words(one, several) for one in inner)
        return f"{', '.join(first)} or {last}"
    if origin is list:
        return f"{WORDS[list][several]} of {in_words(inner[0], several=True)}"
    if origin is dict and inner[1] is not Any:
        return f"{WORDS[dict][several]} of names to {in_words(inner[1], several=True)}"
    return WORDS[origin or kind][several]
