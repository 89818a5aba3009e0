"""Settings of `d2i1 base`."""

import math
from dataclasses import dataclass, field
from typing import Literal

from d2i1_data.checks import LARGEST, require_between, require_positive
from d2i1_data.errors import InputError


@dataclass(kw_only=True)
class AutoencoderSettings:
    """Autoencoder"""

    vae_channels: list[int] = field(default_factory=lambda: [16, 32, 96])
    """Channels of each level, multiples of 8. Every level but the last halves the sides."""
    vae_layers: int = 1
    """Residual blocks in each level."""
    vae_steps: int = 4500
    """Optimiser steps."""
    vae_batch_size: int = 16
    """Images in a step."""
    vae_learning_rate: float = 1.5e-3
    """Highest learning rate."""


@dataclass(kw_only=True)
class DenoiserSettings:
    """U-Net and text encoder"""

    unet_channels: list[int] = field(default_factory=lambda: [64, 96, 128])
    """Channels of each level, multiples of 16."""
    unet_layers: int = 1
    """Residual blocks in each level."""
    unet_steps: int = 13_000
    """Optimiser steps."""
    unet_batch_size: int = 32
    """Images in a step."""
    unet_learning_rate: float = 1e-3
    """Highest learning rate."""
    snr_gamma: float = 5.0
    """Min-SNR weighting (Hang et al. 2023, arXiv 2303.09556). 0 turns it off."""
    caption_dropout: float = 0.1
    """Share of the captions that are replaced by the empty prompt, which perception and guidance
    use."""
    vocabulary: int = 1000
    """Largest number of tokens that the tokenizer learns."""
    text_length: int = 32
    """Largest number of tokens in a caption, including its start and end token."""
    text_width: int = 128
    """Width of the text encoder."""
    text_layers: int = 3
    """Layers of the text encoder."""


@dataclass(kw_only=True)
class BaseSettings(AutoencoderSettings, DenoiserSettings):
    """Train a small latent diffusion base from scratch on the images and captions of a source."""

    output_dir: str
    """Folder for pipeline/, checkpoints and previews."""
    source: str = "rooms:train"
    """Images with captions: {labelled_sources}."""
    evaluate: str | None = None
    """Score this base (a name, folder or Hub id) on the source instead of training one."""
    resolution: str | None = None
    """Longer side (512), shorter side (short:512; the longer side is then at most four times as
    long), or height x width (480x640). None keeps the sizes of the images."""
    captions: str | None = None
    """Captions by id, in place of those of the source: a file whose lines have the form
    {"id": "...", "caption": "..."}, such as `d2i1 caption` writes."""
    max_train_samples: int | None = None
    """Use only this many samples of the source, chosen at random. None takes all."""
    subset_seed: int | None = 0
    """Decides which samples `max_train_samples` chooses: always the same for one source, whatever
    `seed` is. Fewer are part of more. null takes the first samples."""
    random_flip: bool = True
    """Train on mirrored images too. Turn it off if captions say left or right."""
    ema_decay: float = 0.9995
    """The share of itself that the moving average of the weights keeps in a step."""
    checkpointing_steps: int = 500
    """Number of steps between checkpoints. Each checkpoint has a preview picture."""
    resume_from_checkpoint: str | None = None
    """`latest` continues a run in output_dir."""
    mixed_precision: Literal["bf16", "no"] = "bf16"
    """Precision of the computation."""
    dataloader_num_workers: int = 2
    """Processes that load the images."""
    seed: int = 0
    """Decides all random draws."""

    def __post_init__(self) -> None:
        steps = ("vae_steps", "unet_steps", "checkpointing_steps", "max_train_samples")
        require_positive(self, *steps, "vocabulary")
        sizes = ("vae_batch_size", "unet_batch_size", "vae_layers", "unet_layers")
        require_between(self, 1, LARGEST, *sizes)
        require_between(self, 0, LARGEST, "text_layers", "dataloader_num_workers")
        require_between(self, 3, LARGEST, "text_length")  # a start, a word and an end
        require_between(self, 32, LARGEST, "text_width")
        if self.text_width % (self.text_width // 32):
            raise InputError(f"--text_width {self.text_width}: expected a multiple of 32")
        require_between(self, 0, math.inf, "vae_learning_rate", "unet_learning_rate", "snr_gamma")
        require_between(self, 0, 1, "ema_decay", "caption_dropout")
        if self.resume_from_checkpoint not in (None, "latest"):
            raise InputError(
                f"--resume_from_checkpoint {self.resume_from_checkpoint}: expected latest"
            )
        for name, unit in (("vae_channels", 8), ("unet_channels", 16)):
            channels = getattr(self, name)
            if not channels or any(not unit <= c <= LARGEST or c % unit for c in channels):
                raise InputError(
                    f"--{name} {channels}: expected multiples of {unit}, at most {LARGEST}"
                )
