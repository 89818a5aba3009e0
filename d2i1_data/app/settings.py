"""What can be set for the app."""

from dataclasses import dataclass
from typing import Literal

from ..checks import require_positive
from ..errors import InputError


@dataclass(kw_only=True)
class AppSettings:
    """Show in a browser what a pipeline perceives and creates."""

    pipeline: str
    """Folder or Hub id of a Diff2in1Pipeline."""
    host: str | None = None
    """Address to listen at; None is 127.0.0.1, this machine alone, or what GRADIO_SERVER_NAME says,
    as in a Space. 0.0.0.0 is for all who can reach this machine."""
    port: int | None = None
    """None is the first free one from 7860 on, or GRADIO_SERVER_PORT."""
    share: bool = False
    """Also give the page a public address for a few days, through a server of Gradio."""
    examples: str | None = None
    """Folder of images to try."""
    max_side: int = 768
    """Larger images are scaled down to this many pixels on the longer side."""
    num_inference_steps: int | None = None
    """U-Net calls if a visitor does not choose; None is the checkpoint's default."""
    max_inference_steps: int = 100
    """As many as a visitor may choose."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights and all that is computed with them."""
    threads: int | None = None
    """CPU threads; None is torch's own choice."""

    def __post_init__(self) -> None:
        require_positive(self, "port", "max_side", "num_inference_steps", "threads")
        if not 1 <= self.max_inference_steps <= 1000:
            raise InputError(
                f"--max_inference_steps {self.max_inference_steps}: expected 1 to 1000"
            )
        if (self.num_inference_steps or 1) > self.max_inference_steps:
            raise InputError(
                f"--num_inference_steps {self.num_inference_steps}: expected at most"
                f" --max_inference_steps {self.max_inference_steps}"
            )
