"""Augmentation: random views of a sample, and their effect on its image and labels.

Geometry is the same for theta_C and theta_E. Only theta_E gets changed colours. A view consists of
a few numbers. All are drawn before the sample is read, so the generator alone decides them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from d2i1_data.diff2in1 import Family
from d2i1_data.sources import parse_resolution

from .settings import TrainSettings

Size = tuple[int, int]
LabelMaps = dict[str, Tensor]
Window = tuple[slice, slice]

REDRAWS = 10  # how often a window is drawn again if one class covers too much of it
FACTORS = ("gamma", "brightness", "contrast", "saturation")
CHANGES = (*FACTORS, "hue", "tint")


class Colours(NamedTuple):
    """Changes of colours, in the order in which they are made. A default changes nothing."""

    gamma: float = 1.0  # exponent
    brightness: float = 1.0  # factor
    contrast: float = 1.0  # factor of the distance to the image's mean grey
    saturation: float = 1.0  # factor of the distance to each pixel's grey
    hue: float = 0.0  # share of the full circle
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factor of each channel

    def change(self, image: Tensor) -> Tensor:
        """Change an image `[1, 3, H, W]` in [0, 1]."""
        image = image.clamp(0, 1) ** self.gamma
        image = (image * self.brightness).clamp(0, 1)
        image = torch.lerp(_grey(image).mean().expand_as(image), image, self.contrast).clamp(0, 1)
        image = torch.lerp(_grey(image).expand_as(image), image, self.saturation).clamp(0, 1)
        image = _turn_hue(image, self.hue) if self.hue else image
        return (image * torch.tensor(self.tint)[:, None, None]).clamp(0, 1)


class View(NamedTuple):
    """One view of a sample. The default is the unchanged sample."""

    mirrored: bool = False
    scale: float = 1.0  # factor of both sides
    crop: Size | None = None
    places: tuple[tuple[float, float], ...] = ((0.0, 0.0),)  # of the window in its range, [0, 1)
    max_share: float = 1.0
    colours: Colours | None = None
    padded: Size | None = None  # what the stride of the base pads is padded further to this size

    def frame(
        self, image: Tensor, maps: LabelMaps, families: Mapping[str, Family]
    ) -> tuple[Tensor, LabelMaps]:
        """Scale, mirror and crop an image and its maps.

        Args:
            image: the image, `[1, 3, H, W]`.
            maps: task -> map `[1, C, H, W]`.
            families: task -> family.

        Returns:
            The image and the maps of the view. If the scaled image is smaller than the window, they
            are too.
        """
        if self.scale != 1:
            height, width = image.shape[2:]
            size = max(1, round(height * self.scale)), max(1, round(width * self.scale))
            image = F.interpolate(image, size, mode="bilinear", antialias=True)
            resized = {n: families[n].resize(one, size) for n, one in maps.items()}
            maps = {n: families[n].scaled(one, self.scale) for n, one in resized.items()}
        if self.mirrored:
            image = image.flip(-1)
            maps = {n: families[n].flip(one) for n, one in maps.items()}
        if self.crop is None:
            return image, maps
        down, right = self._window(self.crop, image, maps, families)
        # always use one memory layout, because convolutions round differently in another
        image = image[..., down, right].contiguous()
        return image, {n: one[..., down, right].contiguous() for n, one in maps.items()}

    def _window(
        self, crop: Size, image: Tensor, maps: LabelMaps, families: Mapping[str, Family]
    ) -> Window:
        """The first drawn window in which no class covers too much; otherwise the last window."""
        free = [max(have - side, 0) + 1 for have, side in zip(image.shape[2:], crop, strict=True)]
        for place in self.places:
            top, left = (int(part * range_) for part, range_ in zip(place, free, strict=True))
            window = slice(top, top + crop[0]), slice(left, left + crop[1])
            if self.max_share == 1:
                break
            shares = [families[n].largest_share(one[..., *window]) for n, one in maps.items()]
            if max(shares, default=0) <= self.max_share:
                break
        return window

    def recoloured(self, image: Tensor) -> Tensor:
        """Change the colours of an image `[1, 3, H, W]` in [-1, 1], for theta_E."""
        if self.colours is None:
            return image
        return self.colours.change((image + 1) / 2) * 2 - 1


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The distribution of views. `AugmentationSettings` explains each number."""

    flip: bool = False
    scale: tuple[float, float] | None = None
    crop: Size | None = None
    max_share: float = 1.0
    jitter: Mapping[str, float] = field(default_factory=dict)

    @property
    def recurs(self) -> bool:
        """Whether the same views are drawn again, so that keeping their latents saves time."""
        return self.scale is None and self.crop is None and not self.jitter

    def draw(self, generator: torch.Generator) -> View:
        """Draw a view. The generator decides all its numbers."""
        chance = torch.rand(1, generator=generator).item()
        view = View(self.flip and chance < 0.5)
        if self.scale:
            low, high = self.scale
            share = torch.rand(1, generator=generator).item()
            view = view._replace(scale=low + (high - low) * share)
        if self.crop:
            drawn = torch.rand(1 + REDRAWS, 2, generator=generator).tolist()
            places = tuple((top, left) for top, left in drawn)
            view = view._replace(crop=self.crop, places=places, max_share=self.max_share)
        return view._replace(colours=self._colours(generator)) if self.jitter else view

    def _colours(self, generator: torch.Generator) -> Colours | None:
        """Draw colour changes. Switching one off does not alter the random numbers of others."""
        happens, *drawn = torch.rand(15, generator=generator, dtype=torch.float64).tolist()
        if happens >= self.jitter.get("probability", 1.0):
            return None
        each = self.jitter.get("each", 1.0)
        chosen = {name: chance < each for name, chance in zip(CHANGES, drawn, strict=False)}
        most = {name: self.jitter.get(name, 0.0) if chosen[name] else 0.0 for name in CHANGES}
        *places, hue, red, green, blue = (2 * number - 1 for number in drawn[len(CHANGES) :])
        factors = {n: 1 + most[n] * place for n, place in zip(FACTORS, places, strict=True)}
        tint = (1 + most["tint"] * red, 1 + most["tint"] * green, 1 + most["tint"] * blue)
        return Colours(**factors, hue=most["hue"] * hue, tint=tint)


def make_augmentation(settings: TrainSettings) -> Augmentation:
    """Make the augmentation of the settings of a run."""
    scale = None if settings.random_scale is None else tuple(settings.random_scale)
    return Augmentation(
        flip=settings.random_flip,
        scale=cast(tuple[float, float] | None, scale),
        crop=cast(Size | None, parse_resolution(settings.random_crop)),
        max_share=settings.crop_max_share,
        jitter=settings.color_jitter or {},
    )


def _grey(image: Tensor) -> Tensor:
    """Luma (ITU-R BT.601), [1, 1, H, W]."""
    return (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def _turn_hue(image: Tensor, turns: float) -> Tensor:
    """Turn the hue of an image in [0, 1]. HSV saturation and value stay."""
    red, green, blue = image.unbind(1)
    value, lowest = image.amax(1), image.amin(1)
    chroma = value - lowest
    safe = chroma.clamp(min=1e-12)
    sixth = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    angle = sixth + 6 * turns
    away = [torch.remainder(angle + offset, 6) for offset in (5, 3, 1)]
    dimmed = [torch.minimum(a, 4 - a).clamp(0, 1) for a in away]
    return torch.stack([value - chroma * part for part in dimmed], 1)
