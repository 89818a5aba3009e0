"""A base: the Stable Diffusion checkpoint that hosts are mounted on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from .backbone import PREDICTION_TYPES
from .one_pass import check_supported

# bases that come with the package; code in a published checkpoint does not have this folder
EMBEDDED = Path(__file__).resolve().parent.parent / "bases"
# the safety checker has 1.2 GB, and silently replaces images by black ones, even in training
UNLOADED = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


@dataclass(frozen=True)
class Base:
    """The place of a Stable Diffusion 1.x or 2.x checkpoint.

    Args:
        path: a folder in diffusers layout, a Hub id, or one `.safetensors` file in the layout of
            the original release.
        revision: branch, tag or commit on the Hub.
        variant: variant of the weight files, such as `fp16`.
        config: for a single file, the folder or Hub id with its configs and tokenizer. With None,
            diffusers recognises known releases and reads their configs from the Hub.
    """

    path: str
    revision: str | None = None
    variant: str | None = None
    config: str | None = None

    @classmethod
    def named(cls, name: str, revision: str | None = None, variant: str | None = None) -> "Base":
        """The base with the name of an embedded base, or with this path. It is not checked.

        Args:
            name: name of an embedded base, a folder, a file or a Hub id.
            revision: see `Base`.
            variant: see `Base`.
        """
        if Path(name).name == name and (EMBEDDED / name / "model_index.json").is_file():
            return cls(str(EMBEDDED / name), variant=variant)
        return cls(name, revision, variant)

    @property
    def is_file(self) -> bool:
        """Whether everything is in one file."""
        return self.path.endswith(".safetensors")

    def load(self) -> StableDiffusionPipeline:
        """Load all parts but the safety checker, in float32. Nothing is ever unpickled.

        Raises:
            ValueError: if a part is incomplete, or the checkpoint is of another kind.
        """
        if self.is_file:
            options = {**self._single_file(), **UNLOADED}
            parts = StableDiffusionPipeline.from_single_file(self.path, **options)
        else:
            # transformers fills missing weights with random numbers; `loading_info` lists them
            encoder, loading_info = CLIPTextModel.from_pretrained(
                self.path, subfolder="text_encoder", output_loading_info=True, **self._folder()
            )
            if missing := sorted(loading_info["missing_keys"]):
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
        if parts.scheduler.config.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"prediction type {parts.scheduler.config.prediction_type!r}:"
                f" expected {' or '.join(PREDICTION_TYPES)}"
            )
        return parts

    def load_unet(self) -> UNet2DConditionModel:
        """Load the U-Net alone, as `load` does."""
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
    """Check that the checkpoint had weights for all parameters of a part.

    Raises:
        ValueError: if weights are missing; the message names some of them.
    """
    missing = [key for key, parameter in part.named_parameters() if parameter.is_meta]
    if missing:
        raise ValueError(f"{name} lacks {', '.join(missing[:3])}")
