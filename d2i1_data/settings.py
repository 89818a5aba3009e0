"""What can be set when data is written. Fields are flags, YAML keys and documentation at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .errors import InputError


def require_positive(settings: Any, *names: str) -> None:
    """Refuse numbers below 1; None is left to mean what it means."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: expected at least 1")


def refuse_without(settings: Any, names: Sequence[str], wanted: str) -> None:
    """Refuse settings that differ from their default where they would say nothing."""
    for name in names:
        if getattr(settings, name) != getattr(type(settings), name):
            raise InputError(f"--{name} says nothing without {wanted}")


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
class ExportSettings:
    """Write a dataset in a layout that other tools read."""

    dataset: str
    """Folder or Hub id of a dataset in our schema; needs no flag if it comes first."""
    format: Literal["coco", "yolo", "webdataset", "folders"]
    """coco: panoptic, semantic and mask annotations of each label map. yolo: polygons of one label
    map. webdataset: tar files. folders: PNG files, for the source `folder:`."""
    output_dir: str
    """New, or empty."""
    split: str | None = None
    """None is train."""
    tasks: str | None = None
    """Comma-separated; None is all that the format can hold."""
    min_quality: dict[str, float] | None = None
    """Export only samples that reach these scores: TASK.SCORE -> least value, such as
    {semseg.flip: 0.9}; the scores are `confidence`, `flip` and `reencode`."""
    shard_size: int = 1000
    """webdataset: samples a tar file."""
    min_region: int = 1
    """yolo: leave out connected regions of fewer pixels."""
    outline: Literal["exact", "pixels"] = "exact"
    """yolo: polygons run around a region's outer pixels, or through them, for readers that round to
    whole pixels and draw the outline too (supervision)."""

    def __post_init__(self) -> None:
        require_positive(self, "shard_size", "min_region")
        if self.format != "webdataset":
            refuse_without(self, ["shard_size"], "--format webdataset")
        if self.format != "yolo":
            refuse_without(self, ["min_region", "outline"], "--format yolo")
