"""What can be set when data is written. Fields are flags, YAML keys and documentation at once."""

from dataclasses import dataclass
from typing import Any, Literal

from .errors import InputError


def require_positive(settings: Any, *names: str) -> None:
    """Refuse numbers below 1; None is left to mean what it means."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: expected at least 1")


@dataclass(kw_only=True)
class WriteSettings:
    """What every act that writes a dataset has in common."""

    source: str
    """rooms[:SPLIT], folder:FILE.yaml[:SPLIT] or dataset:PATH_OR_ID[:SPLIT]."""
    output_dir: str
    max_source_samples: int | None = None
    """Use only the first images of the source."""
    resolution: str | None = None
    """Longer side (512), or height x width (480x640); None keeps the images' own."""
    shard_size: int = 64
    on_bad_row: Literal["stop", "skip"] = "stop"
    """`skip` leaves unusable rows out and lists them in skipped.json."""
    overwrite: bool = False
    """Replace a dataset of another plan in output_dir."""

    def __post_init__(self) -> None:
        require_positive(self, "max_source_samples", "shard_size")


@dataclass(kw_only=True)
class ImportSettings(WriteSettings):
    """Write real data as a dataset in our schema."""


@dataclass(kw_only=True)
class LabelSettings(WriteSettings):
    """Label images as they are with a trained pipeline, and keep them as a dataset."""

    pipeline: str
    """Folder or Hub id of a Diff2in1Pipeline; its weights are theta_C."""
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "batch_size")


@dataclass(kw_only=True)
class CreateSettings(LabelSettings):
    """Write a dataset of images created from real ones, and labelled, by theta_C."""

    num_samples: int | None = None
    """How many; None is one per image of the source, more are variants with other noise."""
    strength: float | None = None
    """Noise level T / 1000, in (0, 1]; None is the checkpoint's default (paper: 0.6)."""
    num_inference_steps: int | None = None
    """U-Net calls really made; None is the checkpoint's default (paper: 50)."""
    guidance_scale: float | None = None
    """1 is none (paper); None is the checkpoint's default."""
    negative_prompt: str = ""
    labels_from: Literal["latent", "last_step", "image"] = "latent"
    """The final latent at t = 0, the last denoising step (paper), or the 8-bit image."""
    create_with: Literal["base", "theta"] | None = None
    """Whose U-Net denoises where theta's was trained; None is the checkpoint's default."""
    prompt: str | None = None
    """One prompt for all, instead of the source's captions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_samples", "num_inference_steps")


@dataclass(kw_only=True)
class ReportSettings:
    """Show what is in a dataset, beside its source, on one page."""

    dataset: str
    """Folder or Hub id of a dataset in our schema."""
    output_dir: str | None = None
    """Where index.html and its figures go; None is DATASET/report."""
    source: str | None = None
    """What the images were made from; None is what the dataset's run.json says."""
    pipeline: str | None = None
    """Whose features tell copies from variations; None is what the dataset's run.json says."""
    max_samples: int = 2000
    """Read at most this many rows, and as many images of the source, spaced evenly."""
    batch_size: int = 16
    copy_threshold: float = 0.98
    """Cosine from which a created image counts as a copy of a source image."""

    def __post_init__(self) -> None:
        require_positive(self, "max_samples", "batch_size")


@dataclass(kw_only=True)
class JudgeSettings:
    """Score the labels of a dataset, and its quality scores, where the truth is known."""

    dataset: str
    """Folder or Hub id of a dataset in our schema."""
    source: str
    """The truth, on the same images: what was labelled, or a dataset that a reference labelled."""
    output_file: str
    """All figures, as JSON."""
    plot: str | None = None
    """A PNG of every sample's error against its scores."""
    resolution: str | None = None
    """Of the truth, as for `d2i1 label`; None is what the dataset's run.json says."""
    max_samples: int = 2000
    """Judge at most this many rows, spaced evenly."""
    keep: float = 0.8
    """The share of rows that a filter by quality would keep."""
    rounds: int = 1000
    """Of the bootstrap, and of drawing rows at random."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "max_samples", "rounds")
        if not 0 < self.keep < 1:
            raise InputError(f"--keep {self.keep}: expected a share between 0 and 1")
