"""What can be set of both training stages."""

import re
from dataclasses import dataclass
from typing import Literal

from d2i1_data.checks import refuse_without, require_positive
from d2i1_data.errors import InputError

OF_ONE_CYCLE = (
    "lr_div_factor",
    "lr_final_div_factor",
    "lr_pct_start",
    "lr_anneal",
    "lr_cycle_beta1",
)
NEW_VIEWS = ("random_scale", "random_crop", "color_jitter")  # of which none comes again
MOST_JITTER = {
    **dict.fromkeys(("brightness", "contrast", "saturation", "gamma", "tint"), 1.0),
    **{"hue": 0.5, "each": 1.0, "probability": 1.0},
}


@dataclass(kw_only=True)
class TrainSettings:
    """What warm-up and self-improving have in common."""

    source: str
    """Real labelled data: rooms[:SPLIT], folder:FILE.yaml[:SPLIT] or dataset:PATH_OR_ID[:SPLIT]."""
    output_dir: str
    """Gets pipeline/, checkpoint-N/ and logs/."""
    max_train_steps: int = 1000
    max_train_samples: int | None = None
    """Use only the first samples of the source."""
    resolution: str | None = None
    """Longer side (512), or height x width (480x640); None keeps the images' own."""
    random_flip: bool = True
    """Mirror samples at random, in theta_C's and theta_E's view alike."""
    random_scale: list[float] | None = None
    """Multiply the sides by a factor drawn evenly from [LOW, HIGH], in both views; distances are
    divided by it. Needs random_crop."""
    random_crop: str | None = None
    """Height x width (512x512): a random window after scaling, in both views; grey and unknown
    where the image is smaller."""
    crop_max_share: float = 1.0
    """Redraw the window, up to 10 times, while one class covers more than this share of its known
    pixels. Created samples, whose stored labels nobody looks at, take the first one."""
    color_jitter: dict[str, float] | None = None
    """Change colours, in theta_E's view only, made in this order: gamma g, an exponent in
    [1 - g, 1 + g]; brightness b, a factor in [1 - b, 1 + b]; contrast c and saturation s, such
    factors of the distance to the image's mean grey and to each pixel's grey; hue h, a turn in
    [-h, h] of the full circle; tint t, a factor in [1 - t, 1 + t] for each channel. All drawn
    evenly. probability (1): that a sample is changed at all; each (1): that each change is then
    made."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """`skip` leaves unusable rows out and lists them in skipped.json."""
    real_batch_size: int = 8
    """Real samples a micro-batch, on each process."""
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    """Recompute a trained U-Net's activations in the backward pass: slower, less memory."""
    learning_rate: float = 1e-3
    """Of the host."""
    unet_learning_rate: float = 1e-4
    """Of what is trained of the U-Net, if anything."""
    denoise_weight: float = 0.0
    """Weight of the denoising loss on real images, which keeps a trained U-Net able to create."""
    lr_scheduler: Literal[
        "constant",
        "constant_with_warmup",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "one_cycle",
    ] = "constant_with_warmup"
    lr_warmup_steps: int = 0
    lr_num_cycles: int = 1
    """Restarts of cosine_with_restarts."""
    lr_power: float = 1.0
    """Power of polynomial."""
    lr_div_factor: float = 25.0
    """one_cycle begins with the rates divided by this."""
    lr_final_div_factor: float = 1e4
    """one_cycle ends with what it begins with, divided by this."""
    lr_pct_start: float = 0.3
    """Share of the steps in which one_cycle rises."""
    lr_anneal: Literal["cos", "linear"] = "cos"
    """How one_cycle rises and falls."""
    lr_cycle_beta1: bool = True
    """one_cycle moves AdamW's first beta against the rates: 0.95, 0.85, 0.95."""
    adam_weight_decay: float = 1e-2
    use_8bit_adam: bool = False
    """Keep AdamW's moments in 8 bit, in both stages; needs bitsandbytes, the extra `8bit`."""
    max_grad_norm: float = 1.0
    """Clip gradients to this norm; 0 does not."""
    mixed_precision: Literal["no", "bf16", "fp16"] | None = None
    """None is what `accelerate launch` or its config says, else `no`."""
    validation_source: str | None = None
    """Labelled data scored, and its first samples shown, while training."""
    validation_steps: int = 500
    num_validation_samples: int = 16
    best_metric: str | None = None
    """TASK.FIGURE, such as depth.abs_rel: the pipeline gets the weights that validated best by it,
    instead of the last ones; `best.safetensors` holds them meanwhile."""
    cache_dir: str | None = None
    """Keep latents and text embeddings there, for later runs and all processes; not with
    augmentation other than the flip, whose latents are never needed again."""
    dataloader_num_workers: int = 0
    """Threads that load the next samples while this step trains; 0 loads them in between."""
    checkpointing_steps: int = 500
    checkpoints_total_limit: int | None = None
    """Keep only the newest checkpoints."""
    resume_from_checkpoint: str | None = None
    """`latest`, or a checkpoint-N of output_dir."""
    push_to_hub: bool = False
    """Send checkpoints to the Hub while training goes on, and in the end all that `d2i1 publish
    --run` sends. With --resume_from_checkpoint latest, a folder without checkpoints continues from
    the newest one there."""
    hub_model_id: str | None = None
    """Repository to push to; None is output_dir's name, under the user whose token it is."""
    hub_private_repo: bool = False
    """Make it private, if it is new."""
    report_to: Literal["tensorboard", "wandb", "trackio", "none"] = "tensorboard"
    logging_steps: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("max_train_steps", "max_train_samples", "real_batch_size", "checkpointing_steps")
        more = ("gradient_accumulation_steps", "checkpoints_total_limit", "validation_steps")
        require_positive(self, *counts, *more, "num_validation_samples", "logging_steps")
        if self.best_metric and not self.validation_source:
            raise InputError(f"--best_metric {self.best_metric} needs a --validation_source")
        if self.denoise_weight < 0 or self.dataloader_num_workers < 0:
            raise InputError("--denoise_weight and --dataloader_num_workers: expected at least 0")
        if self.max_grad_norm < 0:
            raise InputError(f"--max_grad_norm {self.max_grad_norm}: expected at least 0")
        if not self.push_to_hub:
            refuse_without(self, ["hub_model_id", "hub_private_repo"], "--push_to_hub")
        self._check_one_cycle()
        self._check_augmentation()

    def _check_one_cycle(self) -> None:
        if self.lr_scheduler != "one_cycle":
            return refuse_without(self, OF_ONE_CYCLE, "--lr_scheduler one_cycle")
        if self.lr_warmup_steps:
            raise InputError("--lr_warmup_steps says nothing with one_cycle, see --lr_pct_start")
        for name in ("lr_div_factor", "lr_final_div_factor"):
            if getattr(self, name) <= 0:
                raise InputError(f"--{name} {getattr(self, name)}: expected more than 0")
        if not 0 <= self.lr_pct_start <= 1:
            raise InputError(f"--lr_pct_start {self.lr_pct_start}: expected 0 to 1")
        return None

    def _check_augmentation(self) -> None:
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
            if name not in MOST_JITTER:
                known = ", ".join(MOST_JITTER)
                raise InputError(f"--color_jitter: unknown key {name!r}, choose from {known}")
            if not 0 <= value <= MOST_JITTER[name]:
                raise InputError(
                    f"--color_jitter: {name} {value}: expected 0 to {MOST_JITTER[name]}"
                )
        given = [f"--{name}" for name in NEW_VIEWS if getattr(self, name)]
        if self.cache_dir and given:
            raise InputError(
                f"--cache_dir keeps latents of views that come again; with {', '.join(given)} every"
                " view is new"
            )
