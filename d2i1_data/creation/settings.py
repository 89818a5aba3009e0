"""Settings of the acts that write datasets. Their fields are flags, YAML keys and help texts."""

from dataclasses import dataclass
from typing import Literal

from ..checks import check_template, require_positive
from ..errors import InputError


@dataclass(kw_only=True)
class SourceSettings:
    """Source"""

    max_source_samples: int | None = None
    """Use only the first images of the source."""
    resolution: str | None = None
    """Longer side (512), or height x width (480x640). None keeps the sizes of the images."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """`stop` ends at a sample that cannot be read, or made (NaN). `skip` leaves such samples out
    and lists them in skipped.json."""


@dataclass(kw_only=True)
class EngineSettings:
    """Files and processes"""

    shard_size: int = 64
    """Samples in a shard, which is one Parquet file."""
    overwrite: bool = False
    """Replace a dataset of another plan in output_dir."""
    engine: Literal["processes", "ray"] = "processes"
    """`processes`: this process and those that `accelerate launch` starts beside it. `ray`: actors
    of a Ray cluster (the extra `ray`); other actors take over the shards of an actor that dies."""
    workers: int | None = None
    """Number of Ray actors. None takes one for every GPU, or without any, one for every `threads`
    CPUs."""


@dataclass(kw_only=True)
class WriteSettings(SourceSettings, EngineSettings):
    """The settings that all acts that write a dataset have in common."""

    source: str
    """What to read: {sources}."""
    output_dir: str
    """Folder of the dataset."""

    def __post_init__(self) -> None:
        require_positive(self, "max_source_samples", "shard_size", "workers")
        if self.workers is not None and self.engine != "ray":
            raise InputError("--workers is for --engine ray; accelerate launch has --num_processes")


@dataclass(kw_only=True)
class ImportSettings(WriteSettings):
    """Write real data as a dataset in our schema."""


@dataclass(kw_only=True)
class LabellingSettings:
    """Labels and computation"""

    quality: Literal["none", "fast", "full"] = "fast"
    """`fast`: confidence, and agreement with the labels of the mirrored latent, which is the most
    useful score. `full`: also agreement with the labels of the stored image, if the labels are not
    made from it already."""
    confidence_maps: bool = False
    """Also store the confidence of every pixel, in the column `confidence`."""
    batch_size: int = 16
    """Images in one batch. Only images of one size and one shard can share a batch."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights and of all computation."""
    threads: int | None = None
    """CPU threads of each process. None takes the default of torch. They are part of the plan,
    because sums are rounded differently with another number of threads."""


@dataclass(kw_only=True)
class LabelSettings(LabellingSettings, WriteSettings):
    """Write a dataset of images as they are, labelled by a trained pipeline."""

    pipeline: str
    """Folder or Hub id of a Diff2in1Pipeline. Its weights are theta_C."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "batch_size", "threads")


@dataclass(kw_only=True)
class VarietySettings:
    """Created images"""

    variants: int = 1
    """Samples from each image of the source, with other noise. Only without num_samples."""
    balance: str | None = None
    """A label map of the source, such as semseg. Images are chosen so that its classes occur as
    evenly as possible."""
    prompt: str | list[str] | None = None
    """A prompt instead of the captions of the source, or a list to draw from. {caption} in it
    stands for the caption: "{caption}, at night"."""
    guidance_scale: float | None = None
    """Classifier-free guidance; 1 is none (paper). None takes the default of the checkpoint."""
    negative_prompt: str = ""
    """What guidance leads away from. Needs a guidance_scale above 1."""
    labels_from: Literal["latent", "last_step", "image"] = "latent"
    """What is labelled: the final latent at t = 0, the last denoising step (paper), or the 8-bit
    image."""
    create_with: Literal["base", "theta"] | None = None
    """The U-Net that denoises if theta's was trained: that of the base, or theta's. None takes the
    default of the checkpoint."""
    compile: bool = False
    """Compile the U-Net that creates."""


@dataclass(kw_only=True)
class CreateSettings(VarietySettings, LabelSettings):
    """Write a dataset of images created from real ones, labelled by theta_C."""

    num_samples: int | None = None
    """Number of samples. None takes `variants` for every image of the source."""
    strength: float | list[float] | None = None
    """Noise level T / 1000, in (0, 1], or a range [LOW, HIGH] that every sample draws from. None
    takes the default of the checkpoint (paper: 0.6)."""
    num_inference_steps: int | None = None
    """Number of U-Net calls for each image. None takes the default of the checkpoint (paper:
    50)."""
    seed: int = 0
    """Decides all random draws."""

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
    """Create some rows of a dataset again from its plan, and compare them."""

    verify: str
    """Folder of a dataset that d2i1 create or d2i1 label wrote."""
    rows: int = 5
    """Number of rows. The other rows of their batches are compared too."""
    source: str | None = None
    """Where the source is now, if it was moved since run.json was written."""
    pipeline: str | None = None
    """Where the checkpoint is now, if it was moved since run.json was written."""
    seed: int = 0
    """Decides which rows."""

    def __post_init__(self) -> None:
        require_positive(self, "rows")
