"""What can be set when data is written. Fields are flags, YAML keys and documentation at once."""

from dataclasses import dataclass
from typing import Literal

from ..checks import check_template, require_positive
from ..errors import InputError


@dataclass(kw_only=True)
class WriteSettings:
    """What every act that writes a dataset has in common."""

    source: str
    """What to read: {sources}."""
    output_dir: str
    max_source_samples: int | None = None
    """Use only the first images of the source."""
    resolution: str | None = None
    """Longer side (512), or height x width (480x640); None keeps the images' own."""
    shard_size: int = 64
    on_bad_row: Literal["stop", "skip"] = "stop"
    """`skip` leaves out what cannot be read or made (NaN), and lists it in skipped.json."""
    overwrite: bool = False
    """Replace a dataset of another plan in output_dir."""
    engine: Literal["processes", "ray"] = "processes"
    """This process and those that `accelerate launch` starts beside it, or actors of a Ray cluster
    (the extra `ray`), which take over the shards of those that die."""
    workers: int | None = None
    """Ray actors; None is one for every GPU, without any one for every `threads` CPUs."""

    def __post_init__(self) -> None:
        require_positive(self, "max_source_samples", "shard_size", "workers")
        if self.workers is not None and self.engine != "ray":
            raise InputError("--workers is for --engine ray; accelerate launch has --num_processes")


@dataclass(kw_only=True)
class ImportSettings(WriteSettings):
    """Write real data as a dataset in our schema."""


@dataclass(kw_only=True)
class LabelSettings(WriteSettings):
    """Label images as they are with a trained pipeline, and keep them as a dataset."""

    pipeline: str
    """Folder or Hub id of a Diff2in1Pipeline; its weights are theta_C."""
    batch_size: int = 16
    """Images of one size; within a shard, those of other sizes wait for others of theirs."""
    quality: Literal["none", "fast", "full"] = "fast"
    """fast: confidence, and agreement with the labels of the mirrored latent, which tells most.
    full: also with those of the stored image, where labels are not of that already."""
    confidence_maps: bool = False
    """Also keep the confidence of every pixel, in the column `confidence`."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the weights and all that is computed with them."""
    threads: int | None = None
    """CPU threads of each process, set for all it does from then on; None is torch's own choice.
    They are part of the plan: with more or fewer, sums round differently."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "batch_size", "threads")


@dataclass(kw_only=True)
class CreateSettings(LabelSettings):
    """Write a dataset of images created from real ones, and labelled, by theta_C."""

    seed: int = 0
    num_samples: int | None = None
    """How many; None is `variants` for every image of the source."""
    variants: int = 1
    """How many of each image, with other noise, if num_samples does not say how many in all."""
    balance: str | None = None
    """A label map of the source, such as semseg: images are chosen so that its classes come as
    evenly as they can."""
    strength: float | list[float] | None = None
    """Noise level T / 1000, in (0, 1], or a range [LOW, HIGH] that every sample draws from; None is
    the checkpoint's default (paper: 0.6)."""
    num_inference_steps: int | None = None
    """U-Net calls really made; None is the checkpoint's default (paper: 50)."""
    compile: bool = False
    """Compile the U-Net that creates."""
    guidance_scale: float | None = None
    """1 is none (paper); None is the checkpoint's default."""
    negative_prompt: str = ""
    labels_from: Literal["latent", "last_step", "image"] = "latent"
    """The final latent at t = 0, the last denoising step (paper), or the 8-bit image."""
    create_with: Literal["base", "theta"] | None = None
    """Whose U-Net denoises where theta's was trained; None is the checkpoint's default."""
    prompt: str | list[str] | None = None
    """A prompt instead of the source's captions, or a list to draw from; {caption} in it stands for
    the caption: "{caption}, at night"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_samples", "variants", "num_inference_steps")
        if self.num_samples is not None and self.variants > 1:
            raise InputError("--variants is how many of each image, --num_samples how many in all")
        if isinstance(self.strength, list) and not (
            len(self.strength) == 2 and 0 < self.strength[0] <= self.strength[1] <= 1
        ):
            raise InputError(f"--strength {self.strength}: expected a number or [LOW, HIGH]")
        if not self.prompts:
            raise InputError("--prompt []: expected a prompt, or a list of some")
        for prompt in self.prompts:
            check_template(prompt, ("caption",), "--prompt")

    @property
    def prompts(self) -> list[str]:
        """The prompts to draw from."""
        own = "{caption}" if self.prompt is None else self.prompt
        return [own] if isinstance(own, str) else own


@dataclass(kw_only=True)
class VerifySettings:
    """Make rows of a dataset again from its plan, and compare."""

    verify: str
    """Folder of a dataset that d2i1 create or d2i1 label wrote."""
    rows: int = 5
    """How many rows; those of the same batch are compared with them."""
    source: str | None = None
    """Where the source is now, if it is not where run.json says."""
    pipeline: str | None = None
    """Where the checkpoint is now, if it is not where run.json says."""
    seed: int = 0
    """Chooses the rows."""

    def __post_init__(self) -> None:
        require_positive(self, "rows")
