"""Perturbation: theta_E's harder view of a sample, after the U-Net and before the host.

Every host has it, because it changes only pyramids and targets. theta_C never gets it.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Drawn(NamedTuple):
    """The perturbation of one sample.

    Args:
        channel_weights: for each level of the pyramid the factors of its channels, `[C_l]`; None
            without feature dropout.
        patch: cells that another sample replaces, `[1, h, w]` bool; None without CutMix. A cell is
            one pixel of the coarsest level of the pyramid.
    """

    channel_weights: tuple[Tensor, ...] | None = None
    patch: Tensor | None = None


class Perturbation(NamedTuple):
    """The perturbations of a batch.

    Args:
        channel_weights: for each level of the pyramid the factors of its channels,
            `[B, C_l, 1, 1]`; None without feature dropout.
        patches: cells that another sample replaces, `[B, 1, h, w]` bool; None without CutMix.
        donors: indices of these other samples, `[B]`.
    """

    channel_weights: tuple[Tensor, ...] | None
    patches: Tensor | None
    donors: Tensor

    def of_pyramid(self, pyramid: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Paste the patches into a pyramid, then apply feature dropout.

        Source: dropout of whole channels as a perturbation of features: UniMatch, Yang et al. 2023,
        arXiv 2208.09910.
        """
        pyramid = tuple(self.paste(level) for level in pyramid)
        if self.channel_weights is None:
            return pyramid
        levels = zip(pyramid, self.channel_weights, strict=True)
        return tuple(level * factor.to(level) for level, factor in levels)

    def paste(self, maps: Tensor) -> Tensor:
        """Replace the patches in maps of any resolution, `[B, C, H, W]`.

        Source: CutMix, Yun et al. 2019, arXiv 1905.04899; for dense labels French et al. 2020,
        arXiv 1906.01916.
        """
        if self.patches is None:
            return maps
        inside = F.interpolate(self.patches.float(), maps.shape[2:], mode="nearest") > 0
        return torch.where(inside, maps[self.donors], maps)


def draw_channel_weights(
    channels: list[int], share: float, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Draw which channels of a pyramid to drop. The others grow, so that the mean stays.

    Args:
        channels: number of channels of each level.
        share: probability that a channel is dropped.
        generator: decides.

    Returns:
        Factors of the channels of each level, `[C_l]`.
    """
    kept = [torch.rand(count, generator=generator) >= share for count in channels]
    return tuple(one.float() / (1 - share) for one in kept)


def draw_patch(cells: tuple[int, int], share: float, generator: torch.Generator) -> Tensor | None:
    """Draw a rectangle of cells. Its sides are shorter than those of the image, if possible.

    Args:
        cells: height and width of the coarsest level of the pyramid.
        share: probability that there is a rectangle.
        generator: decides.

    Returns:
        `[1, h, w]` bool, or None.
    """
    happens, *drawn = torch.rand(5, generator=generator).tolist()
    if happens >= share:
        return None
    patch = torch.zeros(1, *cells, dtype=torch.bool)
    place = []
    for length, side, start in zip(cells, drawn[:2], drawn[2:], strict=True):
        size = 1 + int(side * max(length - 1, 1))
        first = int(start * (length - size + 1))
        place.append(slice(first, first + size))
    patch[:, place[0], place[1]] = True
    return patch


def stack_drawn(drawn: list[Drawn], kinds: list[bool], device: torch.device) -> Perturbation | None:
    """Stack the perturbations of a batch; None if no sample has any.

    The patch of a sample comes from the next sample of its kind in the batch. A sample that is
    alone in its kind is its own donor, and does not change.

    Args:
        drawn: the perturbation of each sample.
        kinds: whether each sample is a created one.
        device: device of the results.
    """
    weights = [one.channel_weights for one in drawn]
    patches = [one.patch for one in drawn]
    some_weights = next((one for one in weights if one is not None), None)
    some_patch = next((one for one in patches if one is not None), None)
    if some_weights is None and some_patch is None:
        return None
    factors = stacked = None
    if some_weights is not None:
        whole = tuple(torch.ones_like(level) for level in some_weights)
        levels = zip(*(whole if one is None else one for one in weights), strict=True)
        factors = tuple(torch.stack(level)[..., None, None].to(device) for level in levels)
    if some_patch is not None:
        empty = torch.zeros_like(some_patch)
        stacked = torch.stack([empty if one is None else one for one in patches]).to(device)
    donors = torch.tensor([_next_of_kind(n, kinds) for n in range(len(kinds))], device=device)
    return Perturbation(factors, stacked, donors)


def _next_of_kind(place: int, kinds: list[bool]) -> int:
    same = [n for n, kind in enumerate(kinds) if kind == kinds[place]]
    return same[(same.index(place) + 1) % len(same)]
