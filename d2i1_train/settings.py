"""What can be set: one flat dataclass an act, at once flags, YAML keys and documentation."""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from d2i1_data.errors import InputError
from d2i1_data.settings import refuse_without, require_positive

OF_HOST = ("width", "norm", "protocol")
OF_LORA = ("rank", "lora_alpha", "lora_dropout", "lora_layers", "use_rslora")
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
class BaseSettings:
    """Train a small latent diffusion base from scratch on the images and captions of a source."""

    output_dir: str
    source: str = "rooms:train"
    """rooms[:SPLIT], folder:FILE.yaml[:SPLIT] or dataset:PATH_OR_ID[:SPLIT]."""
    evaluate: str | None = None
    """Instead of training, score this base (a name, folder or Hub id) on the source."""
    resolution: str | None = None
    """Longer side (512), or height x width (480x640); None keeps the images' own."""
    max_train_samples: int | None = None
    """Use only the first samples of the source."""
    random_flip: bool = True
    """Train on mirrored images too; not for captions that say left or right."""
    vae_channels: list[int] = field(default_factory=lambda: [16, 32, 96])
    """Channels a level, multiples of 8; each level but the last halves the sides."""
    vae_layers: int = 1
    vae_steps: int = 4500
    vae_batch_size: int = 16
    vae_learning_rate: float = 1.5e-3
    unet_channels: list[int] = field(default_factory=lambda: [64, 96, 128])
    """Channels a level, multiples of 16."""
    unet_layers: int = 1
    unet_steps: int = 13_000
    unet_batch_size: int = 32
    unet_learning_rate: float = 1e-3
    ema_decay: float = 0.9995
    snr_gamma: float = 5.0
    """Min-SNR weighting (Hang et al. 2023, arXiv 2303.09556); 0 turns it off."""
    caption_dropout: float = 0.1
    """Share of captions left empty: perception and guidance use the empty prompt."""
    vocabulary: int = 1000
    """Most tokens the tokenizer may learn."""
    text_length: int = 32
    """Tokens a caption may have, with its start and end."""
    text_width: int = 128
    text_layers: int = 3
    checkpointing_steps: int = 500
    """Steps between saved states and previews."""
    resume_from_checkpoint: str | None = None
    """`latest` continues a run in output_dir."""
    mixed_precision: Literal["bf16", "no"] = "bf16"
    dataloader_num_workers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        steps = ("vae_steps", "unet_steps", "checkpointing_steps", "max_train_samples")
        require_positive(self, *steps, "vae_batch_size", "unet_batch_size")
        for name, unit in (("vae_channels", 8), ("unet_channels", 16)):
            channels = getattr(self, name)
            if not channels or any(c < unit or c % unit for c in channels):
                raise InputError(f"--{name} {channels}: expected multiples of {unit}")


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
