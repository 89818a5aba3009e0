"""The feature adapter: from the U-Net's wide pyramid to one narrow map, coarse levels first."""

from torch import Tensor, nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Two normalised 3x3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
            *(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


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
