"""A base: the Stable Diffusion checkpoint that everything else is mounted on."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from .one_pass import check_supported

# weighs 1.2 GB, and blackens what it takes for offence without a word to who trains on it
UNLOADED = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


@dataclass(frozen=True)
class Base:
    """Where a Stable Diffusion 1.x or 2.x checkpoint lies.

    path: a folder in diffusers layout, a Hub id, or one `.safetensors` file in the layout of the
    original release. revision: branch, tag or commit on the Hub. variant: such as `fp16`. config:
    for a single file, the folder or Hub id whose configs and tokenizer describe it; None lets
    diffusers infer one of the known releases and read its configs from the Hub.
    """

    path: str
    revision: str | None = None
    variant: str | None = None
    config: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether everything is in one file."""
        return self.path.endswith(".safetensors")

    def load(self) -> StableDiffusionPipeline:
        """All parts but the safety checker, in float32; nothing is ever unpickled.

        Raises ValueError where it is incomplete or of another kind.
        """
        if self.is_file:
            options = {**self._single_file(), **UNLOADED}
            parts = StableDiffusionPipeline.from_single_file(self.path, **options)
        else:
            # transformers fills what is missing with random numbers, but tells if asked
            encoder, found = CLIPTextModel.from_pretrained(
                self.path, subfolder="text_encoder", output_loading_info=True, **self._folder()
            )
            if missing := sorted(found["missing_keys"]):
                raise ValueError(f"text_encoder lacks {', '.join(missing[:3])}")
            options = {**self._folder(), **UNLOADED, "text_encoder": encoder}
            parts = StableDiffusionPipeline.from_pretrained(self.path, **options)
        for part in ("unet", "vae", "text_encoder"):
            check_complete(part, getattr(parts, part))
        check_supported(parts.unet)
        takes, gives = parts.unet.config.in_channels, parts.vae.config.latent_channels
        if takes != gives:
            raise ValueError(
                f"the U-Net takes {takes} channels, the autoencoder gives {gives}:"
                " one for inpainting, depth or upscaling cannot be a base"
            )
        if parts.scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"prediction type {parts.scheduler.config.prediction_type!r}:"
                " expected epsilon or v_prediction"
            )
        return parts

    def load_unet(self) -> UNet2DConditionModel:
        """The U-Net alone, as `load` gives it."""
        if self.is_file:
            options = {**self._single_file(), "subfolder": "unet"}
            unet = UNet2DConditionModel.from_single_file(self.path, **options)
        else:
            options = {**self._folder(), "subfolder": "unet"}
            unet = UNet2DConditionModel.from_pretrained(self.path, **options)
        check_complete("unet", unet)
        return unet

    def _folder(self) -> dict[str, Any]:
        own = {"revision": self.revision, "variant": self.variant}
        return {**own, "dtype": torch.float32, "use_safetensors": True}

    def _single_file(self) -> dict[str, Any]:
        own = {} if self.config is None else {"config": self.config}
        return {**own, "dtype": torch.float32}


def check_complete(name: str, part: nn.Module) -> None:
    """Raise ValueError if the checkpoint had no weights for some parameters."""
    missing = [key for key, parameter in part.named_parameters() if parameter.is_meta]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing[:3])}")
