"""Open trained or published pipelines and adapters."""

from typing import Any

from ..diff2in1 import Base, Diff2in1Pipeline
from ..diff2in1.saving import check_format
from ..errors import InputError
from .bases import explained, find_base
from .files import fetch, read_index


def open_pipeline(name: str, base: Base | None = None, **parts: Any) -> Diff2in1Pipeline:
    """Open a pipeline or an adapter, ready to predict.

    Args:
        name: a local folder or a Hub id.
        base: the base of an adapter; None uses the base that the adapter names.
        parts: components to use instead of the saved ones.

    Raises:
        InputError: if it is not a pipeline of ours, its format is newer, or its base is not found.
    """
    folder = fetch(name, "pipeline")
    index = read_index(folder, "pipeline")
    if index.get("_class_name") != "Diff2in1Pipeline":
        raise InputError(
            f"pipeline {name}: is a {index.get('_class_name')}, expected a Diff2in1Pipeline;"
            " train one with d2i1 warm-up"
        )
    try:
        check_format(index, f"pipeline {name}")
    except ValueError as error:
        raise InputError(str(error)) from error
    if "unet" in index:
        pipe = Diff2in1Pipeline.from_pretrained(folder, **parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe
    try:
        base = base or find_base(index["base"], index["base_revision"], index["base_variant"])
    except InputError as error:
        raise InputError(
            f"adapter {name}: its base {index['base']!r} is neither embedded nor on the Hub;"
            " use the whole pipeline instead, or in Python"
            " Diff2in1Pipeline.from_adapter(adapter, base=...)"
        ) from error
    with explained(base):
        pipe = Diff2in1Pipeline.from_adapter(str(folder), base)
    pipe.set_progress_bar_config(disable=True)
    return pipe
