"""A base: the Stable Diffusion checkpoint that everything else is mounted on."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

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
        """All parts but the safety checker, in float32; nothing is ever unpickled."""
        if self.is_file:
            options = {**self._single_file(), **UNLOADED}
            return StableDiffusionPipeline.from_single_file(self.path, **options)
        options = {**self._folder(), **UNLOADED}
        return StableDiffusionPipeline.from_pretrained(self.path, **options)

    def load_unet(self) -> UNet2DConditionModel:
        """The U-Net alone, as `load` gives it."""
        if self.is_file:
            options = {**self._single_file(), "subfolder": "unet"}
            return UNet2DConditionModel.from_single_file(self.path, **options)
        return UNet2DConditionModel.from_pretrained(self.path, subfolder="unet", **self._folder())

    def _folder(self) -> dict[str, Any]:
        own = {"revision": self.revision, "variant": self.variant}
        return {**own, "dtype": torch.float32, "use_safetensors": True}

    def _single_file(self) -> dict[str, Any]:
        own = {} if self.config is None else {"config": self.config}
        return {**own, "dtype": torch.float32}
