"""Settings of `d2i1 app`."""

from dataclasses import dataclass
from typing import Literal

from ..checks import MAX_PIXELS, require_positive
from ..errors import InputError


@dataclass(kw_only=True)
class AppSettings:
    """Show in a browser what a pipeline predicts and creates."""

    pipeline: str
    """Folder or Hub id of a Diff2in1Pipeline."""
    server_name: str | None = None
    """Address to listen at. 127.0.0.1 serves this machine only, 0.0.0.0 everybody who can reach it.
    None uses GRADIO_SERVER_NAME if it is set, as in a Space, otherwise 127.0.0.1."""
    server_port: int | None = None
    """Port to listen at. None uses GRADIO_SERVER_PORT if it is set, otherwise the first free port
    from 7860 on."""
    share: bool = False
    """Also give the page a public address for some days, through a server of Gradio."""
    examples: str | None = None
    """Folder of example images to show on the page."""
    max_side: int = 768
    """Larger images are scaled down to this many pixels on the longer side."""
    max_pixels: int = MAX_PIXELS
    """Refuse uploads with more pixels than this. A small file can hold a huge image."""
    num_inference_steps: int | None = None
    """U-Net calls if a visitor does not choose. None uses the checkpoint's default."""
    max_inference_steps: int = 100
    """Largest number of U-Net calls that a visitor may choose."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights and of all computations."""
    threads: int | None = None
    """CPU threads. None leaves the choice to torch."""

    def __post_init__(self) -> None:
        require_positive(self, "server_port", "max_side", "max_pixels")
        require_positive(self, "num_inference_steps", "threads")
        if not 1 <= self.max_inference_steps <= 1000:
            raise InputError(
                f"--max_inference_steps {self.max_inference_steps}: expected 1 to 1000"
            )
        if (self.num_inference_steps or 1) > self.max_inference_steps:
            raise InputError(
                f"--num_inference_steps {self.num_inference_steps}: expected at most"
                f" --max_inference_steps {self.max_inference_steps}"
            )
