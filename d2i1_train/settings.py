"""Settings of the acts in this room. Their fields are flags, YAML keys and help texts at once."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from d2i1_data.checks import (
    LARGEST,
    refuse_without,
    require_between,
    require_library,
    require_positive,
)
from d2i1_data.errors import InputError
from d2i1_data.inspection.settings import PredictionSettings

from .loop.settings import TrainSettings

BeliefViewName = Literal["image", "mirror", "larger"]  # of `pseudo_labels.BELIEF_VIEWS`
# the names in d2i1_data.tasks.protocols, which needs torch
Protocols = Literal[
    "nyu-depth", "bae-normals", "idisc-normals", "geonet-normals", "marigold-normals"
]
HOST_SETTINGS = ("width", "norm", "protocol")  # passed to the host if they are given
WARM_UP_SHARE = 0.15  # of the released code: 0.998 to the power of 950 updates
LORA_SETTINGS = ("rank", "lora_alpha", "lora_dropout", "lora_layers", "use_rslora")


@dataclass(kw_only=True)
class ModelSettings:
    """Model"""

    train_unet: Literal["none", "lora", "full"] = "none"
    """The part of the U-Net that is trained with the host: none of it (paper), a LoRA, or all of
    it."""
    create_with: Literal["base", "theta"] = "base"
    """If the U-Net is trained, create with the U-Net of the base, which is saved too, or with the
    trained one (theta)."""
    width: int | None = None
    """Channels of the host's decoder. All its other widths grow with it. None takes the published
    width, or a quarter of it for a base that is smaller than Stable Diffusion."""
    norm: Literal["batch", "group"] | None = None
    """Normalisation layers of the hosts idisc and vpd: `batch` as published, `group` if
    micro-batches are too small for it."""
    protocol: Literal["ours", "host"] | None = None
    """`host` trains like the released code of the host where that differs from ours. The file of
    the host lists the differences."""
    host_options: dict[str, Any] | None = None
    """Other settings of the host by their names in its file, such as {farthest: 80}."""
    revision: str | None = None
    """Branch, tag or commit of a base on the Hub."""
    variant: str | None = None
    """Variant of the base's weights, such as fp16."""
    base_config: str | None = None
    """Folder or Hub id with the configs of a base that is one file. None asks the Hub for the
    configs of the release that the file looks like."""
    prediction_type: Literal["epsilon", "v_prediction"] | None = None
    """What the U-Net of the base predicts. None takes it from its configs; if they do not state it,
    its denoising error decides."""

    def check(self) -> None:
        """Refuse impossible values."""
        require_between(self, 1, LARGEST, "width")


@dataclass(kw_only=True)
class LoraSettings:
    """LoRA (with --train_unet lora)"""

    rank: int = 16
    """Rank of the LoRA."""
    lora_alpha: float | None = None
    """The LoRA is scaled by alpha / rank. None takes the rank as alpha, which is a scale of 1."""
    lora_dropout: float = 0.0
    """Dropout of the LoRA's input."""
    lora_layers: str = "to_q,to_k,to_v,to_out.0"
    """Comma-separated ends of names. Layers whose names end with one of them get a LoRA."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) instead."""

    def check(self) -> None:
        """Refuse impossible values."""
        require_between(self, 1, LARGEST, "rank")
        if not 0 <= self.lora_dropout < 1:
            raise InputError(f"--lora_dropout {self.lora_dropout}: expected 0 to below 1")
        if self.lora_alpha is not None and self.lora_alpha <= 0:
            raise InputError(f"--lora_alpha {self.lora_alpha}: expected more than 0")


@dataclass(kw_only=True)
class WarmUpSettings(ModelSettings, LoraSettings, TrainSettings):
    """Stage 1: train a fresh host on real labels."""

    base: str = "rooms"
    """The diffusion model: an embedded base, or Stable Diffusion 1.x or 2.x as a folder or Hub id
    in diffusers layout, or as one .safetensors file."""
    host: str
    """The discriminative method that reads the pyramid, such as light (ours, any tasks). An unknown
    name gives a list of all; docs/hosts.md describes them."""
    tasks: str | None = None
    """Comma-separated. None takes all tasks that the source has labels for. A host for one task
    then takes the first that it can learn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "real_batch_size")
        if self.train_unet == "none" and self.denoise_weight:
            raise InputError("--denoise_weight needs a U-Net that is trained: --train_unet")
        if self.train_unet != "lora":
            refuse_without(self, LORA_SETTINGS, "--train_unet lora")


@dataclass(kw_only=True)
class CreatedSettings:
    """Created samples"""

    created_batch_size: int | None = None
    """Created samples in a micro-batch. None takes as many as real samples."""
    created_weight: float = 1.0
    """Weight of a created sample in the loss; a real one has 1. With 0, created samples are drawn
    but teach nothing: the real-only baseline of --mix union."""
    max_created_samples: int | None = None
    """Use only this many created samples, chosen at random (`subset_seed`). None takes all."""
    min_quality: dict[str, float] | None = None
    """Use only created samples with at least these scores: {TASK.SCORE: least value}, such as
    {semseg.flip: 0.9}. The scores are `confidence`, `flip` and `reencode`."""
    mix: Literal["paired", "union"] = "paired"
    """`paired` draws real and created samples in every step. `union` shuffles both together
    (authors)."""
    allow_leak: bool = False
    """Accept created samples that were made from samples that may be held out: images of the
    validation source, or samples of the source that are not in its split. The card then says so."""

    def check(self) -> None:
        """Refuse impossible values."""
        require_positive(self, "max_created_samples")
        require_between(self, 0, LARGEST, "created_batch_size")
        require_between(self, 0, math.inf, "created_weight")


@dataclass(kw_only=True)
class TeachingSettings:
    """Labels of created samples and perturbations"""

    belief_views: list[BeliefViewName] = field(default_factory=lambda: ["image", "mirror"])
    """theta_C predicts the labels of a created sample from these views, and averages the
    predictions: `image`, `mirror` (the mirrored image, encoded anew), `larger` (1.5 times as
    large). The paper uses the image alone."""
    created_labels: Literal["belief", "stored"] = "belief"
    """`belief`: theta_C predicts the labels anew in every step. `stored`: the labels in the dataset
    are used, for example frozen labels of the warm-up, or true labels of a `d2i1 import`."""
    feature_dropout: float = 0.5
    """Share of the channels of the pyramid that theta_E does not get of a created sample, drawn
    anew each time. theta_C always gets all. The paper has no dropout: 0."""
    real_feature_dropout: float = 0.0
    """The same for real samples."""
    cutmix: float = 1.0
    """Share of the created samples in which theta_E gets a rectangle, and its labels, of the next
    created sample in the micro-batch (CutMix, on the pyramid). A micro-batch with a single created
    sample has none. The paper has none: 0."""
    real_cutmix: float = 0.0
    """The same for real samples."""

    def check(self) -> None:
        """Refuse impossible values."""
        if not self.belief_views or len({*self.belief_views}) < len(self.belief_views):
            raise InputError(
                f"--belief_views {self.belief_views}: expected at least one view, each once"
            )
        for name in ("feature_dropout", "real_feature_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)}: expected 0 to below 1")
        for name in ("cutmix", "real_cutmix"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"--{name} {getattr(self, name)}: expected 0 to 1")


@dataclass(kw_only=True)
class FollowSettings:
    """Model: theta_C follows theta_E"""

    alpha: float | Literal["auto"] = "auto"
    """The share of itself that theta_C keeps at an update (paper: 0.998; 0.999 on PASCAL-Context).
    `auto` fits it to the number of updates, so that theta_C keeps a share of 0.15 of the warm-up
    at the end, as in the released code."""
    follow_every: int = 40
    """theta_C is updated each time theta_E has consumed this many samples (paper: 40)."""
    follow_buffers: bool = False
    """The running statistics of batch norm in theta_C follow those of theta_E like weights.
    Otherwise they are copied."""
    fresh_optimizer: bool = False
    """Start with an empty optimiser state, as the authors do, instead of the state of the
    warm-up."""
    base: str | None = None
    """Place of the base of a LoRA. None takes the place that the warm-up used, or the base that the
    adapter names."""

    def check(self) -> None:
        """Refuse impossible values."""
        require_positive(self, "follow_every")
        if self.alpha != "auto" and not 0 <= self.alpha <= 1:
            raise InputError(f"--alpha {self.alpha}: expected 0 to 1, or auto")


@dataclass(kw_only=True)
class SelfImproveSettings(CreatedSettings, TeachingSettings, FollowSettings, TrainSettings):
    """Stage 2: theta_E learns from real and created samples, theta_C follows theta_E."""

    pipeline: str
    """The pipeline that the warm-up wrote, or an adapter. theta_C and theta_E both start from it.
    The part of the U-Net that the warm-up trained is trained further."""
    created: str = "none"
    """A dataset that `d2i1 create` wrote, or `none` for the real-only baseline."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.real_batch_size + self.created_size < 1:
            raise InputError("--real_batch_size and --created_batch_size are both 0")
        if self.denoise_weight and (self.mix == "union" or not self.real_batch_size):
            raise InputError(
                "--denoise_weight needs real samples in every step: --mix paired and a"
                " --real_batch_size above 0"
            )
        if self.created != "none":
            return
        if self.mix == "union":
            raise InputError(
                "--mix union needs a --created dataset; its real-only baseline is --created_weight"
                " 0, which makes the same draws"
            )
        if not self.real_batch_size:
            raise InputError("--real_batch_size 0 needs a --created dataset")

    @property
    def predicts_labels(self) -> bool:
        """Whether theta_C predicts labels of created samples while training."""
        return self.created_labels == "belief" and self.created_weight > 0

    @property
    def created_size(self) -> int:
        """Created samples in a micro-batch."""
        given = self.created_batch_size
        return self.real_batch_size if given is None else given

    def choose_alpha(self, consumed: int) -> float:
        """The share of itself that theta_C keeps at an update.

        `auto` leaves theta_C a share of 0.15 of the warm-up at the end of the run, whatever its
        length. The released code's schedule leaves as much.

        Args:
            consumed: samples that all processes consume in a step.
        """
        if self.alpha != "auto":
            return self.alpha
        updates = self.max_train_steps * consumed // self.follow_every
        return float(WARM_UP_SHARE ** (1 / max(updates, 1)))

    def deciding(self, processes: int) -> dict[str, Any]:
        facts = super().deciding(processes)
        facts.pop("base")  # the pipeline decides it; this is only its new place
        size = self.real_batch_size + self.created_size
        micro_batches = self.gradient_accumulation_steps * processes
        return facts | {"alpha": self.choose_alpha(size * micro_batches)}


@dataclass(kw_only=True)
class ScoringSettings:
    """Scoring"""

    protocol: Protocols | None = None
    """How a published program scores one task. It sets crop, farthest and average; these flags
    override it. Only its task is scored."""
    crop: str | None = None
    """Score only these rows and columns of the truth. 45:471,41:601 scores rows 45 to 470 and
    columns 41 to 600, which is usual for depth of NYUv2."""
    farthest: float | None = None
    """Distance in metres. Truth beyond it counts as unknown, and predictions are clipped to it
    (depth of NYUv2: 10)."""
    average: Literal["pixels", "images"] | None = None
    """`pixels` computes metrics over the pixels of all images. `images` averages the metrics of
    single images, without images that have no known pixel (iDisc, VPD's depth). None takes that of
    the protocol; without one, pixels."""
    sparsification: str | None = None
    """A .png file for a figure. It shows how the error over all pixels falls when the most
    uncertain pixels are left out. output_file gets the curves."""

    def check(self) -> None:
        """Refuse impossible values."""
        if self.farthest is not None and not 0 < self.farthest < math.inf:
            raise InputError(f"--farthest {self.farthest:g}: expected more than 0 metres")
        if self.sparsification and not self.sparsification.endswith(".png"):
            raise InputError(f"--sparsification {self.sparsification}: expected a .png file")
        if self.sparsification:
            require_library("matplotlib", "plots", "--sparsification")


@dataclass(kw_only=True)
class EvaluateSettings(PredictionSettings, ScoringSettings):
    """Score a pipeline against the labels of a source."""

    pipeline: str
    """Folder or Hub id of a Diff2in1Pipeline."""
    source: str
    """Labelled data: {labelled_sources}."""
    output_file: str | None = None
    """JSON file for the metrics."""
    theta: Literal["creation", "exploitation"] = "creation"
    """`creation` scores theta_C, which the pipeline holds. `exploitation` scores theta_E from the
    checkpoint beside it."""
    max_samples: int | None = None
    """Use only this many samples of the source, chosen at random. None takes all."""
    subset_seed: int | None = 0
    """Decides which samples `max_samples` chooses: always the same for one source. Fewer are part
    of more. null takes the first samples."""
    min_quality: dict[str, float] | None = None
    """Use only samples with at least these scores: {TASK.SCORE: least value}. Only for a source
    dataset:PATH_OR_ID."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """`stop` ends at a row that cannot be used. `skip` leaves such rows out, without others
    in their place, and lists them in output_file."""

    def __post_init__(self) -> None:
        require_positive(self, "max_samples")
        PredictionSettings.check(self)
        ScoringSettings.check(self)


@dataclass(kw_only=True)
class DemoSettings:
    """Run the whole method on the embedded base and show the results."""

    output_dir: str = "runs/demo"
    """Folder for everything the demo writes."""
    real: int = 24
    """Labelled rooms to learn from."""
    created: int = 192
    """Rooms to create."""
    warm_up_steps: int = 2000
    """Steps of the warm-up."""
    self_improve_steps: int = 500
    """Steps of self-improving, and of each real-only baseline."""
    num_inference_steps: int = 25
    """U-Net calls for each created image."""
    strength: float = 0.6
    """Noise level T / 1000, in (0, 1], of the variations of labelled rooms. The other half of the
    created rooms is made from new captions at strength 1."""
    held_out: int = 300
    """Rooms to evaluate on, the same for every seed."""
    overwrite: bool = False
    """Delete the results of an earlier demo in output_dir."""
    seed: int = 0
    """Decides all random draws, and which rooms are labelled."""

    def __post_init__(self) -> None:
        steps = ("warm_up_steps", "self_improve_steps", "num_inference_steps")
        require_positive(self, *steps, "real", "created", "held_out")


@dataclass(kw_only=True)
class EnvSettings:
    """Print the versions that a bug report should contain."""
