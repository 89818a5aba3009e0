"""`idisc`: normals or depth, from parts into which the model divides a scene.

Piccinelli, Sakaridis, Yu 2023, "iDisc: Internal Discretization for Monocular Depth Estimation"
(arXiv 2304.06334; github.com/SysCV/idisc).

Letters in shape comments: B batch, C channels, h w pixels of a map, N of all maps, Q queries.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from ..decoders import PyramidDecoder
from ..families import MetricMap, UnitVector, precise
from ..layers import Norm, normed_conv, stretch
from ..perception import AttentionMaps, Perception, Pyramid

SWIN_L = (1536, 768, 384, 192)  # channels of the published encoder, coarsest first
SWIN_SCALES = (0.25, 0.5, 1.0, 2.0)  # its strides 32 to 4, relative to stride 8 of the latents
HIDDEN = 256  # published channels of the decoder
HEADS = 4  # heads of the deformable attention
POINTS = 4  # points that each head samples in every map
LAYERS = 4  # layers of the deformable attention
EXPANSION = 4  # width of a hidden layer, relative to its input
DEPTH = 2  # rounds of `Partition`, and of `Reader`


class IDisc(Perception):
    """The decoder of iDisc. Its input is a decoder that imitates the maps of their Swin-L.

    Deformable attention mixes the maps. At three resolutions, queries compete for the pixels
    (adaptive feature partition). Then the pixels read from the queries (internal scene
    discretisation). The three predictions are averaged, as unit vectors with kappa, or as metres.
    (The released code resizes vectors before it normalises them, and resizes their average with
    cubic interpolation.)

    The loss of vectors is the negative log-likelihood of Bae et al. The loss of distances is SILog
    times 10. iDisc has no uncertainty of distances, so a spread is also learned. It reads the same
    features without changing them.

    Pseudo-labels are theta_C's averaged predictions at all pixels inside the image, all with the
    same weight. The average of three predictions is the most certain one available. SILog compares
    pixels with each other, so leaving out uncertain pixels would change the comparison.

    Args:
        tasks: one task of family `unit_vector` or `metric_map`.
        pyramid_channels: `one_pass.pyramid_channels` of the U-Net.
        width: channels of the decoder, a multiple of 16 (published: 256). All other widths are
            scaled with it.
        queries: number of parts of a scene, at each of three resolutions.
        norm: "batch" as published, "group" if micro-batches are too small for batch norm.
        protocol: "host" trains as the released code: its loss pools the pixels of a batch, and
            leaves out normals whose cosine is beyond 0.999. "ours" averages over the pixels of each
            sample.
    """

    name: ClassVar = "idisc"
    published_width = HIDDEN
    single_task_families: ClassVar = ("unit_vector", "metric_map")

    @register_to_config
    def __init__(
        self,
        tasks: dict[str, dict[str, Any]],
        pyramid_channels: list[int],
        width: int = HIDDEN,
        queries: int = 32,
        norm: Norm = "batch",
        protocol: Literal["ours", "host"] = "ours",
    ) -> None:
        super().__init__()
        self.add_families(tasks)
        self.check_options(width=width)
        encoder = [c * width // HIDDEN for c in SWIN_L]
        outputs = 4 if self.single_task[1].name == UnitVector.name else 1
        self.decoder = PyramidDecoder(pyramid_channels, encoder, list(SWIN_SCALES))
        self.mix = DeformableDecoder(encoder, width, norm)
        self.partitions = nn.ModuleList(Partition(width, width // 2, queries) for _ in encoder[1:])
        self.readers = nn.ModuleList(Reader(width, width // 2, outputs) for _ in encoder[1:])

    def forward(
        self,
        pyramid: Pyramid,
        size: tuple[int, int],
        attention_maps: AttentionMaps | None = None,
    ) -> dict[str, Tensor]:
        merged, mixed = self.mix(self.decoder(pyramid))
        # the coarsest map is not read, it only helped the others
        parts = [divide(x) for divide, x in zip(self.partitions, mixed[1:], strict=True)]
        read = [r(x, p) for r, x, p in zip(self.readers, merged[1:], parts, strict=True)]
        finest = merged[-1].shape[-2:]
        name, family = self.single_task
        outputs = torch.stack([stretch(family.to_linear(raw), finest) for raw in read])
        return {name: family.from_linear(stretch(outputs.mean(0), size))}

    def losses(
        self,
        pyramid: Pyramid,
        size: tuple[int, int],
        targets: dict[str, Tensor],
        attention_maps: AttentionMaps | None = None,
    ) -> dict[str, Tensor]:
        name, family = self.single_task
        raw, pooled = self(pyramid, size)[name], self.config.protocol == "host"
        if isinstance(family, UnitVector):
            return {name: family.nll_loss(raw, targets[name], pooled=pooled)}
        assert isinstance(family, MetricMap)
        silog = family.silog(raw, targets[name], keep=0.15, pooled=pooled)
        return {name: 10 * silog + family.scale_loss(raw, targets[name])}


class DeformableDecoder(nn.Module):
    """Mixes maps with each other.

    It returns two lists of maps `[B, width, h, w]`, coarsest first: the mixed maps merged with the
    encoder's maps from coarse to fine, and the mixed maps alone.
    """

    def __init__(self, channels: list[int], width: int, norm: Norm) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(1, width)) for c in channels
        )
        self.level = nn.Parameter(torch.randn(len(channels), width))
        # no bias in the last layer, because batch norm would remove it
        self.layers = nn.ModuleList(
            DeformableLayer(width, len(channels), bias=norm == "group" or place + 1 < LAYERS)
            for place in range(LAYERS)
        )
        self.out, self.lateral, self.merge = (
            nn.ModuleList(normed_conv(c, width, kernel, norm, nn.GELU) for c in inputs)
            for inputs, kernel in (
                ([width] * len(channels), 1),
                (channels, 1),
                ([width] * len(channels), 3),
            )
        )

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        shapes = [(x.shape[2], x.shape[3]) for x in maps]
        narrow = [narrow(x) for narrow, x in zip(self.narrow, maps, strict=True)]
        x = torch.cat([n.flatten(2).transpose(1, 2) for n in narrow], 1)  # [B, N, C]
        where = torch.cat(
            [
                sine_positions(n).flatten(1).T + level
                for n, level in zip(narrow, self.level, strict=True)
            ]
        )
        places = torch.cat([_centres(shape, x.device) for shape in shapes])  # [N, 2]
        for layer in self.layers:
            x = layer(x, where, places, shapes)
        parts = x.transpose(1, 2).split([h * w for h, w in shapes], 2)
        attended = [p.unflatten(2, s) for p, s in zip(parts, shapes, strict=True)]
        mixed = [out(x) for out, x in zip(self.out, attended, strict=True)]
        merged: list[Tensor] = []
        for lateral, merge, of_encoder, own in zip(
            self.lateral, self.merge, maps, mixed, strict=True
        ):
            y = lateral(of_encoder) + own
            if merged:
                y = y + F.interpolate(merged[-1], y.shape[-2:], mode="nearest")
            merged.append(merge(y))
        return merged, mixed


class DeformableLayer(nn.Module):
    """Deformable attention and a small network, both with a residual connection."""

    def __init__(self, width: int, levels: int, *, bias: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = DeformableAttention(width, levels)
        self.network = small_network(width, bias=bias)

    def forward(
        self, x: Tensor, where: Tensor, places: Tensor, shapes: list[tuple[int, int]]
    ) -> Tensor:
        x = x + self.attention(self.norm(x) + where, x, places, shapes)
        return x + self.network(x)  # type: ignore[no-any-return]


class DeformableAttention(nn.Module):
    """Every pixel attends to a few places near it in every map. Written in plain torch.

    Source: Zhu et al. 2021, arXiv 2010.04159.
    """

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.offsets = nn.Linear(width, HEADS * levels * POINTS * 2)
        self.weights = nn.Linear(width, HEADS * levels * POINTS)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.weights.bias)
        for layer in (self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        # each head starts with its own direction, at distances of 1, 2, ... pixels
        angle = torch.arange(HEADS) * (2 * math.pi / HEADS)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, POINTS + 1)[:, None] * direction[:, None, None]
        with torch.no_grad():
            self.offsets.bias.copy_(steps.expand(-1, levels, -1, -1).flatten())

    def forward(
        self, query: Tensor, x: Tensor, places: Tensor, shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Attend.

        Args:
            query: queries of all pixels of all maps, [B, N, C].
            x: features of all pixels of all maps, [B, N, C].
            places: x and y of each pixel in [0, 1], [N, 2].
            shapes: height and width of each map.
        """
        # places need float32: half precision cannot tell neighbouring pixels apart
        offsets = precise(self.offsets(query)).unflatten(-1, (HEADS, self.levels, POINTS, 2))
        weights = self.weights(query).unflatten(-1, (HEADS, -1)).softmax(-1)
        values = precise(self.value(x)).unflatten(-1, (HEADS, -1)).permute(0, 2, 3, 1)
        samples = []
        for level, (shape, value) in enumerate(
            zip(shapes, values.split([h * w for h, w in shapes], 3), strict=True)
        ):
            sides = torch.tensor(shape[::-1], device=x.device)
            where = places[:, None, None] + offsets[..., level, :, :] / sides
            samples.append(
                F.grid_sample(
                    value.unflatten(3, shape).flatten(0, 1),  # [B * heads, d, h, w]
                    (2 * where - 1).transpose(1, 2).flatten(0, 1),  # [B * heads, N, points, 2]
                    align_corners=False,
                )
            )
        sampled = torch.cat(samples, -1)  # [B * heads, d, N, levels * points]
        total = (sampled * weights.transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
        heads = total.unflatten(0, (-1, HEADS)).flatten(1, 2).transpose(1, 2)
        return self.out(heads.to(x.dtype))  # type: ignore[no-any-return]


class Partition(nn.Module):
    """Adaptive feature partition: learned queries compete for the pixels of a map, [B, Q, D].

    All rounds share their weights, as in the released code.
    """

    def __init__(self, width: int, query_width: int, queries: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, query_width))
        self.attention = CrossAttention(query_width, width, compete=True)
        self.network = small_network(query_width)

    def forward(self, x: Tensor) -> Tensor:
        pixels = (x + sine_positions(x)).flatten(2).transpose(1, 2)
        queries = self.queries.expand(len(x), -1, -1)
        for _ in range(DEPTH):
            queries = queries + self.attention(queries, pixels)
            queries = queries + self.network(queries)
        return queries


class Reader(nn.Module):
    """Internal scene discretisation: the pixels of a map read from the queries, [B, A, h, w].

    outputs: 4 for vectors with kappa; 1 for log distances. A log-scale is then added as a second
    output. It reads the same features without changing them.
    """

    def __init__(self, width: int, query_width: int, outputs: int) -> None:
        super().__init__()
        self.attention = nn.ModuleList(CrossAttention(width, query_width) for _ in range(DEPTH))
        self.networks = nn.ModuleList(small_network(width) for _ in range(DEPTH))
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.LayerNorm(width))
        self.output = nn.Linear(width, outputs)
        self.spread = nn.Linear(width, 1) if outputs == 1 else None

    def forward(self, x: Tensor, queries: Tensor) -> Tensor:
        pixels = (x + sine_positions(x)).flatten(2).transpose(1, 2)
        for attention, network in zip(self.attention, self.networks, strict=True):
            pixels = pixels + attention(pixels, queries)
            pixels = pixels + network(pixels)
        pixels = self.last(pixels)
        output = self.output(pixels)
        if self.spread is not None:
            output = torch.cat([output, self.spread(pixels.detach())], -1)
        return output.transpose(1, 2).unflatten(2, x.shape[-2:])  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Attention of `sink` `[B, I, C]` to `source` `[B, J, S]`, with one head.

    compete: the softmax is over the sinks, so they compete for each source (slot attention,
    Locatello et al. 2020, arXiv 2006.15055). Otherwise it is over the sources.
    """

    def __init__(self, width: int, source_width: int, *, compete: bool = False) -> None:
        super().__init__()
        self.compete = compete
        # no bias where it would be equal for all values of a softmax: it would have no effect
        self.norm = nn.LayerNorm(width, eps=1e-6, bias=not compete)
        self.norm_source = nn.LayerNorm(source_width, eps=1e-6)
        self.query = nn.Linear(width, width, bias=not compete)
        self.key = nn.Linear(source_width, width, bias=compete)
        self.value, self.out = nn.Linear(source_width, width), nn.Linear(width, width)

    def forward(self, sink: Tensor, source: Tensor) -> Tensor:
        source = self.norm_source(source)
        query, key, value = self.query(self.norm(sink)), self.key(source), self.value(source)
        if not self.compete:
            return self.out(F.scaled_dot_product_attention(query, key, value))  # type: ignore[no-any-return]
        scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])  # [B, I, J]
        share = precise(scores).softmax(1) + 1e-6
        share = (share / share.sum(2, keepdim=True)).to(value.dtype)
        return self.out(share @ value)  # type: ignore[no-any-return]


def small_network(width: int, *, bias: bool = True) -> nn.Sequential:
    """A normalised network with one wide hidden layer.

    Args:
        width: channels of input and output.
        bias: whether the output has a bias.
    """
    wide = EXPANSION * width
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width, bias=bias)
    )


def sine_positions(x: Tensor) -> Tensor:
    """Position encoding of a map [B, C, h, w]: sines and cosines of pixel positions, [C, h, w].

    Source: Carion et al. 2020, arXiv 2005.12872, normalised to one period of 2 pi over the map.
    """
    channels, height, width = x.shape[1:]
    each = channels // 4
    rates = 10_000 ** (torch.arange(each, device=x.device) / each)
    parts = []
    for length, shape in ((height, (-1, 1)), (width, (1, -1))):
        place = torch.arange(1, length + 1, device=x.device) * (2 * math.pi / length)
        angle = place / rates[:, None]  # [channels / 4, length]
        for wave in (angle.sin(), angle.cos()):
            parts.append(wave.view(each, *shape).expand(-1, height, width))
    return torch.cat(parts).to(x.dtype)


def _centres(shape: tuple[int, int], device: torch.device) -> Tensor:
    """x and y of the pixel centres of a map, in [0, 1], [h w, 2]."""
    y, x = ((torch.arange(n, device=device) + 0.5) / n for n in shape)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
