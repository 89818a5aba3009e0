"""Creation of labelled images: partial noising and denoising of scaled latents.

Letters in shape comments: B batch, C channels, H W pixels, h w latent pixels, S steps.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from .backbone import has_zero_snr
from .conditioning import Conditioning
from .ddim import denoise, timesteps
from .images import pad_to_stride, to_batches
from .saving import LORA_NAME

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
    if create_with == "theta" or pipe.config.trained_unet == "none":
        return
    if labels_from == "last_step":
        raise ValueError("labels_from='last_step' reads theta's features: create with 'theta'")
    loras = set(getattr(pipe.unet, "peft_config", None) or ())
    if loras - {LORA_NAME}:
        others = ", ".join(sorted(loras - {LORA_NAME}))
        raise ValueError(f"create_with='base' ignores your LoRA {others}: create with 'theta'")
    if pipe.base_unet is None and not loras:
        raise ValueError(
            "create_with='base': this pipeline holds only the trained U-Net;"
            " create with 'theta', or load it with base_unet=..."
        )


def read_canvas(
    pipe: DiffusionPipeline, image: Any, height: int | None, width: int | None
) -> tuple[tuple[int, int], Tensor | None]:
    """The size of the created images, and the images that they start from.

    Args:
        pipe: the pipeline.
        image: see `images.to_batches`; None to create from prompts alone.
        height: height of the created images in pixels, only without an image.
        width: width of the created images in pixels, only without an image.

    Returns:
        (H, W), and images `[B, 3, H, W]` in [-1, 1] or None.
    """
    if image is None:
        own = pipe.unet.config.sample_size
        own = (own, own) if isinstance(own, int) else own
        height, width = (
            wanted or side * pipe.vae_scale_factor
            for wanted, side in zip((height, width), own, strict=True)
        )
        return (height, width), None
    if height is not None or width is not None:
        raise ValueError("height and width have no effect with an image, which has its own size")
    batches = to_batches(image)
    sizes = sorted({(batch.shape[2], batch.shape[3]) for batch in batches})
    if len(sizes) != 1:
        raise ValueError(
            f"images of sizes {sizes}: expected one size in a call that creates images"
        )
    return sizes[0], torch.cat(batches).to(pipe._execution_device)


def encode_images(pipe: DiffusionPipeline, image: Any) -> list[Tensor]:
    """Encode images of any sizes as scaled latents `[C, h, w]`. Images are extended to the stride.

    Args:
        pipe: the pipeline.
        image: see `images.to_batches`.
    """
    batches = [pad_to_stride(batch, pipe.stride) for batch in to_batches(image)]
    return [pipe.encode_image(batch.to(pipe._execution_device))[0] for batch in batches]


class Denoising(NamedTuple):
    """Settings of denoising, see `Diff2in1Pipeline.__call__`. None takes the default."""

    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    negative_prompt: str = ""
    create_with: CreateWith = "base"


@torch.no_grad()
def create_latents(
    pipe: DiffusionPipeline,
    start: Tensor | tuple[int, int],
    prompts: list[str],
    strengths: list[float],
    generator: torch.Generator | list[torch.Generator] | None = None,
    how: Denoising | None = None,
    return_pyramid: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...] | None]:
    """Create images as scaled latents.

    Args:
        pipe: the pipeline.
        start: images `[B, 3, H, W]` in [-1, 1], or the size (H, W) to create without images.
        prompts: one prompt per image.
        strengths: one strength per image.
        generator: one generator, or one per image.
        how: settings of denoising; None takes the defaults of the checkpoint.
        return_pyramid: also return the pyramid of the last call.

    Returns:
        Latents `[B, C, h, w]` of images extended to the stride, and the pyramid or None.
    """
    config, count, how = pipe.config, len(prompts), how or Denoising()
    steps, guidance = how.num_inference_steps, how.guidance_scale
    steps = config.default_num_inference_steps if steps is None else steps
    guidance = config.default_guidance_scale if guidance is None else guidance
    images = count if isinstance(start, tuple) else len(start)
    listed = generator if isinstance(generator, list) else [generator] * images
    for name, values in (("prompts", prompts), ("strengths", strengths), ("generators", listed)):
        if len(values) != images:
            raise ValueError(f"{len(values)} {name} for {images} images")

    # 1. Conditioning: the prompts, and the negative prompt if there is guidance
    conditioning = pipe.encode_prompt(prompts)
    if guidance != 1:
        negative = pipe.encode_prompt([how.negative_prompt] * count)
        conditioning = Conditioning.cat([conditioning, negative])

    # 2. Partial noising at the first timestep
    train_steps = pipe.scheduler.config.num_train_timesteps
    spacing = (steps, train_steps, has_zero_snr(pipe.scheduler))
    schedule = torch.tensor([timesteps(s, *spacing) for s in strengths]).T  # [S, B]
    device = conditioning.text.device
    if isinstance(start, tuple):
        if min(strengths) < 1:
            raise ValueError(f"strength {min(strengths)} without an image: expected 1")
        h, w = (-(-side // pipe.stride) * pipe.stride for side in start)
        factor, channels = pipe.vae_scale_factor, pipe.unet.config.in_channels
        shape = (count, channels, h // factor, w // factor)
        latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
    else:
        latents = pipe.encode_image(pad_to_stride(start, pipe.stride)).float()
        noise = randn_tensor(latents.shape, generator=generator, device=device, dtype=torch.float32)
        latents = pipe.scheduler.add_noise(latents, noise, schedule[0].to(device))

    # 3. Denoising
    with creation_unet(pipe, how.create_with) as unet:
        return denoise(
            unet,
            pipe.backbone,
            latents,
            schedule,
            conditioning,
            guidance,
            return_pyramid=return_pyramid,
            progress=pipe.progress_bar,
        )


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
