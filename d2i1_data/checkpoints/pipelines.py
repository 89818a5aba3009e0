"""Open trained or published pipelines and adapters."""

from typing import Any

from ..diff2in1 import Base, Diff2in1Pipeline
from ..diff2in1.saving import check_index
from ..errors import InputError
from .bases import find_base
from .files import check_hashes, fetch, loading, read_index


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
        check_index(index, f"pipeline {name}")
    except ValueError as error:
        raise InputError(str(error)) from error
    check_hashes(folder, unused=[part for part, given in parts.items() if given is None])
    if "unet" in index:
        with loading(f"pipeline {name}"):
            pipe = Diff2in1Pipeline.from_pretrained(folder, use_safetensors=True, **parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe
    try:
        revision, variant = index.get("base_revision"), index.get("base_variant")
        base = base or find_base(str(index.get("base")), revision, variant)
    except InputError as error:
        raise InputError(
            f"adapter {name}: its base {index.get('base')!r} is neither embedded nor on the Hub;"
            " use the whole pipeline instead, or in Python"
            " Diff2in1Pipeline.from_adapter(adapter, base=...)"
        ) from error
    with loading(f"adapter {name}, on base {base.path}"):
        pipe = Diff2in1Pipeline.from_adapter(str(folder), base)
    pipe.set_progress_bar_config(disable=True)
    return pipe
