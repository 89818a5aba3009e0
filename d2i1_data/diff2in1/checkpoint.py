"""A base: the Stable Diffusion checkpoint that hosts are mounted on."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    ModelMixin,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors import safe_open
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer, PreTrainedModel

from .backbone import PREDICTION_TYPES, has_zero_snr
from .one_pass import check_supported
from .prediction_type import find_prediction_type

# bases that come with the package; code in a published checkpoint does not have this folder
EMBEDDED = Path(__file__).resolve().parent.parent / "bases"
# the safety checker has 1.2 GB, and silently replaces images by black ones, even in training
UNLOADED = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

WEIGHED = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}


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
        prediction_type: what the U-Net predicts. None takes it from the configs. If they do not
            state it, or if diffusers chose them by the sizes of a single file, it is measured.
    """

    path: str
    revision: str | None = None
    variant: str | None = None
    config: str | None = None
    prediction_type: str | None = None

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
    def name(self) -> str:
        """Its id on the Hub, or the name of its folder or file; for the folder `pipeline` of a run
        that of the run."""
        path = Path(self.path)
        if not path.exists():
            return self.path
        run = path.parent.name if path.name == "pipeline" else ""
        return run or path.name

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
            weighed = {
                name: load_part(kind, self.path, name, **self._folder())
                for name, kind in WEIGHED.items()
            }
            options = {**self._folder(), **UNLOADED, **weighed, "use_safetensors": True}
            parts = StableDiffusionPipeline.from_pretrained(self.path, **options)
        for part in WEIGHED:
            check_complete(part, getattr(parts, part))
        check_tokenizer(parts.tokenizer, parts.text_encoder)
        check_supported(parts.unet)
        takes, gives = parts.unet.config.in_channels, parts.vae.config.latent_channels
        if takes != gives:
            raise ValueError(
                f"the U-Net takes {takes} channels, the autoencoder gives {gives}:"
                " one for inpainting, depth or upscaling cannot be a base"
            )
        self._settle_prediction_type(parts)
        return parts

    def _settle_prediction_type(self, parts: StableDiffusionPipeline) -> None:
        """Give the parts a scheduler that knows what the U-Net predicts."""
        config = parts.scheduler.config
        assumed = "prediction_type" in config.get("_use_default_values", ())
        guessed = self.is_file and self.config is None  # from the width of the text encoder
        kind = self.prediction_type or config.prediction_type
        if self.prediction_type is None and (assumed or guessed):
            kind = find_prediction_type(parts)
        if kind not in PREDICTION_TYPES:
            raise ValueError(f"prediction type {kind!r}: expected {' or '.join(PREDICTION_TYPES)}")
        schedule = DDIMScheduler.from_config(config, prediction_type=kind)
        if kind == "epsilon" and has_zero_snr(schedule):
            raise ValueError(
                "its schedule ends in pure noise, from which a U-Net that predicts epsilon cannot"
                " start; is --prediction_type v_prediction right?"
            )
        parts.register_modules(scheduler=schedule)

    def load_unet(self) -> UNet2DConditionModel:
        """Load the U-Net alone, as `load` does."""
        if self.is_file:
            options = {**self._single_file(), "subfolder": "unet"}
            unet = UNet2DConditionModel.from_single_file(self.path, **options)
            check_complete("unet", unet)
        else:
            unet = load_part(WEIGHED["unet"], self.path, "unet", **self._folder())
        return unet

    def _folder(self) -> dict[str, Any]:
        own = {"revision": self.revision, "variant": self.variant}
        return {**own, "dtype": torch.float32}

    def _single_file(self) -> dict[str, Any]:
        own = {} if self.config is None else {"config": self.config}
        return {**own, "dtype": torch.float32}


def load_part(kind: Any, path: str, name: str, **options: Any) -> Any:
    """Load a part with all its weights. Libraries alone fill missing weights with random numbers.

    Args:
        kind: class of the part.
        path: folder or Hub id of the checkpoint.
        name: name of the part, which is its subfolder.
        options: as for its `from_pretrained`.

    Raises:
        ValueError: if weights are missing or left over.
    """
    options |= {"subfolder": name, "output_loading_info": True, "use_safetensors": True}
    part, found = kind.from_pretrained(path, **options)
    check_keys(name, found["missing_keys"], found["unexpected_keys"])
    return part


def check_complete(name: str, part: nn.Module) -> None:
    """Check that the checkpoint had weights for all parameters of a part.

    Raises:
        ValueError: if weights are missing; the message names some of them.
    """
    check_keys(name, (key for key, one in part.named_parameters() if one.is_meta))


def check_parts(parts: Mapping[str, Any]) -> None:
    """Check the parts of a pipeline: their weights and configs, and the tokenizer.

    Raises:
        ValueError: if weights are missing or left over, a number of a config is none, or the
            tokenizer is another one.
    """
    for name, part in parts.items():
        check_stored(name, part)
        if isinstance(part, UNet2DConditionModel | AutoencoderKL):
            check_config(name, part)
    check_tokenizer(parts["tokenizer"], parts["text_encoder"])


def check_config(name: str, part: ModelMixin) -> None:
    """Check the numbers in a config of diffusers, which builds models from values of any type.

    Raises:
        ValueError: if a value is a text or an object where its default is a number.
    """
    for key, parameter in inspect.signature(type(part).__init__).parameters.items():
        value = part.config.get(key)
        if isinstance(parameter.default, int | float) and isinstance(value, str | Mapping):
            raise ValueError(f"{name}: {key} {value!r}: expected a number")


def check_stored(name: str, part: nn.Module) -> None:
    """Check that a part holds all the weights, and only those, of the pipeline it was loaded from.

    Libraries fill missing weights with random numbers and skip unknown ones, and their versions
    differ in the names that they know: transformers 5.0 to 5.5 reads no text encoder of 5.6.

    Raises:
        ValueError: if weights are missing or left over; the message names some of them.
    """
    if not isinstance(part, ModelMixin | PreTrainedModel) or getattr(part, "peft_config", None):
        return
    folder = Path(getattr(part.config, "_name_or_path", ""))
    if not (folder.parent / "perception").is_dir():
        return  # not a part of a folder of ours
    stored: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            stored.update(opened.keys())
    names, buffers = {key for key, _ in part.named_parameters()}, {*part.state_dict()}
    if stored and {f"text_model.{key}" for key in names} <= stored:  # the names before 5.6
        stored = {key.removeprefix("text_model.") for key in stored}
    check_keys(name, names - stored, stored - buffers)


def check_keys(name: str, missing: Iterable[str], unexpected: Iterable[str] = ()) -> None:
    """Check that no weights of a part are missing or left over.

    Raises:
        ValueError: otherwise; the message names some of them.
    """
    if few := ", ".join(sorted(missing)[:3]):
        raise ValueError(f"{name} lacks {few}: damaged, or of another version of a library")
    if few := ", ".join(sorted(unexpected)[:3]):
        raise ValueError(f"{name} has unknown {few}: damaged, or of another version of a library")


def check_tokenizer(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel) -> None:
    """Check that a tokenizer is the one of its text encoder.

    Without its file, transformers makes a tokenizer without words, which knows no caption.

    Raises:
        ValueError: if the sizes of their vocabularies or their longest prompts differ.
    """
    config = text_encoder.config
    if len(tokenizer) != config.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, the text encoder {config.vocab_size}"
        )
    if tokenizer.model_max_length > config.max_position_embeddings:
        raise ValueError(
            f"the tokenizer makes up to {tokenizer.model_max_length} tokens, the text encoder reads"
            f" {config.max_position_embeddings}"
        )
