"""Creation of labelled images: partial noising and denoising of scaled latents.

Letters in shape comments: B batch, C channels, H W pixels, h w latent pixels, S steps.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from .backbone import has_zero_snr
from .conditioning import Conditioning
from .ddim import timesteps
from .denoising import StepEnd, denoise
from .images import pad_to_stride
from .saving import LORA_NAME
from .schedulers import check_scheduler, make_sampler

LabelsFrom = Literal["latent", "last_step", "image"]
CreateWith = Literal["base", "theta"]


def check_creation(pipe: DiffusionPipeline, labels_from: str, create_with: str) -> None:
    """Check that a pipeline can create and label in this way.

    Args:
        pipe: the pipeline.
        labels_from: see `Diff2in1Pipeline.__call__`.
        create_with: see there.

    Raises:
        ValueError: if the pipeline cannot, or a value is unknown.
    """
    if labels_from not in ("latent", "last_step", "image"):
        raise ValueError(f"labels_from {labels_from!r}: expected latent, last_step or image")
    if create_with not in ("base", "theta"):
        raise ValueError(f"create_with {create_with!r}: expected base or theta")
    if labels_from == "last_step" and pipe.perception.has_own_conditioning:
        raise ValueError("labels_from='last_step' needs a host that reads the caption's context")
    check_scheduler(pipe.scheduler)
    check_freeu(pipe, labels_from, create_with)
    if create_with == "theta" or pipe.config.trained_unet == "none":
        return
    if labels_from == "last_step":
        raise ValueError("labels_from='last_step' reads theta's features: create with 'theta'")
    loras = set(getattr(pipe.unet, "peft_config", None) or ())
    if ignored := (loras | pipe.fused_loras) - {LORA_NAME}:
        others = ", ".join(sorted(ignored))
        raise ValueError(f"create_with='base' ignores your LoRA {others}: create with 'theta'")
    if pipe.base_unet is None and not loras:
        raise ValueError(
            "create_with='base': this pipeline holds only the trained U-Net;"
            " create with 'theta', or load it with base_unet=..."
        )


def check_freeu(pipe: DiffusionPipeline, labels_from: str, create_with: str) -> None:
    """Check that FreeU, if it is on, changes the images that are created and nothing else.

    Args:
        pipe: the pipeline.
        labels_from: see `Diff2in1Pipeline.__call__`.
        create_with: see there.

    Raises:
        ValueError: if it would change labels, or not change the images.
    """
    if not has_freeu(pipe.unet):
        return
    if labels_from == "last_step":
        raise ValueError("labels_from='last_step' reads features without FreeU: use 'latent'")
    separate = create_with == "base" and pipe.config.trained_unet != "none"
    if separate and pipe.base_unet is not None and not has_freeu(pipe.base_unet):
        raise ValueError(
            "create_with='base' ignores the FreeU of unet: call pipe.enable_freeu, which sets both"
        )


def has_freeu(unet: UNet2DConditionModel) -> bool:
    """Whether FreeU is on (Si et al. 2023, arXiv 2309.11497)."""
    return any(getattr(block, "b1", None) for block in unet.up_blocks)


class Denoising(NamedTuple):
    """Settings of denoising, see `Diff2in1Pipeline.__call__`. None takes the default."""

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    negative_prompt: str | list[str] | Conditioning = ""
    create_with: CreateWith = "base"


@torch.no_grad()
def create_latents(
    pipe: DiffusionPipeline,
    start: Tensor | tuple[int, int],
    prompts: list[str] | Conditioning,
    strengths: list[float],
    generator: torch.Generator | list[torch.Generator] | None = None,
    how: Denoising | None = None,
    return_pyramid: bool = False,
    on_step_end: StepEnd | None = None,
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    """Create images as scaled latents.

    Args:
        pipe: the pipeline.
        start: images `[B, 3, H, W]` in [-1, 1], or the size (H, W) to create without images.
        prompts: one prompt per image, or their conditioning.
        strengths: one strength per image.
        generator: one generator, or one per image.
        how: settings of denoising; None takes the defaults of the checkpoint.
        return_pyramid: also return the pyramid of the last call.
        on_step_end: see `denoise`.

    Returns:
        Latents `[B, C, h, w]` of images extended to the stride, and the pyramid or None.
    """
    config, how = pipe.config, how or Denoising()
    steps, guidance = how.num_inference_steps, how.guidance_scale
    steps = config.default_num_inference_steps if steps is None else steps
    guidance = config.default_guidance_scale if guidance is None else guidance
    count = prompts.batch_size if isinstance(prompts, Conditioning) else len(prompts)
    images = count if isinstance(start, tuple) else len(start)
    generators = len(generator) if isinstance(generator, list) else images
    given = {"prompts": count, "strengths": len(strengths), "generators": generators}
    for name, number in given.items():
        if number != images:
            raise ValueError(f"{number} {name} for {images} images")

    # 1. Conditioning: the prompts, and the negative prompts if there is guidance
    conditioning = encode_prompts(pipe, prompts)
    if guidance != 1:
        negative = how.negative_prompt
        negative = [negative] * count if isinstance(negative, str) else negative
        conditioning = join_negative(conditioning, encode_prompts(pipe, negative))

    # 2. Partial noising at the first timestep
    train_steps = pipe.scheduler.config.num_train_timesteps
    spacing = (steps, train_steps, has_zero_snr(pipe.scheduler))
    schedule = torch.tensor([timesteps(s, *spacing) for s in strengths]).T  # [S, B]
    sampler = make_sampler(pipe.backbone, schedule)
    device = conditioning.text.device
    latents = None
    if isinstance(start, tuple):
        if min(strengths) < 1:
            raise ValueError(f"strength {min(strengths)} without an image: expected 1")
        h, w = (-(-side // pipe.stride) * pipe.stride for side in start)
        factor, channels = pipe.vae_scale_factor, pipe.unet.config.in_channels
        shape = (count, channels, h // factor, w // factor)
    else:
        latents = pipe.encode_image(pad_to_stride(start, pipe.stride)).float()
        shape = tuple(latents.shape)
    noise = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
    noisy = sampler.begin(latents, noise)

    # 3. Denoising
    with creation_unet(pipe, how.create_with) as unet:
        return denoise(
            unet,
            sampler,
            noisy,
            conditioning,
            guidance,
            return_pyramid=return_pyramid,
            progress=pipe.progress_bar,
            on_step_end=on_step_end,
        )


def encode_prompts(pipe: DiffusionPipeline, prompts: list[str] | Conditioning) -> Conditioning:
    """The conditioning of prompts, which may be encoded already."""
    if isinstance(prompts, Conditioning):
        return prompts
    encoded: Conditioning = pipe.encode_prompt(prompts)
    return encoded


def join_negative(positive: Conditioning, negative: Conditioning) -> Conditioning:
    """The conditioning of B prompts and then of their B negative prompts.

    Raises:
        ValueError: if they differ in shape.
    """
    shapes = [tuple(part.text.shape) for part in (positive, negative)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"prompts of shape {shapes[0]}, negative prompts of shape {shapes[1]}")
    return Conditioning.cat([positive, negative])


@contextmanager
def creation_unet(
    pipe: DiffusionPipeline, create_with: CreateWith
) -> Iterator[UNet2DConditionModel]:
    """Give the U-Net that creates: theta's, or the base's.

    The base's U-Net is `base_unet`, or theta's U-Net with its LoRA switched off.
    """
    if create_with == "theta" or pipe.config.trained_unet == "none":
        yield pipe.unet
    elif pipe.base_unet is not None:
        yield pipe.base_unet
    else:
        pipe.unet.disable_adapters()
        try:
            yield pipe.unet
        finally:
            pipe.unet.enable_adapters()
