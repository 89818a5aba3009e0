"""Settings of the commands that write datasets."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..checks import MAX_PIXELS, require_choices, require_positive
from ..dataset.splits import read_splits
from ..errors import InputError
from .ways import Way, read_prompts, read_strength, read_ways


@dataclass(kw_only=True)
class SourceSettings:
    """Source"""

    max_source_samples: int | None = None
    """Use only this many images of the source, chosen at random. None takes all."""
    subset_seed: int | None = 0
    """Decides which images are chosen if not all are used: always the same for one source, whatever
    `seed` is. Fewer are part of more. null takes the first images."""
    resolution: str | None = None
    """Longer side (512), shorter side (short:512; the longer side is then at most four times as
    long), or height x width (480x640). None keeps the sizes of the images."""
    captions: str | None = None
    """Captions by id, in place of those of the source: a file whose lines have the form
    {"id": "...", "caption": "..."}, such as `d2i1 caption` writes."""
    max_pixels: int = MAX_PIXELS
    """Refuse images with more pixels than this. A small file can hold a huge image."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """`stop` ends the run at a sample that cannot be read, or for which the model gives NaN. `skip`
    leaves such samples out, without others in their place, and lists them in skipped.json."""


@dataclass(kw_only=True)
class EngineSettings:
    """Files and processes"""

    shard_size: int = 64
    """Samples in a shard, which is one Parquet file."""
    overwrite: bool = False
    """Replace a dataset of another plan in output_dir."""
    engine: Literal["processes", "ray"] = "processes"
    """`processes`: this process, or all processes of `accelerate launch`. `ray`: workers in a Ray
    cluster (the extra `ray`); if a worker dies, another one makes its shard."""
    workers: int | None = None
    """Number of Ray workers. None takes one for every GPU; without GPUs, one for every `threads`
    CPUs. For `d2i1 import` without Ray: number of processes on this machine; None takes 1."""


@dataclass(kw_only=True)
class WriteSettings(SourceSettings, EngineSettings):
    """The settings that all acts that write a dataset have in common."""

    source: str
    """Source of the images: {sources}."""
    output_dir: str
    """Folder of the dataset."""
    splits: str | None = None
    """Shares of splits, such as `train=0.9,val=0.1`. All samples that were made from one image are
    in one split. None puts all into train."""
    starts_processes: ClassVar[bool] = False  # whether `workers` starts processes without Ray

    def __post_init__(self) -> None:
        if self.splits is not None:
            read_splits(self.splits)
        require_positive(self, "max_source_samples", "max_pixels", "shard_size", "workers")
        if self.workers is not None and self.engine != "ray" and not self.starts_processes:
            raise InputError(
                "--workers has no effect without --engine ray; accelerate launch has"
                " --num_processes"
            )


@dataclass(kw_only=True)
class ImportSettings(WriteSettings):
    """Write real data as a dataset in our schema."""

    report: bool = False
    """Then write the page of `d2i1 report` to output_dir/report: counts, sizes, classes and values,
    shares of unknown pixels, rows that were left out, samples."""
    starts_processes: ClassVar[bool] = True

    source: str
    """Source of the images: {sources}. You get published data sets yourself: {origins}."""
    axes: str | None = None
    """How the normals of the source are stored: the channels of x (right), y (up) and z (towards
    the viewer) with their signs, as in --axes=-r+g+b. None takes what the source declares, and
    stops if its depth shows that other axes fit clearly better."""


@dataclass(kw_only=True)
class LabellingSettings:
    """Labels and computation"""

    quality: Literal["none", "fast", "full"] = "fast"
    """Scores of the labels. `fast`: confidence, and agreement with the labels of the mirrored
    latent, which is the most useful score. `full`: also agreement with the labels of the stored
    image, unless the labels were made from that image."""
    confidence_maps: bool = False
    """Also store the confidence of every pixel, in the column `confidence`."""
    batch_size: int = 16
    """Images in one batch. Only images of one size and one shard can share a batch."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights and of all computation."""
    threads: int | None = None
    """CPU threads of each process. None takes the default of torch. The number is part of the plan,
    because it affects the rounding of sums."""


@dataclass(kw_only=True)
class LabelSettings(LabellingSettings, WriteSettings):
    """Write a dataset of images as they are, labelled by a trained pipeline."""

    pipeline: str
    """Folder or Hub id of a Diff2in1Pipeline. Its weights are theta_C."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "batch_size", "threads")
        require_choices(self)


@dataclass(kw_only=True)
class VarietySettings:
    """Created images"""

    variants: int = 1
    """Number of samples from each image of the source, each with other noise. It cannot be used
    with num_samples."""
    balance: str | None = None
    """A label map of the source, such as semseg. Images are chosen so that its classes occur as
    evenly as possible."""
    prompt: str | list[str] | None = None
    """A prompt, or a list of prompts to draw from, instead of the captions of the source. {caption}
    stands for the caption of the source: "{caption}, at night". {recombined} stands for a new
    caption, made of phrases of the captions of all images that are used."""
    ways: list[dict[str, Any]] | None = None
    """Mix several ways to create. Each is a mapping with any of `share`, `strength` and `prompt`.
    Shares are relative; the default is 1. A way without strength or prompt takes that of the
    command: '[{strength: 0.6}, {strength: 1, prompt: "{recombined}"}]'."""
    guidance_scale: float | None = None
    """Scale of classifier-free guidance; 1 is no guidance (paper). None takes the default of the
    checkpoint."""
    negative_prompt: str = ""
    """Guidance leads away from this prompt. It needs a guidance_scale above 1."""
    labels_from: Literal["latent", "last_step", "image"] = "latent"
    """Make labels from the final latent at t = 0, from the last denoising step (paper), or from the
    8-bit image."""
    create_with: Literal["base", "theta"] | None = None
    """If the U-Net was trained, create with the U-Net of the base, or with the trained one (theta).
    None takes the default of the checkpoint."""
    scheduler: Literal["ddim", "euler", "dpm++", "unipc"] | None = None
    """Create with this scheduler of diffusers. None takes that of the checkpoint, which is DDIM
    unless somebody saved it with another."""
    compile: bool = False
    """Compile the U-Net that creates."""


@dataclass(kw_only=True)
class CreateSettings(VarietySettings, LabelSettings):
    """Write a dataset of images created from real ones, labelled by theta_C."""

    num_samples: int | None = None
    """Number of samples. None takes `variants` for every image of the source. If there are more
    images than samples, `subset_seed` chooses the images."""
    strength: float | list[float] | None = None
    """Noise level T / 1000, in (0, 1], or a range [LOW, HIGH] from which each sample draws. None
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
            raise InputError(
                "--variants has no effect with --num_samples: give samples per image, or in total"
            )
        self.read_ways()
        for name in ("strength", "prompt"):
            if getattr(self, name) is not None and not self.uses_own(name):
                raise InputError(f"--{name} has no effect, because all --ways have their own")

    def uses_own(self, name: str) -> bool:
        """Whether a way takes the strength or prompt of the command."""
        return self.ways is None or any(name not in way for way in self.ways)

    def read_ways(self) -> list[Way]:
        """The ways to create, one without --ways.

        Raises:
            InputError: if a value is wrong.
        """
        strength = None if self.strength is None else read_strength(self.strength, "--strength")
        prompt = "{caption}" if self.prompt is None else self.prompt
        own = Way(1, strength, read_prompts(prompt, "--prompt"))
        return [own] if self.ways is None else read_ways(self.ways, own)


@dataclass(kw_only=True)
class VerifySettings:
    """Make some rows of a dataset again from its plan, and compare them."""

    verify: str
    """Folder of a dataset that d2i1 create or d2i1 label wrote."""
    rows: int = 5
    """Number of rows to compare. The other rows of their batches are compared too."""
    source: str | None = None
    """New place of the source, if it was moved since run.json was written."""
    pipeline: str | None = None
    """New place of the pipeline, if it was moved since run.json was written."""
    captions: str | None = None
    """New place of the captions, if they were moved since run.json was written."""
    seed: int = 0
    """Seed of the choice of rows."""

    def __post_init__(self) -> None:
        require_positive(self, "rows")
