"""Prediction: compute maps of images and latents.

Letters in shape comments: B batch, C R channels, H W pixels, h w latent pixels.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from torch.nn import functional as F

from .images import fit_longer_side, pad_to_stride
from .outputs import Finished, Maps, collect_maps, finish_maps
from .windows import predict_in_windows

MOST_VIEWS = 4  # of an ensemble; on rooms, six predict normals and depth worse than two


def predict_maps(
    pipe: DiffusionPipeline,
    batches: list[Tensor],
    output_type: str,
    processing_resolution: int | None = None,
    flip: bool = False,
    window: int | None = None,
    batch_size: int = 8,
    ensemble_size: int = 1,
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
        ensemble_size: see `Diff2in1Pipeline.predict`.

    Returns:
        All fields of an output except `images`.

    Raises:
        ValueError: if the settings do not fit together.
    """
    views = choose_views(ensemble_size)
    if flip and ensemble_size > 1:
        raise ValueError(f"flip with ensemble_size {ensemble_size}, which has mirrored images")
    families, total = pipe.perception.families, Finished()
    for _, same in groupby(batches, lambda batch: batch.shape[2:]):
        group = list(same)
        for start in range(0, len(group), batch_size):
            pixels = torch.cat(group[start : start + batch_size]).to(pipe._execution_device)
            if ensemble_size > 1:
                maps = predict_ensemble(pipe, pixels, views, processing_resolution, window)
                finished = collect_maps(families, maps, output_type)
            else:
                raw = predict_raw(pipe, pixels, processing_resolution, flip, window)
                finished = finish_maps(families, raw, output_type)
            for kind, tasks in finished.items():
                collected = total.setdefault(kind, {})
                for name, found in tasks.items():
                    collected.setdefault(name, []).extend(found)
    return total


class View(NamedTuple):
    """A way to look at images: mirrored or not, and enlarged by a number of strides."""

    mirrored: bool = False
    strides: int = 0

    def size(self, own: tuple[int, int], stride: int) -> tuple[int, int]:
        """Height and width of an image of this size in the view.

        Enlarged sides are multiples of the stride, because padding makes predictions worse.
        """
        if self.strides == 0:
            return own
        scale = (round(max(own) / stride) + self.strides) * stride / max(own)
        height, width = (max(1, round(side * scale / stride)) * stride for side in own)
        return height, width


def choose_views(count: int) -> list[View]:
    """The views of an ensemble: as it is, mirrored, then both enlarged. More contain the fewer.

    Raises:
        ValueError: if the count is out of range.
    """
    if not isinstance(count, int) or not 1 <= count <= MOST_VIEWS:
        raise ValueError(f"ensemble_size {count}: expected 1 to {MOST_VIEWS}")
    return [View(bool(k % 2), k // 2) for k in range(count)]


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
    size = (pixels.shape[2], pixels.shape[3])
    views = choose_views(2 if flip else 1)
    linear = predict_views(pipe, pixels, views, processing_resolution, window)
    return raw_at_size(pipe.perception.families, average(linear), size)


def predict_views(
    pipe: DiffusionPipeline,
    pixels: Tensor,
    views: Sequence[View],
    processing_resolution: int | None = None,
    window: int | None = None,
) -> list[dict[str, Tensor]]:
    """Predict linear maps of images in several views; see `predict_raw`.

    Returns:
        For each view, task name -> map `[B, R, h, w]` as `Family.to_linear` gives it.
    """
    families = pipe.perception.families
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

    found = []
    own = (pixels.shape[2], pixels.shape[3])
    for view in views:
        size = view.size(own, pipe.stride)
        seen = pixels if size == own else F.interpolate(pixels, size, mode="bilinear")
        linear = predict_whole(seen.flip(-1) if view.mirrored else seen)
        if view.mirrored:
            linear = {name: families[name].flip(maps) for name, maps in linear.items()}
        if size != own:
            linear = {n: F.interpolate(x, own, mode="bilinear") for n, x in linear.items()}
        found.append(linear)
    return found


def average(linear: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the linear maps of several views."""
    first, *others = linear
    return {n: sum((each[n] for each in others), x) / len(linear) for n, x in first.items()}


@torch.no_grad()
def predict_ensemble(
    pipe: DiffusionPipeline,
    pixels: Tensor,
    views: Sequence[View],
    processing_resolution: int | None = None,
    window: int | None = None,
) -> dict[str, Maps]:
    """Predict maps of images in several views, and how uncertain their average is.

    Each view gives a distribution; the ensemble is their mixture. Its uncertainty counts what every
    view is unsure of, and how the views differ.

    Args:
        pipe: the pipeline.
        pixels: images `[B, 3, H, W]` in [-1, 1].
        views: see `choose_views`.
        processing_resolution: see `Diff2in1Pipeline.predict`.
        window: see `Diff2in1Pipeline.predict`.

    Returns:
        Task name -> its maps.
    """
    families, size = pipe.perception.families, (pixels.shape[2], pixels.shape[3])
    linear = predict_views(pipe, pixels, views, processing_resolution, window)
    mean = raw_at_size(families, average(linear), size)
    answers = {name: family.finish(mean[name]) for name, family in families.items()}
    unsure: dict[str, list[Tensor]] = {name: [] for name in families}
    errors: dict[str, list[Tensor]] = {name: [] for name in families}
    for each in linear:
        for name, raw in raw_at_size(families, each, size).items():
            unsure[name].append(families[name].uncertainty_about(raw, answers[name]))
            error = families[name].expected_error_about(raw, answers[name])
            errors[name] += [] if error is None else [error]
    return {
        name: Maps(
            answers[name],
            torch.stack(unsure[name]).mean(0),
            torch.stack(errors[name]).mean(0) if errors[name] else None,
        )
        for name in families
    }


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
