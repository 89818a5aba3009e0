"""What can be set when a small base is trained from nothing."""

from dataclasses import dataclass, field
from typing import Literal

from d2i1_data.checks import require_positive
from d2i1_data.errors import InputError


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
