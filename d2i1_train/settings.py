"""What can be set: one flat dataclass an act, at once flags, YAML keys and documentation."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from d2i1_data.checks import refuse_without, require_positive
from d2i1_data.errors import InputError

from .loop.settings import TrainSettings

OF_HOST = ("width", "norm", "protocol")
OF_LORA = ("rank", "lora_alpha", "lora_dropout", "lora_layers", "use_rslora")


@dataclass(kw_only=True)
class WarmUpSettings(TrainSettings):
    """Stage 1: train a fresh host on real labels."""

    base: str = "rooms"
    """An embedded base, or Stable Diffusion 1.x or 2.x: a folder or Hub id in diffusers layout, or
    one .safetensors file."""
    revision: str | None = None
    """Branch, tag or commit of a base on the Hub."""
    variant: str | None = None
    """Of the base's weights, such as fp16."""
    base_config: str | None = None
    """Folder or Hub id whose configs describe a base in one file; None asks the Hub for those of
    the release it is taken for."""
    host: str
    """Which discriminative method reads the pyramid: light (our own, any tasks), bae (normals),
    idisc (normals or depth) or vpd (segmentation or depth), each in a file of its own."""
    tasks: str | None = None
    """Comma-separated; None is all the source has labels for, of a host for one task the first."""
    width: int | None = None
    """Channels of the host's decoder, with which all its others grow; None is the published ones,
    or a quarter of them for a base that is smaller than Stable Diffusion."""
    norm: Literal["batch", "group"] | None = None
    """Of idisc and vpd: `batch` as published, `group` where micro-batches are too small for it."""
    protocol: Literal["ours", "host"] | None = None
    """`host` trains as the host's released code does where that differs; see its file."""
    host_options: dict[str, Any] | None = None
    """Other settings of the host, by the names in its file, such as {farthest: 80}."""
    train_unet: Literal["none", "lora", "full"] = "none"
    """What of the U-Net is trained with the host: nothing (paper), a LoRA, or all of it."""
    rank: int = 16
    """Of the LoRA."""
    lora_alpha: float | None = None
    """The LoRA is scaled by alpha / rank; None is the rank, which is a scale of 1."""
    lora_dropout: float = 0.0
    lora_layers: str = "to_q,to_k,to_v,to_out.0"
    """Comma-separated ends of the names of the layers that get a LoRA."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) instead."""
    create_with: Literal["base", "theta"] = "base"
    """What the pipeline creates with where the U-Net was trained: the base's own U-Net, which is
    saved beside, or theta's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "rank")
        if not 0 <= self.lora_dropout < 1:
            raise InputError(f"--lora_dropout {self.lora_dropout}: expected 0 to below 1")
        if self.lora_alpha is not None and self.lora_alpha <= 0:
            raise InputError(f"--lora_alpha {self.lora_alpha}: expected more than 0")
        if self.train_unet == "none" and self.denoise_weight:
            raise InputError("--denoise_weight needs a U-Net that is trained: --train_unet")
        if self.train_unet != "lora":
            refuse_without(self, OF_LORA, "--train_unet lora")


@dataclass(kw_only=True)
class SelfImproveSettings(TrainSettings):
    """Stage 2: train theta_E on real and created samples; theta_C labels these, and follows."""

    pipeline: str
    """What the warm-up gave, or an adapter; theta_C and theta_E both begin there, and what the
    warm-up trained of the U-Net is trained on."""
    base: str | None = None
    """Where the base of a LoRA lies; None is where the warm-up found it, or the adapter says."""
    created: str = "none"
    """A dataset that `d2i1 create` wrote, or `none`: the real-only baseline."""
    created_batch_size: int | None = None
    """Created samples a micro-batch; None is as many as real ones."""
    max_created_samples: int | None = None
    """Use only the first created samples."""
    min_quality: dict[str, float] | None = None
    """Use only created samples that reach these scores: TASK.SCORE -> least value, such as
    {semseg.flip: 0.9}; the scores are `confidence`, `flip` and `reencode`."""
    mix: Literal["paired", "union"] = "paired"
    """`paired` draws both kinds in every step; `union` shuffles them into one (authors)."""
    alpha: float = 0.998
    """What theta_C keeps of itself at an update (paper: 0.998; 0.999 on PASCAL-Context)."""
    follow_every: int = 40
    """Samples theta_E consumes between updates of theta_C (paper: 40)."""
    fresh_optimizer: bool = False
    """Begin with an empty optimiser state, as the authors do, instead of the warm-up's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "created_batch_size", "max_created_samples", "follow_every")
        if not 0 <= self.alpha <= 1:
            raise InputError(f"--alpha {self.alpha}: expected 0 to 1")
        if self.mix == "union" and self.denoise_weight:
            raise InputError("--denoise_weight needs real samples in every step: --mix paired")

    @property
    def created_size(self) -> int:
        """Created samples a micro-batch; as many as real ones unless said otherwise."""
        own = self.created_batch_size
        return self.real_batch_size if own is None else own


@dataclass(kw_only=True)
class EvaluateSettings:
    """Score a pipeline against the labels of a source."""

    pipeline: str
    source: str
    output_file: str | None = None
    """Where the figures are written as JSON."""
    max_samples: int | None = None
    """Use only the first samples of the source."""
    min_quality: dict[str, float] | None = None
    """Of a source dataset:PATH_OR_ID: use only samples that reach these scores, TASK.SCORE -> least
    value."""
    processing_resolution: int | None = None
    """Longer side the model works at; None is the checkpoint's own, 0 the images' own."""
    theta: Literal["creation", "exploitation"] = "creation"
    """theta_C, which a pipeline holds, or theta_E from the checkpoint beside it."""
    flip: bool = False
    """Average with the mirrored image."""
    window: int | None = None
    """Predict in overlapping windows of this side."""
    crop: str | None = None
    """Rows, then columns of the truth that are scored, from the first to before the second of each:
    45:471,41:601 for depth of NYUv2 as it is published."""
    farthest: float | None = None
    """Metres; truth beyond is unknown, and predictions are clipped to it (depth of NYUv2: 10)."""
    average: Literal["pixels", "images"] = "pixels"
    """Figures over the pixels of all images, or the mean of every image's own, those without known
    pixels left out (iDisc, VPD's depth)."""
    sparsification: str | None = None
    """A .png to draw: how the error falls when the most uncertain pixels are left out, over the
    pixels of all images; output_file gets the curves."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """`skip` leaves unusable rows out and lists them in output_file."""

    def __post_init__(self) -> None:
        require_positive(self, "max_samples", "window")
        if self.farthest is not None and not 0 < self.farthest < math.inf:
            raise InputError(f"--farthest {self.farthest:g}: expected more than 0 metres")
        if self.sparsification and not self.sparsification.endswith(".png"):
            raise InputError(f"--sparsification {self.sparsification}: expected a file named .png")


@dataclass(kw_only=True)
class DemoSettings:
    """Run the whole loop on the embedded default and show what it gives."""

    output_dir: str = "runs/demo"
    real: int = 24
    """Labelled rooms to learn from."""
    created: int = 192
    """Rooms to create."""
    warm_up_steps: int = 2000
    self_improve_steps: int = 500
    num_inference_steps: int = 25
    strength: float = 0.6
    held_out: int = 300
    """Rooms to evaluate on."""
    overwrite: bool = False
    """Delete what an earlier demo left in output_dir."""
    seed: int = 0

    def __post_init__(self) -> None:
        steps = ("warm_up_steps", "self_improve_steps", "num_inference_steps")
        require_positive(self, *steps, "real", "created", "held_out")


@dataclass(kw_only=True)
class StudySettings:
    """Compare ways to warm up, over seeds: what they perceive, and how they still create."""

    arms: dict[str, dict[str, Any]]
    """Name of an arm -> settings of its warm-up."""
    common: dict[str, Any] = field(default_factory=dict)
    """Settings of every arm's warm-up."""
    output_dir: str
    """Gets ARM/seed-N/, training-mean.json (the figures of predicting at each pixel the average of
    the training targets), table.md and sparsification.png (of every arm's first seed); a study that
    was stopped begins with the arm it was at."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    test: str = "rooms:test"
    """Labelled source that the arms are scored on."""
    test_samples: int = 300
    generation_samples: int = 200
    """Images created to judge generation; 0 leaves that out."""

    def __post_init__(self) -> None:
        require_positive(self, "test_samples")
        if not self.arms or not self.seeds:
            raise InputError("study: expected at least one arm and one seed")


@dataclass(kw_only=True)
class EnvSettings:
    """Print the versions that a report of a problem should name."""
