"""What can be set when data is written. Fields are flags, YAML keys and documentation at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal

from .errors import InputError


def check_template(template: str, allowed: Sequence[str], where: str) -> None:
    """Refuse a text with broken braces, or with others than those of the allowed words."""
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise InputError(f"{where}: template {template!r}: {error}") from error
    for _, word, form, conversion in parts:
        if word not in allowed or form or conversion:
            given = f"{word}{f'!{conversion}' if conversion else ''}{f':{form}' if form else ''}"
            known = ", ".join(f"{{{one}}}" for one in allowed)
            raise InputError(f"{where}: template has {{{given}}}, the only one known is {known}")


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
    """rooms[:SPLIT], folder:FILE.yaml[:SPLIT], dataset:PATH_OR_ID[:SPLIT], or to create from
    captions alone text:FILE."""
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


@dataclass(kw_only=True)
class PublishSettings:
    """Put a dataset, a pipeline, an adapter, or all that a run left, on the Hub, with cards."""

    repo_id: str
    """user/name, or a name alone, which is yours: the model's, the dataset's and the Space's; an
    adapter beside a pipeline is NAME-adapter."""
    pipeline: str | None = None
    """Folder of a pipeline to publish; or the Hub id of one, which the others' cards link to."""
    adapter: str | None = None
    """Folder of an adapter to publish: a LoRA and a perception model."""
    dataset: str | None = None
    """Folder of a dataset to publish."""
    run: str | None = None
    """Folder with any of pipeline/, adapter/, dataset/ and results.json, such as a demo's."""
    results: str | list[str] | None = None
    """What `d2i1 evaluate --output_file` wrote of the pipeline, a file or several: its figures."""
    space: bool = False
    """Also a Space that shows the pipeline, see `d2i1 app`."""
    private: bool = False
    """Make new repositories private; public ones that are there are refused."""
    append: bool = False
    """Add to the samples that the dataset holds on the Hub; nothing is deleted."""
    overwrite: bool = False
    """Replace other samples, or another kind of model, that lie there."""
    dry_run: bool = False
    """Say what would be sent, and send nothing."""

    def __post_init__(self) -> None:
        given = [self.pipeline, self.adapter, self.dataset, self.run]
        if not any(given):
            raise InputError("publish: nothing named: --pipeline, --adapter, --dataset or --run")
        if self.append and self.overwrite:
            raise InputError("--append and --overwrite exclude each other")
        if self.append and not (self.dataset or self.run):
            raise InputError("--append is for a --dataset")
        if self.space and not (self.pipeline or self.run):
            raise InputError("--space needs a --pipeline to show")
        if self.results and not (self.pipeline or self.adapter or self.run):
            raise InputError("--results says nothing without a --pipeline or --adapter")


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
