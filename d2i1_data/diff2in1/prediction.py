"""Prediction: compute maps of images and latents.

Letters in shape comments: B batch, C R channels, H W pixels, h w latent pixels.
"""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from torch.nn import functional as F

from .images import fit_longer_side, pad_to_stride
from .outputs import Finished, finish_maps
from .windows import predict_in_windows


def predict_maps(
    pipe: DiffusionPipeline,
    batches: list[Tensor],
    output_type: str,
    processing_resolution: int | None = None,
    flip: bool = False,
    window: int | None = None,
    batch_size: int = 8,
) -> Finished:
    """Predict the finished maps of images, in their order.

    Args:
        pipe: the pipeline.
        batches: images `[1, 3, H, W]` in [-1, 1], of any sizes.
        output_type: see `finish_maps`.
        processing_resolution: see `Diff2in1Pipeline.predict`.
        flip: see `Diff2in1Pipeline.predict`.
        window: see `Diff2in1Pipeline.predict`.
        batch_size: see `Diff2in1Pipeline.predict`.

    Returns:
        All fields of an output except `images`.
    """
    total: Finished = {}
    for _, same in groupby(batches, lambda batch: batch.shape[2:]):
        group = list(same)
        for start in range(0, len(group), batch_size):
            pixels = torch.cat(group[start : start + batch_size]).to(pipe._execution_device)
            raw = predict_raw(pipe, pixels, processing_resolution, flip, window)
            finished = finish_maps(pipe.perception.families, raw, output_type)
            for kind, tasks in finished.items():
                collected = total.setdefault(kind, {})
                for name, maps in tasks.items():
                    collected.setdefault(name, []).extend(maps)
    return total


@torch.no_grad()
def predict_raw(
    pipe: DiffusionPipeline,
    pixels: Tensor,
    processing_resolution: int | None = None,
    flip: bool = False,
    window: int | None = None,
) -> dict[str, Tensor]:
    """Predict raw maps of images.

    Args:
        pipe: the pipeline.
        pixels: images `[B, 3, H, W]` in [-1, 1].
        processing_resolution: see `Diff2in1Pipeline.predict`.
        flip: see `Diff2in1Pipeline.predict`.
        window: see `Diff2in1Pipeline.predict`.

    Returns:
        Task name -> raw map `[B, R, H, W]`.

    Raises:
        ValueError: if the window is smaller than the stride of the base.
    """
    families, size = pipe.perception.families, (pixels.shape[2], pixels.shape[3])
    default = pipe.config.default_processing_resolution
    resolution = default if processing_resolution is None else processing_resolution or None
    pixels = fit_longer_side(pixels, resolution)
    if window is not None and window < pipe.stride:
        raise ValueError(f"window {window}: this pipeline needs at least {pipe.stride}")

    def predict_part(part: Tensor) -> dict[str, Tensor]:
        latents = pipe.encode_image(pad_to_stride(part, pipe.stride))
        raw = perceive(pipe, latents, (part.shape[2], part.shape[3]))
        return to_linear(raw, averages_logits=False)

    def to_linear(maps: dict[str, Tensor], averages_logits: bool) -> dict[str, Tensor]:
        chosen = {n for n in maps if families[n].averages_logits == averages_logits}
        return {n: families[n].to_linear(x) if n in chosen else x for n, x in maps.items()}

    def predict_whole(image: Tensor) -> dict[str, Tensor]:
        maps = predict_in_windows(predict_part, image, window)
        return to_linear(maps, averages_logits=True)

    linear = predict_whole(pixels)
    if flip:
        mirrored = predict_whole(pixels.flip(-1))
        linear = {n: (x + families[n].flip(mirrored[n])) / 2 for n, x in linear.items()}
    return raw_at_size(families, linear, size)


def raw_at_size(
    families: Mapping[str, Any], linear: Mapping[str, Tensor], size: tuple[int, int]
) -> dict[str, Tensor]:
    """Scale linear maps, and turn them back into raw maps.

    Args:
        families: the `Family` of each task.
        linear: maps `[B, R, h, w]` as `Family.to_linear` gives them.
        size: (H, W) of the raw maps.
    """
    linear = {n: F.interpolate(x, size, mode="bilinear") for n, x in linear.items()}
    return {name: families[name].from_linear(maps) for name, maps in linear.items()}


def perceive(
    pipe: DiffusionPipeline,
    latents: Tensor,
    size: tuple[int, int],
    pyramid: tuple[Tensor, ...] | None = None,
) -> dict[str, Tensor]:
    """Predict raw maps of latents.

    Args:
        pipe: the pipeline.
        latents: scaled latents `[B, C, h, w]`.
        size: (H, W) of the maps in pixels.
        pyramid: pyramid of the same latents, if it is already computed.

    Returns:
        Task name -> raw map `[B, R, H, W]`.
    """
    attention_maps: dict[int, Tensor] = {}
    dtype = pipe.perception.dtype
    if pyramid is None:
        result = pipe.perception.run_unet(
            pipe.unet, latents.to(pipe.unet.dtype), pipe.perception_conditioning()
        )
        pyramid = result.pyramid
        attention_maps = {level: x.to(dtype) for level, x in result.attention_maps.items()}
    pyramid = tuple(level.to(dtype) for level in pyramid)
    factor = pipe.vae_scale_factor
    padded = (pyramid[0].shape[2] * factor, pyramid[0].shape[3] * factor)
    raw = pipe.perception(pyramid, padded, attention_maps)
    return {n: r[..., : size[0], : size[1]].float().contiguous() for n, r in raw.items()}
