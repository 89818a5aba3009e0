"""Diff2in1Pipeline: one latent diffusion model that creates labelled images and perceives images.

Letters in shape comments: B batch, C channels, H W pixels, h w latent pixels, L tokens, D width.
"""

import importlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import diffusers
import numpy as np
import PIL.Image
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    ModelMixin,
    UNet2DConditionModel,
)
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import create_repo
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from .checkpoint import Base
from .ddim import denoise, timesteps
from .images import fit_longer_side, pad_to_stride, to_batches, to_uint8
from .joined import join_modules
from .windows import predict_in_windows

ADAPTER = "diff2in1"  # name of the LoRA that was trained, beside those of users
TOKENIZING = threading.Lock()  # a fast tokenizer keeps padding and truncation as its state
LabelsFrom = Literal["latent", "last_step", "image"]
CreateWith = Literal["base", "theta"]
Finished = dict[str, dict[str, list[Any]]]


@dataclass
class Diff2in1Output(BaseOutput):  # type: ignore[misc]
    """What a pipeline gives, one entry per image; images of one call may differ in size.

    images: PIL images, or [3, H, W] tensors in [0, 1] for `output_type="pt"`. predictions: by task,
    maps in the physical units of the task's family: unit vectors [H, W, 3], metres [H, W], class
    ids [H, W] uint8, probabilities [H, W]; tensors [C, H, W] for "pt". uncertainty: by task, in
    [0, 1], [H, W]; [1, H, W] for "pt". expected_error: how far off a prediction is expected to be,
    in the same form, of the tasks whose family says so: degrees for unit vectors, the size of the
    log of prediction over truth for distances.
    """

    images: list[Any]
    predictions: dict[str, list[Any]]
    uncertainty: dict[str, list[Any]]
    expected_error: dict[str, list[Any]]


class Diff2in1Pipeline(DiffusionPipeline, StableDiffusionLoraLoaderMixin):  # type: ignore[misc]
    """A Stable Diffusion base with a perception model that reads the features of its U-Net.

    `pipe(image, prompt)` creates a labelled variation of an image, `pipe.predict(image)` labels it.
    The default_* settings travel with the checkpoint and are used where a call says None.

    `unet` is theta's, the one that perceives. Where it was trained for that (`trained_unet` "lora"
    or "full"), it forgets in part how to create; `base_unet` is the base's own, for creation, and
    may be left out: `from_pretrained(..., base_unet=None)`.
    """

    model_cpu_offload_seq = "text_encoder->base_unet->unet->perception->vae"
    _optional_components: ClassVar = ["base_unet"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        perception: ModelMixin,
        base_unet: UNet2DConditionModel | None = None,
        base: str | None = None,
        base_revision: str | None = None,
        base_variant: str | None = None,
        trained_unet: str = "none",
        default_create_with: str = "base",
        default_strength: float = 0.6,
        default_num_inference_steps: int = 50,
        default_guidance_scale: float = 1.0,
        default_processing_resolution: int | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            perception=perception,
            base_unet=base_unet,
        )
        self.register_to_config(
            base=base,
            base_revision=base_revision,
            base_variant=base_variant,
            trained_unet=trained_unet,
            default_create_with=default_create_with,
            default_strength=default_strength,
            default_num_inference_steps=default_num_inference_steps,
            default_guidance_scale=default_guidance_scale,
            default_processing_resolution=default_processing_resolution,
        )
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.stride = self.vae_scale_factor * 2 ** (len(unet.config.block_out_channels) - 1)

    @classmethod
    def from_base(
        cls, base: str | Base, host: str, tasks: dict[str, dict[str, Any]], **options: Any
    ) -> "Diff2in1Pipeline":
        """Mount a fresh host on a base.

        base: a Stable Diffusion checkpoint, see `Base`, or the name of an embedded one. tasks: see
        `Perception`. options: of the host, such as `width`.
        """
        hosts = importlib.import_module("d2i1_data.diff2in1.hosts").HOSTS  # not in published files
        if host not in hosts:
            raise ValueError(f"unknown host {host!r}: choose from {', '.join(hosts)}")
        base = find_base(base) if isinstance(base, str) else base
        hosts[host].check_options(**options)
        parts = base.load()
        perception = hosts[host].mount(parts, tasks, **options)
        return cls._mounted(base, parts, perception.eval())

    @classmethod
    def from_adapter(cls, adapter: str, base: str | Base | None = None) -> "Diff2in1Pipeline":
        """Open an adapter repository: a LoRA and a perception model on the base it names.

        adapter: a folder or Hub id. base: where the base lies, if the adapter does not name one
        that is embedded or on the Hub. The LoRA stays apart: creation can do without it.
        """
        config = cls.load_config(adapter)
        hosts = importlib.import_module("d2i1_data.diff2in1.hosts").HOSTS
        host = {kind.__name__: kind for kind in hosts.values()}.get(config["perception"][1])
        if host is None:
            raise ValueError(f"{adapter}: unknown host {config['perception'][1]}")
        if base is None:
            base = find_base(config["base"], config["base_revision"], config["base_variant"])
        base = find_base(base) if isinstance(base, str) else base
        perception = host.from_pretrained(adapter, subfolder="perception")
        pipe = cls._mounted(base, base.load(), perception.eval())
        pipe.register_to_config(**{k: v for k, v in config.items() if k in cls.settings()})
        pipe.load_lora_weights(adapter, adapter_name=ADAPTER)
        pipe.unet.eval()  # a LoRA arrives with its dropout at work
        return pipe

    @classmethod
    def _mounted(cls, base: Base, parts: Any, perception: ModelMixin) -> "Diff2in1Pipeline":
        return cls(
            vae=parts.vae,
            text_encoder=parts.text_encoder,
            tokenizer=parts.tokenizer,
            unet=parts.unet,
            scheduler=DDIMScheduler.from_config(parts.scheduler.config),
            perception=perception,
            base=Path(base.path).name if Path(base.path).exists() else base.path,
            base_revision=base.revision,
            base_variant=base.variant,
        )

    @classmethod
    def settings(cls) -> set[str]:
        """Names of what travels in the config beside the components."""
        return set(cls._get_signature_keys(cls)[1]) - {*cls._optional_components}

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        prompt: str | list[str] = "",
        strength: float | list[float] | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str = "",
        generator: torch.Generator | list[torch.Generator] | None = None,
        labels_from: LabelsFrom = "latent",
        create_with: CreateWith | None = None,
        height: int | None = None,
        width: int | None = None,
        output_type: str = "pil",
    ) -> Diff2in1Output:
        """Create a labelled variation of each image (paper Fig. 2, creation).

        image: see `images.to_batches`; all of one size. None: images are created from the prompts
        alone, from pure noise, at `height` x `width` pixels (the base's own size), strength 1.
        prompt: one, or one per image. strength: noise level T / 1000 in [0, 1], one, or one per
        image; 0 for all keeps the images and labels them. num_inference_steps: U-Net calls really
        made between T and 0, T / steps apart, the last at t = 1 (paper: 50); unlike diffusers'
        image-to-image, which makes int(steps * strength) calls. guidance_scale: 1 is none (paper).
        generator: one, or one per image. labels_from: "latent", one more pass on the final latent
        at t = 0; "last_step", the features of the last denoising call (paper; free); "image", the
        8-bit image encoded again, exactly what `predict` gives on it. create_with: whose U-Net
        denoises, the "base"'s own or "theta"'s; one and the same unless it was trained.
        output_type: "pil" (arrays for maps) or "pt".
        """
        # 1. Settings of the call, else of the checkpoint
        if strength is None:
            strength = 1.0 if image is None else self.config.default_strength
        create_with = create_with or self.config.default_create_with
        self.check_creation(labels_from, create_with)
        if strength == 0:
            return self.predict(image, output_type=output_type)
        size, pixels = self._canvas(image, height, width)
        count = len(prompt) if isinstance(prompt, list) else 1 if pixels is None else len(pixels)

        # 2. Latents by partial noising and denoising
        latents, pyramid = self.create_latents(
            pixels if pixels is not None else size,
            [prompt] * count if isinstance(prompt, str) else prompt,
            [strength] * count if isinstance(strength, int | float) else strength,
            num_inference_steps,
            guidance_scale,
            negative_prompt,
            generator,
            create_with,
            see=labels_from == "last_step",
        )

        # 3. Decoding, then labels
        created = self.decode_latents(latents)[..., : size[0], : size[1]]  # [B, 3, H, W]
        images = self._images(created.split(1), output_type)
        if labels_from == "image":
            seen = self.predict(list(to_uint8(created)), output_type=output_type)
            return Diff2in1Output(**{**seen, "images": images})
        found = self._finish(self.perceive(latents, size, pyramid), output_type)
        self.maybe_free_model_hooks()
        return Diff2in1Output(images=images, **found)

    def _canvas(
        self, image: Any, height: int | None, width: int | None
    ) -> tuple[tuple[int, int], Tensor | None]:
        """The size in pixels of what is created, and the images [B, 3, H, W] it comes from."""
        if image is None:
            own = self.unet.config.sample_size
            own = (own, own) if isinstance(own, int) else own
            height, width = (
                given or side * self.vae_scale_factor
                for given, side in zip((height, width), own, strict=True)
            )
            return (height, width), None
        if height is not None or width is not None:
            raise ValueError("height and width are for creating without an image, which has a size")
        batches = to_batches(image)
        sizes = sorted({(batch.shape[2], batch.shape[3]) for batch in batches})
        if len(sizes) != 1:
            raise ValueError(f"images of sizes {sizes}: expected one size in a call that creates")
        return sizes[0], torch.cat(batches).to(self._execution_device)

    @torch.no_grad()
    def create_latents(
        self,
        start: Tensor | tuple[int, int],
        prompts: list[str],
        strengths: list[float],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str = "",
        generator: torch.Generator | list[torch.Generator] | None = None,
        create_with: CreateWith = "base",
        see: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Scaled latents [B, C, h, w] of created images, and the pyramid of the last call if `see`.

        start: images [B, 3, H, W] in [-1, 1], or the size (H, W) where there are none. prompts and
        strengths: of each image; otherwise as in a call of the pipeline.
        """
        config, count = self.config, len(prompts)
        default_steps = config.default_num_inference_steps
        steps = default_steps if num_inference_steps is None else num_inference_steps
        guidance = config.default_guidance_scale if guidance_scale is None else guidance_scale
        given = count if isinstance(start, tuple) else len(start)
        listed = generator if isinstance(generator, list) else [generator] * given
        for what, found in (("prompts", prompts), ("strengths", strengths), ("generators", listed)):
            if len(found) != given:
                raise ValueError(f"{len(found)} {what} for {given} images")

        # 1. Contexts: the prompts', and for guidance the negative prompt's
        context = self.encode_prompt(prompts)  # [B, L, D]
        if guidance != 1:
            context = torch.cat([context, self.encode_prompt([negative_prompt] * count)])

        # 2. Partial noising: the noise is added at the first timestep
        train_steps = self.scheduler.config.num_train_timesteps
        schedule = torch.tensor([timesteps(s, steps, train_steps) for s in strengths]).T  # [S, B]
        device = context.device
        if isinstance(start, tuple):
            if min(strengths) < 1:
                raise ValueError(f"strength {min(strengths)} without an image: expected 1")
            h, w = (-(-side // self.stride) * self.stride for side in start)
            factor, channels = self.vae_scale_factor, self.unet.config.in_channels
            shape = (count, channels, h // factor, w // factor)
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        else:
            latents = self.encode_image(pad_to_stride(start, self.stride)).float()
            noise = randn_tensor(
                latents.shape, generator=generator, device=device, dtype=torch.float32
            )
            latents = self.scheduler.add_noise(latents, noise, schedule[0].to(device))

        # 3. Denoising
        with self._denoiser(create_with) as unet:
            return denoise(
                unet,
                self.scheduler,
                latents,
                schedule,
                context,
                guidance,
                see=see,
                progress=self.progress_bar,
            )

    def check_creation(self, labels_from: str, create_with: str) -> None:
        """Raise ValueError where this pipeline cannot create and label so."""
        if labels_from not in ("latent", "last_step", "image"):
            raise ValueError(f"labels_from {labels_from!r}: expected latent, last_step or image")
        if create_with not in ("base", "theta"):
            raise ValueError(f"create_with {create_with!r}: expected base or theta")
        if labels_from == "last_step" and self.perception.own_context is not None:
            raise ValueError(
                "labels_from='last_step' needs a host that reads the caption's context"
            )
        if create_with == "theta" or self.config.trained_unet == "none":
            return
        if labels_from == "last_step":
            raise ValueError("labels_from='last_step' reads theta's features: create with 'theta'")
        adapters = set(getattr(self.unet, "peft_config", None) or ())
        if adapters - {ADAPTER}:
            others = ", ".join(sorted(adapters - {ADAPTER}))
            raise ValueError(
                f"create_with='base' leaves out your LoRA {others}: create with 'theta'"
            )
        if self.base_unet is None and not adapters:
            raise ValueError(
                "create_with='base': this pipeline holds only the trained U-Net;"
                " create with 'theta', or load it with base_unet=..."
            )

    @contextmanager
    def _denoiser(self, create_with: CreateWith) -> Iterator[UNet2DConditionModel]:
        """The U-Net to create with: theta's, the base's beside it, or theta's without its LoRA."""
        if create_with == "theta" or self.config.trained_unet == "none":
            yield self.unet
        elif self.base_unet is not None:
            yield self.base_unet
        else:
            self.unet.disable_adapters()
            try:
                yield self.unet
            finally:
                self.unet.enable_adapters()

    @torch.no_grad()
    def predict(
        self,
        image: Any,
        processing_resolution: int | None = None,
        flip: bool = False,
        window: int | None = None,
        batch_size: int = 8,
        output_type: str = "pil",
    ) -> Diff2in1Output:
        """Label images of any size; the same input gives the same output.

        The latent is the posterior's mode, without noise; the U-Net looks at it as the host wants,
        which is at t = 0 under the empty prompt unless that says otherwise. processing_resolution:
        longer side the model works at, 0 for the image's own; answers have the input's size. flip:
        average with the mirrored image. window: side of overlapping square windows, two
        thirds of it apart, instead of the whole image at once. output_type: as for creating.
        """
        batches = to_batches(image)
        total: Finished = {}
        for _, same in groupby(batches, lambda batch: batch.shape[2:]):
            group = list(same)
            for start in range(0, len(group), batch_size):
                pixels = torch.cat(group[start : start + batch_size]).to(self._execution_device)
                raw = self.raw_maps(pixels, processing_resolution, flip, window)
                for kind, tasks in self._finish(raw, output_type).items():
                    known = total.setdefault(kind, {})
                    for name, maps in tasks.items():
                        known.setdefault(name, []).extend(maps)
        self.maybe_free_model_hooks()
        return Diff2in1Output(images=self._images(batches, output_type), **total)

    @torch.no_grad()
    def raw_maps(
        self,
        pixels: Tensor,
        processing_resolution: int | None = None,
        flip: bool = False,
        window: int | None = None,
    ) -> dict[str, Tensor]:
        """What `predict` finishes, [B, R, H, W], of images [B, 3, H, W] in [-1, 1]."""
        families, size = self.perception.families, (pixels.shape[2], pixels.shape[3])
        default = self.config.default_processing_resolution
        resolution = default if processing_resolution is None else processing_resolution or None
        pixels = fit_longer_side(pixels, resolution)

        def see(part: Tensor) -> dict[str, Tensor]:
            latents = self.encode_image(pad_to_stride(part, self.stride))
            raw = self.perceive(latents, (part.shape[2], part.shape[3]))
            return {name: families[name].to_linear(one) for name, one in raw.items()}

        settled = predict_in_windows(see, pixels, window)
        if flip:
            mirrored = predict_in_windows(see, pixels.flip(-1), window)
            settled = {n: (s + families[n].flip(mirrored[n])) / 2 for n, s in settled.items()}
        settled = {n: F.interpolate(s, size, mode="bilinear") for n, s in settled.items()}
        return {name: families[name].from_linear(one) for name, one in settled.items()}

    def perceive(
        self, latents: Tensor, size: tuple[int, int], pyramid: tuple[Tensor, ...] | None = None
    ) -> dict[str, Tensor]:
        """Raw maps [B, R, *size] from scaled latents [B, C, h, w], or from a pyramid of them."""
        maps: dict[int, Tensor] = {}
        if pyramid is None:
            seen = self.perception.see(
                self.unet, latents.to(self.unet.dtype), self.perception_context()
            )
            pyramid = seen.pyramid
            maps = {level: one.to(self.perception.dtype) for level, one in seen.maps.items()}
        pyramid = tuple(level.to(self.perception.dtype) for level in pyramid)
        factor = self.vae_scale_factor
        padded = (pyramid[0].shape[2] * factor, pyramid[0].shape[3] * factor)
        raw = self.perception(pyramid, padded, maps)
        return {n: r[..., : size[0], : size[1]].float().contiguous() for n, r in raw.items()}

    def perception_context(self) -> Tensor:
        """What perception conditions the U-Net on, unless its host has its own: the empty prompt's
        embedding, [1, L, D]."""
        return self.encode_prompt([""])

    def encode_prompt(self, prompts: list[str]) -> Tensor:
        """Text embeddings [B, L, D]."""
        ids = self.tokenize(prompts).to(self._execution_device)
        return self.text_encoder(ids).last_hidden_state

    def tokenize(self, prompts: list[str]) -> Tensor:
        """Token ids [B, L]; may be called by several threads."""
        with TOKENIZING:
            found = self.tokenizer(
                prompts, padding="max_length", truncation=True, return_tensors="pt"
            )
        return found.input_ids

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Scaled latents, the mode of the posterior, [B, C, h, w], of [B, 3, H, W] in [-1, 1]."""
        latents = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()
        return latents * self.vae.config.scaling_factor

    def decode_latents(self, latents: Tensor) -> Tensor:
        """[B, 3, H, W], about [-1, 1]; what is beyond is cut when images are made of it."""
        scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        return self.vae.decode(scaled).sample.float()

    def _finish(self, raw: dict[str, Tensor], output_type: str) -> Finished:
        """What an output holds beside images: by kind, by task, one entry per image."""
        found: Finished = {"predictions": {}, "uncertainty": {}, "expected_error": {}}
        for name, family in self.perception.families.items():
            own = (family.finish, family.uncertainty, family.expected_error)
            for kind, make in zip(found, own, strict=True):
                maps = make(raw[name])
                if maps is None:
                    continue
                to_array = family.to_array if kind == "predictions" else _to_array
                found[kind][name] = [m if output_type == "pt" else to_array(m) for m in maps]
        return found

    @staticmethod
    def _images(batches: Any, output_type: str) -> list[Any]:
        if output_type == "pt":
            return [(one.clamp(-1, 1).cpu() + 1) / 2 for batch in batches for one in batch]
        arrays: list[NDArray[np.uint8]] = [one for batch in batches for one in to_uint8(batch)]
        return [PIL.Image.fromarray(array) for array in arrays]

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *options: Any,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str | None = None,
        create_pr: bool = False,
        **more: Any,
    ) -> None:
        """Write everything, with the code of pipeline and host as one file each.

        The folder loads with this package, or without it by `custom_pipeline` and
        `trust_remote_code=True`. An adapter must be fused first: a base saved with an un-fused one
        would load again with random weights. push_to_hub: send the folder with a card, once it is
        complete, to repo_id, by default the folder's name; `d2i1 publish` does that patiently.
        """
        for name in ("unet", "base_unet", "text_encoder"):
            if getattr(getattr(self, name), "peft_config", None):
                raise ValueError(
                    f"{name} has a LoRA adapter: call fuse_lora() and unload_lora_weights() first"
                )
        super().save_pretrained(save_directory, *options, **more)
        folder = Path(save_directory)
        (folder / "pipeline.py").write_text(join_modules(type(self).__module__))
        write_index(folder, perception=["diff2in1", type(self.perception).__name__])
        if push_to_hub:
            self._push(folder, repo_id or folder.name, private, token, commit_message, create_pr)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
    ) -> str:
        """Send what `save_pretrained` writes, with a card; its commit. diffusers' own way would
        send an empty card, and not the code."""
        if subfolder:
            raise ValueError(f"subfolder {subfolder!r}: a pipeline loads from the top only")
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, safe_serialization, variant)
            return self._push(Path(folder), repo_id, private, token, commit_message, create_pr)

    def _push(
        self,
        folder: Path,
        repo_id: str,
        private: bool | None,
        token: str | None,
        commit_message: str | None,
        create_pr: bool,
    ) -> str:
        name = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        write_card(folder, name)
        return str(self._upload_folder(folder, name, token, commit_message, create_pr))


def _to_array(one: Tensor) -> NDArray[np.float32]:
    """A map [1, H, W] as an array [H, W]."""
    return one[0].float().cpu().numpy()


def find_base(name: str, revision: str | None = None, variant: str | None = None) -> Base:
    """A base by name; an embedded one's folder is known to our package, not to published files."""
    base: Base = importlib.import_module("d2i1_data.checkpoints.bases").find_base(
        name, revision, variant
    )
    return base


def write_card(folder: Path, name: str) -> None:
    """README.md; a published file, without our package, leaves it to whoever publishes again."""
    try:
        card = importlib.import_module("d2i1_data.card")
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("d2i1_data"):
            raise
        return
    card.write_model_card(folder, card.Links(name=name))


def write_index(folder: Path, **entries: Any) -> None:
    """Add to model_index.json, and leave paths of this machine out of it and of every config."""
    file = folder / "model_index.json"
    new = {"_class_name": "Diff2in1Pipeline", "_diffusers_version": diffusers.__version__}
    index = json.loads(file.read_text()) if file.is_file() else new
    entries["_class_name"] = "Diff2in1Pipeline"
    file.write_text(json.dumps(index | entries))
    for config in (file, *folder.glob("*/config.json")):
        content = json.loads(config.read_text())
        content.pop("_name_or_path", None)
        config.write_text(json.dumps(content, indent=2) + "\n")
