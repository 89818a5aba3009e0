"""Settings that both training stages share, in groups."""

import math
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from d2i1_data.checks import (
    LARGEST,
    MAX_PIXELS,
    refuse_without,
    require_between,
    require_positive,
)
from d2i1_data.errors import InputError

ONE_CYCLE_SETTINGS = (
    "lr_div_factor",
    "lr_final_div_factor",
    "lr_pct_start",
    "lr_anneal",
    "lr_cycle_beta1",
)
# settings about places, logs and checkpoints, which training records leave out
PRIVATE = {"output_dir", "cache_dir", "resume_from_checkpoint", "report_to", "logging_steps"}
PRIVATE |= {"checkpointing_steps", "checkpoints_total_limit", "dataloader_num_workers"}
PRIVATE |= {"push_to_hub", "hub_model_id", "hub_private_repo"}
# settings that a run may change when it is resumed: they do not change the trained weights
FREE = PRIVATE | {"validation_source", "validation_steps", "num_validation_samples", "best_metric"}
FREE |= {"gradient_checkpointing", "allow_leak", "max_pixels"}
CONSTANT = ("constant", "constant_with_warmup")  # schedules that do not depend on max_train_steps
UNREPEATED_VIEWS = ("random_scale", "random_crop", "color_jitter")  # these make every view new
JITTER_LIMITS = {
    **dict.fromkeys(("brightness", "contrast", "saturation", "gamma", "tint"), 1.0),
    **{"hue": 0.5, "each": 1.0, "probability": 1.0},
}


@dataclass(kw_only=True)
class DataSettings:
    """Data"""

    max_train_samples: int | None = None
    """Use only this many samples of the source, chosen at random. None takes all."""
    subset_seed: int | None = 0
    """Decides which samples `max_train_samples`, `max_created_samples` and `num_validation_samples`
    choose: always the same for one source, whatever `seed` is. Fewer are part of more. null takes
    the first samples."""
    captions: str | None = None
    """Captions by id for the denoising loss, in place of those of the source: a file whose lines
    have the form {"id": "...", "caption": "..."}, such as `d2i1 caption` writes."""
    max_pixels: int = MAX_PIXELS
    """Refuse images with more pixels than this. A small file can hold a huge image."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """`stop` ends the run at a row that cannot be used. `skip` leaves such rows out, without
    others in their place, and lists them in skipped.json."""
    cache_dir: str | None = None
    """Folder that keeps latents and text embeddings for all processes and later runs. It cannot be
    used with random_scale, random_crop or color_jitter, because every view is then new."""
    dataloader_num_workers: int = 0
    """Threads that load the next samples while the current step trains. 0 loads them between
    steps."""

    def check(self) -> None:
        """Refuse impossible values."""
        require_positive(self, "max_train_samples", "max_pixels")
        require_between(self, 0, LARGEST, "dataloader_num_workers")


@dataclass(kw_only=True)
class OptimisationSettings:
    """Optimisation"""

    learning_rate: float = 1e-3
    """Learning rate of the host."""
    unet_learning_rate: float = 1e-4
    """Learning rate of the trained part of the U-Net, if there is one."""
    denoise_weight: float = 0.0
    """Weight of the denoising loss on real images. It keeps a trained U-Net able to create."""
    gradient_accumulation_steps: int = 1
    """Micro-batches in one optimiser step."""
    gradient_checkpointing: bool = False
    """Compute the activations of a trained U-Net again in the backward pass. This is slower, but
    needs less memory."""
    mixed_precision: Literal["no", "bf16", "fp16"] | None = None
    """Precision of training. None takes the setting of `accelerate launch` or its configuration,
    otherwise `no`."""
    max_grad_norm: float = 1.0
    """Clip gradients to this norm. 0 does not clip."""
    adam_weight_decay: float = 1e-2
    """Weight decay of AdamW."""
    use_8bit_adam: bool = False
    """Keep the moments of AdamW in 8 bit. Must be the same in both stages. Needs bitsandbytes, the
    extra `8bit`."""
    lr_scheduler: Literal[
        "constant",
        "constant_with_warmup",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "one_cycle",
    ] = "constant_with_warmup"
    """How the learning rates change during training."""
    lr_warmup_steps: int = 0
    """Steps in which the learning rates rise from 0."""
    lr_num_cycles: int = 1
    """cosine_with_restarts: number of cycles."""
    lr_power: float = 1.0
    """polynomial: power of the polynomial."""
    lr_div_factor: float = 25.0
    """one_cycle: the first rate is the learning rate divided by this."""
    lr_final_div_factor: float = 1e4
    """one_cycle: the last rate is the first rate divided by this."""
    lr_pct_start: float = 0.3
    """one_cycle: share of the steps in which the rates rise."""
    lr_anneal: Literal["cos", "linear"] = "cos"
    """one_cycle: shape of the rise and of the fall."""
    lr_cycle_beta1: bool = True
    """one_cycle: also move the first beta of AdamW, opposite to the rates: 0.95, 0.85, 0.95."""

    def check(self) -> None:
        """Refuse impossible values."""
        require_positive(self, "gradient_accumulation_steps", "lr_num_cycles")
        rates = ("learning_rate", "unet_learning_rate", "adam_weight_decay", "denoise_weight")
        steps = ("max_grad_norm", "lr_warmup_steps", "lr_power")
        require_between(self, 0, math.inf, *rates, *steps)
        if self.lr_scheduler != "one_cycle":
            return refuse_without(self, ONE_CYCLE_SETTINGS, "--lr_scheduler one_cycle")
        if self.lr_warmup_steps:
            raise InputError(
                "--lr_warmup_steps has no effect with one_cycle, use --lr_pct_start instead"
            )
        for name in ("lr_div_factor", "lr_final_div_factor"):
            if getattr(self, name) <= 0:
                raise InputError(f"--{name} {getattr(self, name)}: expected more than 0")
        if not 0 <= self.lr_pct_start <= 1:
            raise InputError(f"--lr_pct_start {self.lr_pct_start}: expected 0 to 1")
        return None


@dataclass(kw_only=True)
class AugmentationSettings:
    """Augmentation"""

    random_flip: bool = True
    """Mirror half of the samples, for theta_C and theta_E alike."""
    random_scale: list[float] | None = None
    """Multiply the sides by a factor drawn uniformly from [LOW, HIGH], for theta_C and theta_E
    alike. Distances are divided by it. Needs random_crop."""
    random_crop: str | None = None
    """Cut a random window of this height x width (512x512) after scaling, for theta_C and theta_E
    alike. A smaller image is extended by grey pixels with unknown labels."""
    crop_max_share: float = 1.0
    """Draw the window again, up to 10 times, while one class covers more than this share of its
    known pixels. Created samples always take the first window: their stored labels are not used."""
    color_jitter: dict[str, float] | None = None
    """Change the colours that theta_E gets. theta_C gets the original colours. Keys, in the order
    in which the changes are made: gamma g draws an exponent in [1 - g, 1 + g]; brightness b a
    factor in [1 - b, 1 + b]; contrast c a factor in [1 - c, 1 + c] for the distance to the mean
    grey of the image; saturation s a factor in [1 - s, 1 + s] for the distance to the grey of each
    pixel; hue h a turn in [-h, h] of the full circle; tint t a factor in [1 - t, 1 + t] for each
    channel. All are drawn uniformly. Two more keys: probability (default 1) that a sample is
    changed; each (default 1), the probability of each change in a changed sample."""

    def check(self) -> None:
        """Refuse impossible values."""
        scale, crop, share = self.random_scale, self.random_crop, self.crop_max_share
        if scale is not None and (len(scale) != 2 or not 0 < scale[0] <= scale[1]):
            raise InputError(f"--random_scale {scale}: expected [LOW, HIGH], 0 < LOW <= HIGH")
        if scale is not None and crop is None:
            raise InputError("--random_scale needs a --random_crop: scaled images differ in size")
        if crop is not None and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", crop):
            raise InputError(f"--random_crop {crop!r}: expected height x width, such as 512x512")
        if crop is None:
            refuse_without(self, ["crop_max_share"], "--random_crop")
        if not 0 < share <= 1:
            raise InputError(f"--crop_max_share {share}: expected more than 0, at most 1")
        for name, value in (self.color_jitter or {}).items():
            if name not in JITTER_LIMITS:
                known = ", ".join(JITTER_LIMITS)
                raise InputError(f"--color_jitter: unknown key {name!r}, choose from {known}")
            if not 0 <= value <= JITTER_LIMITS[name]:
                raise InputError(
                    f"--color_jitter: {name} {value}: expected 0 to {JITTER_LIMITS[name]}"
                )


@dataclass(kw_only=True)
class ValidationSettings:
    """Validation"""

    validation_source: str | None = None
    """Labelled data on which theta is scored during training. Pictures of some samples are
    logged."""
    validation_steps: int = 500
    """Number of steps between validations."""
    num_validation_samples: int = 16
    """Use only this many samples of the validation source, chosen at random (`subset_seed`)."""
    best_metric: str | None = None
    """TASK.METRIC, such as depth.abs_rel. The pipeline gets the weights with the best value of this
    metric in validation, instead of the last weights. The folder `best`, a checkpoint that
    checkpoints_total_limit does not count, has theta_C, theta_E and the optimiser of that step."""

    def check(self) -> None:
        """Refuse impossible values."""
        require_positive(self, "validation_steps", "num_validation_samples")
        if self.best_metric and not self.validation_source:
            raise InputError(f"--best_metric {self.best_metric} needs a --validation_source")


@dataclass(kw_only=True)
class CheckpointSettings:
    """Checkpoints"""

    checkpointing_steps: int = 500
    """Number of steps between checkpoints. The last step always writes one."""
    checkpoints_total_limit: int | None = None
    """Keep only this many of the newest checkpoints. None keeps all."""
    resume_from_checkpoint: str | None = None
    """Continue a run: `latest` (the newest intact checkpoint), or a checkpoint-N of output_dir. All
    settings that decide the trained weights must be those of the run."""

    def check(self) -> None:
        """Refuse impossible values."""
        require_positive(self, "checkpointing_steps", "checkpoints_total_limit")


@dataclass(kw_only=True)
class HubSettings:
    """Hub"""

    push_to_hub: bool = False
    """Send checkpoints to the Hub during training. At the end, send everything that `d2i1 publish
    --run` sends. With --resume_from_checkpoint latest, a folder without checkpoints continues from
    the newest checkpoint on the Hub."""
    hub_model_id: str | None = None
    """Repository to push to. None takes the name of output_dir, under your user name."""
    hub_private_repo: bool = False
    """Make a new repository private."""

    def check(self) -> None:
        """Refuse settings without effect."""
        if not self.push_to_hub:
            refuse_without(self, ["hub_model_id", "hub_private_repo"], "--push_to_hub")


@dataclass(kw_only=True)
class LoggingSettings:
    """Logging"""

    report_to: Literal["tensorboard", "wandb", "trackio", "none"] | None = None
    """Where losses, learning rates, metrics and pictures are logged. Each is an extra of this
    package. None takes tensorboard if it is installed."""
    logging_steps: int = 10
    """Number of steps between log entries. An entry holds the mean losses since the last one."""

    def check(self) -> None:
        """Refuse impossible values."""
        require_positive(self, "logging_steps")


@dataclass(kw_only=True)
class TrainSettings(
    DataSettings,
    OptimisationSettings,
    AugmentationSettings,
    ValidationSettings,
    CheckpointSettings,
    HubSettings,
    LoggingSettings,
):
    """The settings that warm-up and self-improving have in common."""

    source: str
    """Real labelled data: {labelled_sources}."""
    output_dir: str
    """Folder for pipeline/, checkpoint-N/ and logs/."""
    max_train_steps: int = 1000
    """Optimiser steps."""
    real_batch_size: int = 8
    """Real samples in a micro-batch, on each process."""
    resolution: str | None = None
    """Longer side (512), shorter side (short:512; the longer side is then at most four times as
    long), or height x width (480x640). None keeps the sizes of the images."""
    seed: int = 0
    """Decides all random draws."""

    def __post_init__(self) -> None:
        require_positive(self, "max_train_steps")
        if not self.denoise_weight:  # nothing else in training reads a caption
            refuse_without(self, ["captions"], "--denoise_weight")
        require_between(self, 0, LARGEST, "real_batch_size")
        for group in type(self).__mro__:
            if "check" in vars(group):
                group.check(self)  # type: ignore[attr-defined]
        unrepeated = [f"--{name}" for name in UNREPEATED_VIEWS if getattr(self, name)]
        if self.cache_dir and unrepeated:
            raise InputError(
                f"--cache_dir has no effect with {', '.join(unrepeated)}: every view is then new"
            )

    def deciding(self, processes: int) -> dict[str, Any]:
        """The settings that decide the trained weights, and must stay when a run is resumed.

        Args:
            processes: number of processes.
        """
        facts = {name: value for name, value in asdict(self).items() if name not in FREE}
        if self.lr_scheduler in CONSTANT:
            facts.pop("max_train_steps")
        # both together decide which samples a step takes
        micro_batches = facts.pop("gradient_accumulation_steps") * processes
        return facts | {"gradient_accumulation_steps x processes": micro_batches}
