"""Diff2in1Pipeline: one latent diffusion model that creates labelled images and perceives images.

Letters in shape comments: B batch, C channels, H W pixels, h w latent pixels, L tokens, D width.
"""

import importlib
import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

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
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from .ddim import ddim_step, timesteps
from .images import fit_longer_side, pad_to_stride, to_batches, to_uint8
from .joined import join_modules
from .one_pass import one_pass, pyramid_channels

LabelsFrom = Literal["latent", "last_step", "image"]


@dataclass
class Diff2in1Output(BaseOutput):  # type: ignore[misc]
    """What a pipeline gives, one entry per image; images of one call may differ in size.

    images: PIL images, or [3, H, W] tensors in [0, 1] for `output_type="pt"`. predictions: by task,
    maps in the physical units of the task's family: unit vectors [H, W, 3], metres [H, W], class
    ids [H, W] uint8, probabilities [H, W]; tensors [C, H, W] for "pt". uncertainty: by task, in
    [0, 1], [H, W]; [1, H, W] for "pt".
    """

    images: list[Any]
    predictions: dict[str, list[Any]]
    uncertainty: dict[str, list[Any]]


class Diff2in1Pipeline(DiffusionPipeline, StableDiffusionLoraLoaderMixin):  # type: ignore[misc]
    """A Stable Diffusion base with a perception model that reads the features of its U-Net.

    `pipe(image, prompt)` creates a labelled variation of an image, `pipe.predict(image)` labels it.
    The default_* settings travel with the checkpoint and are used where a call says None.
    """

    model_cpu_offload_seq = "text_encoder->unet->perception->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        perception: ModelMixin,
        base: str | None = None,
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
        )
        self.register_to_config(
            base=base,
            default_strength=default_strength,
            default_num_inference_steps=default_num_inference_steps,
            default_guidance_scale=default_guidance_scale,
            default_processing_resolution=default_processing_resolution,
        )
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.stride = self.vae_scale_factor * 2 ** (len(unet.config.block_out_channels) - 1)

    @classmethod
    def from_base(
        cls, base: str, host: str, tasks: dict[str, dict[str, Any]], **options: Any
    ) -> "Diff2in1Pipeline":
        """Mount a fresh host on a base.

        base: a Stable Diffusion checkpoint in diffusers layout, a folder or a Hub id. tasks: see
        `Perception`. options: of the host, such as `width`.
        """
        hosts = importlib.import_module("d2i1_data.diff2in1.hosts").HOSTS  # not in published files
        if host not in hosts:
            raise ValueError(f"unknown host {host!r}: choose from {', '.join(hosts)}")
        parts = {
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }
        loaded = DiffusionPipeline.from_pretrained(base, dtype=torch.float32, **parts)
        perception = hosts[host](tasks, pyramid_channels(loaded.unet), **options)
        return cls(
            vae=loaded.vae,
            text_encoder=loaded.text_encoder,
            tokenizer=loaded.tokenizer,
            unet=loaded.unet,
            scheduler=DDIMScheduler.from_config(loaded.scheduler.config),
            perception=perception.eval(),
            base=Path(base).name if Path(base).is_dir() else base,
        )

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        prompt: str | list[str] = "",
        strength: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str = "",
        generator: torch.Generator | list[torch.Generator] | None = None,
        labels_from: LabelsFrom = "latent",
        output_type: str = "pil",
    ) -> Diff2in1Output:
        """Create a labelled variation of each image (paper Fig. 2, creation).

        image: see `images.to_batches`; all of one size. prompt: one, or one per image. strength:
        noise level T / 1000 in [0, 1]; 0 keeps the image and labels it. num_inference_steps: U-Net
        calls really made between T and 0, T / steps apart, the last at t = 1 (paper: 50); unlike
        diffusers' image-to-image, which makes int(steps * strength) calls. guidance_scale: 1 is
        none (paper). generator: one, or one per image. labels_from: "latent", one more pass on the
        final latent at t = 0; "last_step", the features of the last denoising call (paper; free);
        "image", the 8-bit image encoded again, exactly what `predict` gives on it. output_type:
        "pil" (arrays for maps) or "pt".
        """
        # 1. Settings of the call, else of the checkpoint
        strength = self.config.default_strength if strength is None else strength
        default_steps = self.config.default_num_inference_steps
        steps = default_steps if num_inference_steps is None else num_inference_steps
        guidance = self.config.default_guidance_scale if guidance_scale is None else guidance_scale
        if labels_from not in ("latent", "last_step", "image"):
            raise ValueError(f"labels_from {labels_from!r}: expected latent, last_step or image")
        if labels_from == "last_step" and self.perception.own_context is not None:
            raise ValueError(
                "labels_from='last_step' needs a host that reads the caption's context"
            )
        batches = to_batches(image)
        if strength == 0:
            kept = self.predict(image, output_type=output_type)
            return Diff2in1Output(
                self._images(batches, output_type), kept.predictions, kept.uncertainty
            )
        sizes = sorted({(batch.shape[2], batch.shape[3]) for batch in batches})
        if len(sizes) != 1:
            raise ValueError(f"images of sizes {sizes}: expected one size in a call that creates")
        size = sizes[0]
        if isinstance(generator, list) and len(generator) != len(batches):
            raise ValueError(f"{len(generator)} generators for {len(batches)} images")
        pixels = torch.cat(batches).to(self._execution_device)  # [B, 3, H, W]

        # 2. Contexts: the caption's, and for guidance the negative prompt's
        prompts = [prompt] * len(pixels) if isinstance(prompt, str) else prompt
        if len(prompts) != len(pixels):
            raise ValueError(f"{len(prompts)} prompts for {len(pixels)} images")
        context = self.encode_prompt(prompts)  # [B, L, D]
        if guidance != 1:
            context = torch.cat([context, self.encode_prompt([negative_prompt] * len(pixels))])

        # 3. Partial noising: the noise is added at the first timestep
        schedule = timesteps(strength, steps, self.scheduler.config.num_train_timesteps)
        latents = self.encode_image(pad_to_stride(pixels, self.stride)).float()  # [B, C, h, w]
        device, first = latents.device, torch.tensor([schedule[0]])
        noise = randn_tensor(latents.shape, generator=generator, device=device, dtype=torch.float32)
        latents = self.scheduler.add_noise(latents, noise, first.to(device))

        # 4. Denoising, in float32 between the calls
        pyramid = None
        for t, t_next in zip(self.progress_bar(schedule), [*schedule[1:], None], strict=False):
            doubled = torch.cat([latents] * (len(context) // len(latents))).to(self.unet.dtype)
            if t_next is None and labels_from == "last_step":
                output, pyramid = one_pass(self.unet, doubled, t, context)
                pyramid = tuple(level[: len(latents)] for level in pyramid)
            else:
                output = self.unet(doubled, t, context).sample
            if guidance != 1:
                wanted, unwanted = output.float().chunk(2)
                output = unwanted + guidance * (wanted - unwanted)
            latents = ddim_step(self.scheduler, output.float(), t, t_next, latents)

        # 5. Decoding, then labels
        created = self.decode_latents(latents)[..., : size[0], : size[1]]  # [B, 3, H, W]
        images = self._images(created.split(1), output_type)
        if labels_from == "image":
            seen = self.predict(list(to_uint8(created)), output_type=output_type)
            return Diff2in1Output(images, seen.predictions, seen.uncertainty)
        predictions, uncertainty = self._finish(self.perceive(latents, size, pyramid), output_type)
        self.maybe_free_model_hooks()
        return Diff2in1Output(images, predictions, uncertainty)

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

        The latent is the posterior's mode, t = 0, without noise, under the empty prompt.
        processing_resolution: longer side the model works at, 0 for the image's own; answers have
        the input's size.
        flip: average with the mirrored image. window: side of overlapping square windows, two
        thirds of it apart, instead of the whole image at once. output_type: as for creating.
        """
        batches = to_batches(image)
        default = self.config.default_processing_resolution
        resolution = default if processing_resolution is None else processing_resolution or None
        predictions: dict[str, list[Any]] = {name: [] for name in self.perception.families}
        uncertainty: dict[str, list[Any]] = {name: [] for name in self.perception.families}
        for size, same in groupby(batches, lambda batch: (batch.shape[2], batch.shape[3])):
            group = list(same)
            for start in range(0, len(group), batch_size):
                pixels = torch.cat(group[start : start + batch_size]).to(self._execution_device)
                worked = fit_longer_side(pixels, resolution)
                raw = self._raw(worked, window)
                if flip:
                    mirrored = self._raw(worked.flip(-1), window)
                    families = self.perception.families
                    raw = {n: (r + families[n].flip(mirrored[n])) / 2 for n, r in raw.items()}
                raw = {n: F.interpolate(r, size, mode="bilinear") for n, r in raw.items()}
                found, unsure = self._finish(raw, output_type)
                for name in predictions:
                    predictions[name] += found[name]
                    uncertainty[name] += unsure[name]
        self.maybe_free_model_hooks()
        return Diff2in1Output(self._images(batches, output_type), predictions, uncertainty)

    def _raw(self, pixels: Tensor, window: int | None) -> dict[str, Tensor]:
        """Raw maps at the size of the pixels, at once or averaged over windows."""
        height, width = pixels.shape[-2:]
        if window is None or max(height, width) <= window:
            return self.perceive(
                self.encode_image(pad_to_stride(pixels, self.stride)), (height, width)
            )
        total: dict[str, Tensor] = {}
        count = pixels.new_zeros(1, 1, height, width)
        for top in _starts(height, window):
            for left in _starts(width, window):
                area = (..., slice(top, top + window), slice(left, left + window))
                count[area] += 1
                for name, raw in self._raw(pixels[area], None).items():
                    whole = raw.new_zeros(*raw.shape[:2], height, width)
                    total.setdefault(name, whole)[area] += raw
        return {name: raw / count for name, raw in total.items()}

    def perceive(
        self, latents: Tensor, size: tuple[int, int], pyramid: tuple[Tensor, ...] | None = None
    ) -> dict[str, Tensor]:
        """Raw maps [B, R, *size] from scaled latents [B, C, h, w], or from a pyramid of them."""
        if pyramid is None:
            context = self.perception_context().expand(len(latents), -1, -1)
            pyramid = one_pass(self.unet, latents.to(self.unet.dtype), 0, context).pyramid
        factor = self.vae_scale_factor
        padded = (pyramid[0].shape[2] * factor, pyramid[0].shape[3] * factor)
        raw = self.perception(pyramid, padded)
        return {name: r[..., : size[0], : size[1]].contiguous() for name, r in raw.items()}

    def perception_context(self) -> Tensor:
        """What perception conditions the U-Net on, [1, L, D]: empty prompt or the host's own."""
        own = self.perception.own_context
        return self.encode_prompt([""]) if own is None else own

    def encode_prompt(self, prompts: list[str]) -> Tensor:
        """Text embeddings [B, L, D]."""
        ids = self.tokenizer(
            prompts, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        return self.text_encoder(ids.to(self._execution_device)).last_hidden_state

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Scaled latents, the mode of the posterior, [B, C, h, w], of [B, 3, H, W] in [-1, 1]."""
        latents = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()
        return latents * self.vae.config.scaling_factor

    def decode_latents(self, latents: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1]."""
        scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        return self.vae.decode(scaled).sample.float().clamp(-1, 1)

    def _finish(
        self, raw: dict[str, Tensor], output_type: str
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Predictions and uncertainty, one entry per image."""
        predictions, uncertainty = {}, {}
        for name, family in self.perception.families.items():
            found, unsure = family.finish(raw[name]), family.uncertainty(raw[name])
            if output_type == "pt":
                predictions[name], uncertainty[name] = list(found), list(unsure)
            else:
                predictions[name] = [family.to_array(one) for one in found]
                uncertainty[name] = [one[0].float().cpu().numpy() for one in unsure]
        return predictions, uncertainty

    @staticmethod
    def _images(batches: Any, output_type: str) -> list[Any]:
        if output_type == "pt":
            return [(one.cpu() + 1) / 2 for batch in batches for one in batch]
        arrays: list[NDArray[np.uint8]] = [one for batch in batches for one in to_uint8(batch)]
        return [PIL.Image.fromarray(array) for array in arrays]

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:  # type: ignore[override]
        """Write everything, with the code of pipeline and host as one file each.

        The folder loads with this package, or without it by `custom_pipeline` and
        `trust_remote_code=True`. An adapter must be fused first: a base saved with an un-fused one
        would load again with random weights.
        """
        for name in ("unet", "text_encoder"):
            if getattr(getattr(self, name), "peft_config", None):
                raise ValueError(
                    f"{name} has a LoRA adapter: call fuse_lora() and unload_lora_weights() first"
                )
        super().save_pretrained(save_directory, **options)
        folder = Path(save_directory)
        (folder / "pipeline.py").write_text(join_modules(type(self).__module__))
        host = type(self.perception)
        (folder / "perception" / "diff2in1.py").write_text(join_modules(host.__module__))
        for file in (folder / "model_index.json", *folder.glob("*/config.json")):
            content = json.loads(file.read_text())
            content.pop("_name_or_path", None)  # a path of this machine is nobody's business
            if file.name == "model_index.json":
                content["_class_name"] = "Diff2in1Pipeline"
                content["perception"] = ["diff2in1", host.__name__]
            file.write_text(json.dumps(content, indent=2) + "\n")


def _starts(length: int, window: int) -> list[int]:
    """Where windows begin so that they cover a side, about a third overlapping."""
    last = max(length - window, 0)
    count = 1 + -(-last * 3 // (2 * window))
    return [round(i * last / max(count - 1, 1)) for i in range(count)]
