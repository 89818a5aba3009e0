"""`vpd`: segmentation or depth from a U-Net that is told the names of what may be seen.

Zhao et al. 2023, "Unleashing Text-to-Image Diffusion Models for Visual Perception" (arXiv
2303.02153; github.com/wl-zhao/VPD).

Letters in shape comments: B batch, C channels, h w pixels of a level, K names, D context.
"""

import math
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from diffusers import StableDiffusionPipeline
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from ..attention import attention_levels
from ..families import LabelMap, MetricMap, precise
from ..layers import Norm, group_norm, make_norm, normed_conv, resize
from ..one_pass import last_channels
from ..perception import Maps, Perception, Pyramid

FPN_WIDTH = 256  # published channels of the feature pyramid network; depth has three quarters
GAMMA = 1e-4  # where the text adapter begins
# those that Radford et al. 2021 (github.com/openai/CLIP) found to be enough
TEMPLATES = (
    *("itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}."),
    *("a {} in a video game.", "art of the {}.", "a photo of the small {}."),
)
# the scenes of NYUv2's official split
SCENES = (
    *("basement", "bathroom", "bedroom", "bookstore", "cafe", "classroom", "computer lab"),
    *("conference room", "dinette", "dining room", "exercise room", "foyer", "furniture store"),
    *("home office", "home storage", "indoor balcony", "kitchen", "laundry room", "living room"),
    *("office", "office kitchen", "playroom", "printer room", "reception room", "student lounge"),
    *("study", "study room"),
)


class Vpd(Perception):
    """The decoders of VPD over the last map of every level of the U-Net.

    tasks: one, of family `label_map` or `metric_map`. feature_channels: `one_pass.last_channels` of
    the U-Net. context_width: D. prompts: the K names that form the context; None is the classes, or
    for distances the scenes of NYUv2. attention: the levels whose cross-attention maps join their
    features, `attention.attention_levels`. width: channels of the decoder, a multiple of 16; 256 as
    published. norm: "batch" as published; "group" where micro-batches are too small for it.
    farthest: in metres; what is beyond cannot be said, and counts as unknown. protocol: "host"
    looks as the released code does, at t = 1 and at latents that are not scaled (by
    `latent_factor`), and pools the pixels of a batch in the loss; "ours" looks as everything here
    does, and averages over each sample's pixels.

    Context: each name's pooled text embedding, averaged over seven templates (VPD: eighty), and
    what a residual adapter adds to it; it is learned through the U-Net, so theta_C and theta_E each
    make a pass of their own. Labels: a semantic FPN over the features, beside which stands how much
    each pixel attends to each name. Distances: no maps, one coarse map that transposed convolutions
    enlarge, loss SILog, beside which a spread is learned from the same features without changing
    them. VPD gives each image the scene class it was recorded under; that is not known of other
    images, so here all scenes form the context, and attention chooses. The paper trains the whole
    U-Net, at a tenth of the rate (`--train_unet full`), and predicts in windows
    (`predict(window=512)`).

    Pseudo-labels: theta_C's most probable class at every pixel inside the image, without threshold
    or weight. Hard, because theta_C is theta_E's own past: its probabilities are nearly theta_E's,
    and would teach it nothing; and without ignored pixels, because what is unsure are borders and
    rare classes, which would vanish from what is learned. Distances: as they are.
    """

    published = FPN_WIDTH
    one_of: ClassVar = ("label_map", "metric_map")
    embeddings: Tensor

    @register_to_config
    def __init__(
        self,
        tasks: dict[str, dict[str, Any]],
        feature_channels: list[int],
        context_width: int,
        prompts: list[str] | None = None,
        attention: list[int] | None = None,
        width: int = FPN_WIDTH,
        norm: Norm = "batch",
        farthest: float = 10.0,
        protocol: Literal["ours", "host"] = "ours",
        latent_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.add_families(tasks)
        self.check_options(width=width)
        _, family = self.only
        names = name_prompts(tasks, prompts)
        self.register_buffer("embeddings", torch.zeros(len(names), context_width))
        self.text_adapter = nn.Sequential(
            nn.Linear(context_width, context_width),
            nn.GELU(),
            nn.Linear(context_width, context_width),
        )
        self.gamma = nn.Parameter(torch.full((context_width,), GAMMA))
        channels = list(feature_channels)
        if isinstance(family, LabelMap):
            self.reads_attention = True
            for level in attention or []:
                channels[level] += len(names)
            self.read: nn.Module = SemanticFPN(channels, family.raw_channels, width, norm)
        else:
            self.read = DistanceDecoder(channels, 3 * width // 4, norm, farthest)
        if protocol == "host":
            self.seen_at, self.latent_factor = 1, latent_factor

    @classmethod
    def mount(
        cls, base: StableDiffusionPipeline, tasks: dict[str, dict[str, Any]], **options: Any
    ) -> "Vpd":
        """A fresh host whose context says the names in the words of the base's text encoder."""
        found = {
            "attention": attention_levels(base.unet),
            "latent_factor": 1 / base.vae.config.scaling_factor,
        }
        channels, width = last_channels(base.unet), base.unet.config.cross_attention_dim
        host = cls(tasks, channels, width, **{**found, **cls.fitted(base.unet, options)})
        for place, name in enumerate(name_prompts(tasks, host.config.prompts)):
            texts = [template.format(name) for template in TEMPLATES]
            ids = base.tokenizer(
                texts, padding="max_length", truncation=True, return_tensors="pt"
            ).input_ids
            with torch.no_grad():
                pooled = base.text_encoder(ids.to(base.text_encoder.device)).pooler_output
            host.embeddings[place] = pooled.float().mean(0)
        return host

    @property
    def own_context(self) -> Tensor:
        """Embeddings of the names, [1, K, D]."""
        return (self.embeddings + self.gamma * self.text_adapter(self.embeddings))[None]

    def forward(
        self, pyramid: Pyramid, size: tuple[int, int], maps: Maps | None = None
    ) -> dict[str, Tensor]:
        own = zip(pyramid, self.config.feature_channels, strict=True)
        features = [level[:, -channels:] for level, channels in own]
        if self.reads_attention:
            for level in self.config.attention or []:
                if not maps or level not in maps:
                    raise ValueError(f"no attention map of level {level}: see record_attention")
                features[level] = torch.cat([features[level], maps[level]], 1)
        name, _ = self.only
        return {name: self.read(features, size)}

    def losses(
        self,
        pyramid: Pyramid,
        size: tuple[int, int],
        targets: dict[str, Tensor],
        maps: Maps | None = None,
    ) -> dict[str, Tensor]:
        name, family = self.only
        raw, target = self(pyramid, size, maps)[name], targets[name]
        pooled = self.config.protocol == "host"
        if isinstance(family, MetricMap):
            _, target = family.within(target, target, self.config.farthest)
            silog = family.silog(raw, target, keep=0.5, pooled=pooled)
            return {name: silog + family.scale_loss(raw, target)}
        if pooled:  # unknown pixels count as right: the mean is over all
            error = F.cross_entropy(precise(raw), target[:, 0], ignore_index=255, reduction="none")
            return {name: error.mean().expand(len(raw))}
        return {name: family.loss(raw, target)}


def name_prompts(tasks: dict[str, dict[str, Any]], prompts: list[str] | None) -> list[str]:
    """The names that form the context."""
    (config,) = tasks.values()
    return list(prompts or config.get("names") or SCENES)


class SemanticFPN(nn.Module):
    """Logits from features of several levels, finest first (Kirillov et al. 2019, 1901.02446).

    Every level takes from the coarser ones, is enlarged step by step, and all are added.
    """

    def __init__(self, channels: list[int], classes: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.branches = nn.ModuleList(Branch(width, level, norm) for level in range(len(channels)))
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        levels = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for coarse, fine in pairwise(reversed(range(len(levels)))):
            levels[fine] = levels[fine] + F.interpolate(levels[coarse], levels[fine].shape[2:])
        sizes = [x.shape[-2:] for x in levels]
        enlarged = [b(x, sizes) for b, x in zip(self.branches, levels, strict=True)]
        total = torch.stack(enlarged).sum(0)
        return resize(self.classify(self.dropout(total)), size)


class Branch(nn.Module):
    """One level on its way to the finest: smoothed, then convolved and enlarged step by step."""

    def __init__(self, width: int, level: int, norm: Norm) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(width, width, 3, padding=1)
        count = max(level, 1)
        self.steps = nn.ModuleList(
            normed_conv(width, width, 3, norm, nn.ReLU) for _ in range(count)
        )

    def forward(self, x: Tensor, sizes: list[torch.Size]) -> Tensor:
        """sizes: of all levels, finest first."""
        x = self.smooth(x)
        for step, finer in zip(self.steps, reversed(range(len(self.steps))), strict=True):
            x = resize(step(x), sizes[finer])
        return x


class DistanceDecoder(nn.Module):
    """Log distance and log-scale from features of several levels, finest first.

    The third level's resolution is where all meet: finer ones by strided convolutions.
    """

    def __init__(self, channels: list[int], width: int, norm: Norm, farthest: float) -> None:
        super().__init__()
        self.meet, self.farthest = min(2, len(channels) - 1), farthest
        self.shrink = nn.ModuleList(
            _shrink(c, self.meet - level) for level, c in enumerate(channels[: self.meet])
        )
        wide, slim = 8 * width, width // 6  # published: 1536 and 32
        self.join = nn.Sequential(
            nn.Conv2d(sum(channels), wide, 1), group_norm(wide, 16), nn.ReLU()
        )
        self.enlarge = nn.Sequential(
            *(
                layer
                for inputs in (wide, slim, slim)
                for layer in (
                    nn.ConvTranspose2d(inputs, slim, 2, 2, bias=False),
                    make_norm(norm, slim),
                    nn.ReLU(),
                )
            ),
            normed_conv(slim, width, 3, norm, nn.ReLU),
        )
        self.last = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.distance = nn.Conv2d(width, 1, 3, padding=1)
        self.spread = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        shrunk = [shrink(x) for shrink, x in zip(self.shrink, features, strict=False)]
        met = features[self.meet]
        coarser = [F.interpolate(x, met.shape[-2:]) for x in features[self.meet + 1 :]]
        x = self.enlarge(self.join(torch.cat([*shrunk, met, *coarser], 1)))
        x = self.last(resize(x, size))
        distance = F.logsigmoid(precise(self.distance(x))) + math.log(self.farthest)
        return torch.cat([distance, precise(self.spread(x.detach()))], 1)


def _shrink(channels: int, times: int) -> nn.Sequential:
    """Strided convolutions, a norm and an activation between them."""
    layers: list[nn.Module] = []
    for _ in range(times):
        if layers:
            layers += [group_norm(channels, 16), nn.ReLU()]
        layers.append(nn.Conv2d(channels, channels, 3, 2, 1))
    return nn.Sequential(*layers)
