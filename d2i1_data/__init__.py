"""Data with Diff-2-in-1: samples, datasets, pipelines, reports and publishing.

`Diff2in1Pipeline` is imported on demand.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .diff2in1 import Diff2in1Pipeline

__all__ = ["Diff2in1Pipeline"]


def __getattr__(name: str) -> Any:
    if name == "Diff2in1Pipeline":
        from .diff2in1 import Diff2in1Pipeline

        Diff2in1Pipeline.card_writer = _write_card
        return Diff2in1Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _write_card(folder: "Path", name: str) -> None:
    """Write the card of a saved pipeline. Pipelines call this and need not import the cards."""
    from .card import Links, write_model_card

    write_model_card(folder, Links(name=name))
