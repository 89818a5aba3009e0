"""`bae`: surface normals with uncertainty. Uncertain pixels are refined.

Bae, Budvytis, Cipolla 2021, "Estimating and Exploiting the Aleatoric Uncertainty in Surface Normal
Estimation" (arXiv 2109.09881; github.com/baegwangbin/surface_normal_uncertainty).

Letters in shape comments: B batch, C channels, h w pixels of a scale, N points.
"""

from typing import Any, ClassVar, Literal

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from ..decoders import PyramidDecoder
from ..families import UnitVector, precise
from ..layers import group_norm, stretch
from ..perception import AttentionMaps, Perception, Pyramid

ENCODER = (2048, 176, 64, 40, 24)  # channels of EfficientNet-B5, coarsest first
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # its strides 32 to 2, relative to stride 8 of the latents
PUBLISHED = 128  # channels of the finest features


class StandardizedConv2d(nn.Conv2d):
    """A 3x3 convolution whose filters have mean 0 and variance 1 (Qiao et al. 2019)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / (deviation + 1e-10), self.bias, padding=1)


class UpsampleMerge(nn.Module):
    """Resizes features to an encoder's map and merges both."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(StandardizedConv2d(inputs, outputs), group_norm(outputs), nn.LeakyReLU()),
            *(StandardizedConv2d(outputs, outputs), group_norm(outputs), nn.LeakyReLU()),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.body(torch.cat([stretch(x, skip.shape[-2:]), skip], 1))  # type: ignore[no-any-return]


class Bae(Perception):
    """The decoder of Bae et al. Its input is a decoder that imitates the maps of their encoder.

    It predicts normals and kappa at four scales. A convolution predicts at the resolution of the
    latents. Then a small network, which sees each pixel on its own, refines the prediction three
    times, up to full resolution. Training refines only a share of the pixels, chosen by their
    uncertainty. Perception refines every pixel.

    Pseudo-labels are theta_C's directions at all pixels inside the image, refined everywhere (the
    authors' second stage left 60 % of each scale unrefined). All have the same weight, because
    theta_E's own kappa already lowers the weight of uncertain pixels. A weight by theta_C's kappa
    would count certainty twice.

    Args:
        tasks: one task of family `unit_vector`.
        pyramid_channels: `one_pass.pyramid_channels` of the U-Net.
        width: channels of the finest features, a multiple of 8 (published: 128). All other widths
            are scaled with it.
        sampling_ratio: training refines this share of the pixels of a scale.
        importance_ratio: this share of the refined pixels are the most uncertain known pixels. The
            others are drawn at random.
        protocol: "host" trains as the released code: it pools the pixels of a batch, leaves out
            pixels whose cosine is beyond 0.999, and also draws unknown pixels, which have no
            effect. "ours" averages over the pixels of each sample, needs no such limit, and draws
            only known pixels.
    """

    name: ClassVar = "bae"
    published_width = PUBLISHED
    width_step = 8
    single_task_families: ClassVar = ("unit_vector",)

    @register_to_config
    def __init__(
        self,
        tasks: dict[str, dict[str, Any]],
        pyramid_channels: list[int],
        width: int = PUBLISHED,
        sampling_ratio: float = 0.4,
        importance_ratio: float = 0.7,
        protocol: Literal["ours", "host"] = "ours",
    ) -> None:
        super().__init__()
        self.add_families(tasks)
        self.check_options(width=width)
        if not 0 < sampling_ratio <= 1 or not 0 <= importance_ratio <= 1:
            raise ValueError(
                f"sampling_ratio {sampling_ratio}, importance_ratio {importance_ratio}:"
                " expected shares of 1"
            )
        encoder = [max(c * width // PUBLISHED, 2) for c in ENCODER]  # a norm needs two channels
        self.decoder = PyramidDecoder(pyramid_channels, encoder, list(SCALES))
        self.bottom = nn.Conv2d(encoder[0], encoder[0], 1)
        features = [8 * width, 4 * width, 2 * width, width]
        self.merge = nn.ModuleList(
            UpsampleMerge(below + skip, own)
            for below, skip, own in zip(
                [encoder[0], *features], encoder[1:], features, strict=False
            )
        )
        self.coarse = nn.Conv2d(features[1], 4, 3, padding=1)
        self.refine = nn.ModuleList(_point_network(c + 4, width) for c in features[1:])

    def forward(
        self,
        pyramid: Pyramid,
        size: tuple[int, int],
        attention_maps: AttentionMaps | None = None,
    ) -> dict[str, Tensor]:
        name, family = self._normals_task
        features = self._features(pyramid)
        raw = self.coarse(features[0])  # [B, 4, h, w]
        for x, refine, target in zip(
            features, self.refine, self._sizes(features[0], size), strict=True
        ):
            linear = family.to_linear(raw).to(x.dtype)
            inputs = torch.cat([stretch(x, target), stretch(linear, target)], 1)
            raw = refine(inputs.flatten(2)).unflatten(2, target)
        return {name: stretch(raw, size)}

    def losses(
        self,
        pyramid: Pyramid,
        size: tuple[int, int],
        targets: dict[str, Tensor],
        attention_maps: AttentionMaps | None = None,
    ) -> dict[str, Tensor]:
        """The negative log-likelihood, summed over four scales, see the class."""
        name, family = self._normals_task
        pooled = self.config.protocol == "host"
        known = family.valid(targets[name]).float()
        features = self._features(pyramid)
        linear = family.to_linear(self.coarse(features[0]))  # [B, 4, h, w]
        raw = family.from_linear(stretch(linear, size))
        loss = family.nll_loss(raw, targets[name], pooled=pooled)
        for x, refine, target in zip(
            features, self.refine, self._sizes(features[0], size), strict=True
        ):
            coarse = stretch(linear, target)
            index = self._points(coarse, known)  # [B, N]
            grid = _coordinates(index, target, precise(x).dtype)
            inputs = torch.cat([_sample(x, grid), _sample(linear, grid).to(x.dtype)], 1)
            raw = refine(inputs)  # of [B, C + 4, N]
            truth = _sample(targets[name], grid, "nearest")
            loss = loss + family.nll_loss(raw[..., None], truth[..., None], pooled=pooled)
            spots = index[:, None].expand(-1, 4, -1)
            linear = coarse.flatten(2).scatter(2, spots, family.to_linear(raw)).unflatten(2, target)
        return {name: loss}

    @property
    def _normals_task(self) -> tuple[str, UnitVector]:
        name, family = self.single_task
        assert isinstance(family, UnitVector)
        return name, family

    def _features(self, pyramid: Pyramid) -> list[Tensor]:
        """Three maps `[B, C, h, w]` of the decoder. The first has the resolution of the latents."""
        x, *skips = self.decoder(pyramid)
        x = self.bottom(x)
        features = []
        for merge, skip in zip(self.merge, skips, strict=True):
            x = merge(x, skip)
            features.append(x)
        return features[1:]

    @staticmethod
    def _sizes(finest_latent: Tensor, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Sizes of the three refined scales. Each is twice the previous one, up to the image's."""
        height, width = finest_latent.shape[-2:]
        return [(min(height << k, size[0]), min(width << k, size[1])) for k in (1, 2, 3)]

    @torch.no_grad()
    def _points(self, linear: Tensor, known: Tensor) -> Tensor:
        """Indices `[B, N]` of pixels to refine: the most uncertain known pixels, and random ones.

        Torch's global generator draws them. Training seeds it for every micro-batch.
        """
        kappa = linear[:, 3].flatten(1)
        inside = F.interpolate(known, linear.shape[-2:], mode="nearest").flatten(1) > 0
        count = max(int(self.config.sampling_ratio * kappa.shape[1]), 1)
        important = int(self.config.importance_ratio * count)
        unsure = kappa.masked_fill(~inside, torch.inf).topk(important, largest=False).indices
        chance = torch.rand_like(kappa)
        if self.config.protocol == "ours":
            chance += inside  # known pixels come first
        chance.scatter_(1, unsure, -1.0)
        drawn = chance.topk(count - important).indices
        return torch.cat([unsure, drawn], 1)


def _point_network(inputs: int, width: int) -> nn.Sequential:
    """Three layers of `width` and an output layer, applied to each point separately."""
    return nn.Sequential(
        *(nn.Conv1d(inputs, width, 1), nn.ReLU(), nn.Conv1d(width, width, 1), nn.ReLU()),
        *(nn.Conv1d(width, width, 1), nn.ReLU(), nn.Conv1d(width, 4, 1)),
    )


def _coordinates(index: Tensor, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Coordinates in [-1, 1] of pixels `[B, N]`, x then y, `[B, 1, N, 2]`."""
    rows, columns = (index // size[1]).to(dtype), (index % size[1]).to(dtype)
    place = torch.stack([columns / max(size[1] - 1, 1), rows / max(size[0] - 1, 1)], -1)
    return (2 * place - 1)[:, None]


def _sample(x: Tensor, grid: Tensor, mode: str = "bilinear") -> Tensor:
    """Sample a map `[B, C, h, w]` at N coordinates, `[B, C, N]`."""
    exact = precise(x)  # half precision would misplace the coordinates
    sampled = F.grid_sample(exact, grid.to(exact.dtype), mode=mode, align_corners=True)
    return sampled[:, :, 0].to(x.dtype)
