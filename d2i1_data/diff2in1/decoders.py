"""Decoders: they turn the wide pyramid of the U-Net into the features that a host reads."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Residual, group_norm, resize


class TopDownDecoder(nn.Module):
    """Normalises every level, reduces its channels, and merges from the coarsest to the finest.

    It uses GroupNorm, so that the statistics of a sample depend on that sample only.

    Args:
        pyramid_channels: channels of the pyramid, finest level first.
        width: channels of the result.
    """

    def __init__(self, pyramid_channels: list[int], width: int) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, channels), nn.Conv2d(channels, width, 1))
            for channels in pyramid_channels
        )
        self.merge = nn.ModuleList(Residual(width) for _ in pyramid_channels)

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Decode a pyramid, finest level first, to features `[B, width, h, w]`."""
        merged = self.merge[-1](self.narrow[-1](pyramid[-1]))
        for level in reversed(range(len(self.narrow) - 1)):
            x = self.narrow[level](pyramid[level])
            x = x + F.interpolate(merged, x.shape[-2:], mode="bilinear")
            merged = self.merge[level](x)
        return merged


class PyramidDecoder(nn.Module):
    """Gives a host maps like those of its own image encoder. The host's decoder stays unchanged.

    As in the released code, the coarsest level becomes the coarsest map at twice its resolution,
    and so on up to the resolution of the latents. The finest level then refines the last map.
    Transposed convolutions make the maps that are finer than the latents. If a base has fewer
    levels than the host has maps, its coarsest level is used for all coarser maps.

    GroupNorm replaces batch and spectral norm, so that the maps of a sample depend on that sample
    only. SiLU replaces ReLU.

    Args:
        pyramid_channels: channels of the U-Net's pyramid, finest level first.
        channels: channels of the host's maps, coarsest first.
        scales: resolutions of the host's maps, relative to the latents, coarsest first. Each is
            twice the previous one; the first is below 1 and the last above 1. The sides of Stable
            Diffusion's latents are an eighth of the image's, so scales 1/4 to 4 correspond to
            strides 32 to 2 of an image encoder.

    Source: the parts of SNmodule that the paper's released code uses.
    """

    def __init__(
        self, pyramid_channels: list[int], channels: list[int], scales: list[float]
    ) -> None:
        super().__init__()
        self.count = count = sum(scale <= 1 for scale in scales)  # maps no finer than the latent
        coarse, fine = channels[:count], channels[count:]
        levels = list(reversed(range(len(pyramid_channels))))
        self.levels = [levels[0]] * (count - len(levels)) + levels
        refining = len(self.levels) - count
        self.scales = scales[:count] + [scales[count - 1]] * refining
        widths = coarse + [coarse[-1]] * refining
        self.narrow = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, pyramid_channels[level], affine=False),
                nn.Conv2d(pyramid_channels[level], width, 1, bias=False),
            )
            for level, width in zip(self.levels, widths, strict=True)
        )
        self.merge = nn.ModuleList(Residual(below + own, own) for below, own in pairwise(widths))
        # a finer map is made from the finest coarse map, and from the previous finer map
        inputs = [coarse[-1], *(c + coarse[-1] for c in fine[:-1])]
        self.norm = group_norm(coarse[-1])
        self.enlarge = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(c, own, 2, 2), group_norm(own))
            for c, own in zip(inputs, fine, strict=True)
        )

    def forward(self, pyramid: tuple[Tensor, ...]) -> list[Tensor]:
        """Decode a pyramid, finest level first, to maps `[B, C_k, h_k, w_k]`, coarsest first."""
        height, width = pyramid[0].shape[-2:]
        coarse_maps: list[Tensor] = []
        for place, (level, scale, narrow) in enumerate(
            zip(self.levels, self.scales, self.narrow, strict=True)
        ):
            size = (max(1, round(height * scale)), max(1, round(width * scale)))
            own = resize(narrow(pyramid[level]), size)
            if place:
                own = self.merge[place - 1](torch.cat([resize(coarse_maps[-1], size), own], 1))
            coarse_maps.append(own)
        maps = coarse_maps[: self.count]
        carried = inputs = F.silu(self.norm(coarse_maps[-1]))
        for place, enlarge in enumerate(self.enlarge):
            if place:
                carried = F.interpolate(carried, scale_factor=2.0, mode="bilinear")
                inputs = torch.cat([F.silu(maps[-1]), carried], 1)
            maps.append(enlarge(inputs))
        return maps
