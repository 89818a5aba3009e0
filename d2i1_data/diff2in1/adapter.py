"""Feature adapters: from the U-Net's wide pyramid to what a host reads, coarse levels first."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Residual, group_norm, resize


class FeatureAdapter(nn.Module):
    """Normalise and narrow every level, then merge from the coarsest to the finest.

    GroupNorm throughout: the statistics of a sample depend on nothing but the sample.
    """

    def __init__(self, pyramid_channels: list[int], width: int) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(1, channels), nn.Conv2d(channels, width, 1))
            for channels in pyramid_channels
        )
        self.merge = nn.ModuleList(Residual(width) for _ in pyramid_channels)

    def forward(self, pyramid: tuple[Tensor, ...]) -> Tensor:
        """Pyramid, finest first, to [B, width, h, w] at its finest resolution."""
        merged = self.merge[-1](self.narrow[-1](pyramid[-1]))
        for level in reversed(range(len(self.narrow) - 1)):
            x = self.narrow[level](pyramid[level])
            x = x + F.interpolate(merged, x.shape[-2:], mode="bilinear")
            merged = self.merge[level](x)
        return merged


class PyramidAdapter(nn.Module):
    """The pyramid that a host's own encoder would give, so that the host's decoder stays as it is.

    pyramid_channels: of the U-Net, finest first. channels, scales: of what the host expects,
    coarsest first; a scale is a resolution as a multiple of the latent's, each twice the one
    before. With Stable Diffusion, whose latents have an eighth of the image's sides, scales 1/4 to
    4 are the strides 32 to 2 of an image encoder.

    The released code of the paper (its SNmodule, the parts in use): the coarsest level becomes the
    coarsest map at twice its own resolution, and so on up to the latent's; the finest level then
    refines the last; transposed convolutions give what is finer than the latent. Where a base has
    fewer levels, its coarsest serves all that are coarser. GroupNorm instead of batch and spectral
    norm: what a sample gives depends on nothing but the sample.
    """

    def __init__(
        self, pyramid_channels: list[int], channels: list[int], scales: list[float]
    ) -> None:
        super().__init__()
        self.scales = scales
        self.count = count = sum(scale <= 1 for scale in scales)  # no finer than the latent
        made, finer = channels[:count], channels[count:]
        self.levels = self._levels(len(pyramid_channels), count)
        narrow = [*made, *[made[-1]] * (len(self.levels) - count)]
        self.narrow = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, pyramid_channels[level], affine=False),
                nn.Conv2d(pyramid_channels[level], c, 1, bias=False),
            )
            for level, c in zip(self.levels, narrow, strict=True)
        )
        self.merge = nn.ModuleList(Residual(below + own, own) for below, own in pairwise(narrow))
        wide = [made[-1], *(c + made[-1] for c in finer)]
        self.norms = nn.ModuleList(group_norm(c) for c in [made[-1], *finer][: len(finer)])
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(inputs, c, 2, 2) for inputs, c in zip(wide, finer, strict=False)
        )

    @staticmethod
    def _levels(have: int, want: int) -> list[int]:
        """Which level of the pyramid each map is made from, coarsest first, then what refines."""
        down = list(reversed(range(have)))
        return [down[0]] * (want - have) + down

    def forward(self, pyramid: tuple[Tensor, ...]) -> list[Tensor]:
        """Pyramid, finest first, to the host's maps, coarsest first, [B, channels_k, h_k, w_k]."""
        height, width = pyramid[0].shape[-2:]
        maps: list[Tensor] = []
        x = None
        for place, (level, narrow) in enumerate(zip(self.levels, self.narrow, strict=True)):
            scale = min(self.scales[min(place, len(self.scales) - 1)], 1)
            size = (max(1, round(height * scale)), max(1, round(width * scale)))
            own = resize(narrow(pyramid[level]), size)
            x = own if x is None else self.merge[place - 1](torch.cat([resize(x, size), own], 1))
            if len(maps) < self.count:
                maps.append(x)
        assert x is not None
        carried = inputs = F.silu(self.norms[0](x)) if len(self.norms) else x
        for place, upsample in enumerate(self.upsample):
            maps.append(upsample(inputs))
            if place + 1 < len(self.upsample):
                carried = F.interpolate(carried, scale_factor=2.0, mode="bilinear")
                inputs = torch.cat([F.silu(self.norms[place + 1](maps[-1])), carried], 1)
        return maps
