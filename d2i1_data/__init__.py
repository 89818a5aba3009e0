"""What a sample is; how it is created, kept and shown. `Diff2in1Pipeline` is imported on demand."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diff2in1 import Diff2in1Pipeline

__all__ = ["Diff2in1Pipeline"]


def __getattr__(name: str) -> Any:
    if name == "Diff2in1Pipeline":
        from .diff2in1 import Diff2in1Pipeline

        return Diff2in1Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
