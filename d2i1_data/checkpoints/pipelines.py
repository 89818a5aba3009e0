"""Opening published or trained pipelines."""

from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from ..diff2in1 import Base, Diff2in1Pipeline

from .bases import explained, find_base
from .files import fetch, read_index


def open_pipeline(name: str, base: "Base | None" = None, **parts: Any) -> "Diff2in1Pipeline":
    """A published or trained pipeline, a local folder or a Hub id, ready to predict.

    An adapter repository is mounted on its base, or on `base` where that lies elsewhere. parts:
    components to use instead of those saved.
    """
    from ..diff2in1 import Diff2in1Pipeline

    folder = fetch(name, "pipeline")
    index = read_index(folder, "pipeline")
    if index.get("_class_name") != "Diff2in1Pipeline":
        raise InputError(
            f"pipeline {name}: is a {index.get('_class_name')}, expected a Diff2in1Pipeline;"
            " train one with d2i1 warm-up"
        )
    if "unet" in index:
        pipe = Diff2in1Pipeline.from_pretrained(folder, **parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe
    try:
        base = base or find_base(index["base"], index["base_revision"], index["base_variant"])
    except InputError as error:
        raise InputError(
            f"adapter {name}: its base {index['base']!r} is neither embedded nor on the Hub;"
            " use the pipeline saved whole, or in Python"
            " Diff2in1Pipeline.from_adapter(adapter, base=...)"
        ) from error
    with explained(base):
        pipe = Diff2in1Pipeline.from_adapter(str(folder), base)
    pipe.set_progress_bar_config(disable=True)
    return pipe
