"""`light`: our own small host, for any number of tasks with one shared decoder."""

from itertools import pairwise
from typing import Any, ClassVar

from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from ..decoders import TopDownDecoder
from ..families import precise
from ..layers import Residual
from ..perception import AttentionMaps, Perception, Pyramid


class Light(Perception):
    """A top-down decoder, upsampling convolutions with group norm, and a 1x1 head for each task.

    Pseudo-labels are theta_C's predictions of every task at all pixels inside the image, all with
    the same weight. If a family predicts a spread, theta_E's own spread lowers the weight of
    uncertain pixels.

    Args:
        tasks: task name -> the config of its family.
        pyramid_channels: `one_pass.pyramid_channels` of the U-Net.
        width: channels of the shared decoder, a multiple of 16.
        upsamplings: how often the decoder doubles the resolution of the latents. The rest of the
            way to pixels is bilinear.
    """

    name: ClassVar = "light"

    @register_to_config
    def __init__(
        self,
        tasks: dict[str, dict[str, Any]],
        pyramid_channels: list[int],
        width: int = 96,
        upsamplings: int = 2,
    ) -> None:
        super().__init__()
        self.add_families(tasks)
        self.check_options(width=width)
        self.decoder = TopDownDecoder(pyramid_channels, width)
        widths = [max(width >> i & ~7, 16) for i in range(upsamplings + 1)]  # multiples of 8
        self.upsample = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, slim, 3, padding=1), Residual(slim))
            for wide, slim in pairwise(widths)
        )
        self.norm = nn.GroupNorm(8, widths[-1])
        self.heads = nn.ModuleDict(
            {name: nn.Conv2d(widths[-1], f.raw_channels, 1) for name, f in self.families.items()}
        )

    def forward(
        self,
        pyramid: Pyramid,
        size: tuple[int, int],
        attention_maps: AttentionMaps | None = None,
    ) -> dict[str, Tensor]:
        x = self.decoder(pyramid)
        for block in self.upsample:
            x = block(F.interpolate(x, scale_factor=2.0, mode="bilinear"))
        x = F.silu(self.norm(x))
        raw = {name: head(x) for name, head in self.heads.items()}
        return {name: F.interpolate(precise(r), size, mode="bilinear") for name, r in raw.items()}
