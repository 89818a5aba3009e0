"""`vpd`: segmentation or depth from a U-Net that is conditioned on names.

Zhao et al. 2023, "Unleashing Text-to-Image Diffusion Models for Visual Perception" (arXiv
2303.02153; github.com/wl-zhao/VPD).

Letters in shape comments: B batch, C channels, h w pixels of a level, K names, D text width.
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
from ..backbone import Backbone
from ..conditioning import Conditioning
from ..families import LabelMap, MetricMap, precise
from ..layers import Norm, group_norm, make_norm, normed_conv, resize
from ..one_pass import last_channels
from ..perception import AttentionMaps, Perception, Pyramid

FPN_WIDTH = 256  # published channels of the feature pyramid network; depth has three quarters
GAMMA = 1e-4  # initial weight of the text residual
# Radford et al. 2021 (github.com/openai/CLIP) found that these seven templates are enough
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
    """The decoders of VPD. They read the last map of every level of the U-Net.

    Conditioning: the pooled text embedding of each name, averaged over seven templates (VPD:
    eighty), plus a learned residual. The residual is learned through the U-Net, so theta_C and
    theta_E each need their own pass. The paper trains the whole U-Net (`--train_unet full`) at a
    tenth of the learning rate, and predicts in windows (`predict(window=512)`).

    Label maps: a semantic FPN over the features and the attention of each pixel to each name.

    Distances: no attention maps; transposed convolutions enlarge one coarse map. The loss is SILog.
    A spread is also learned. It reads the same features without changing them. VPD conditions each
    image on the scene class of its recording. Most images do not have a scene class, so here all
    scenes form the conditioning, and attention chooses among them.

    Pseudo-labels are theta_C's most probable classes at all pixels inside the image, without
    threshold or weight. They are classes and not probabilities: theta_C follows theta_E, so its
    probabilities are nearly those of theta_E, and theta_E would learn nothing from them. No pixel
    is ignored: uncertain pixels are borders and rare classes, which would vanish from the labels.
    Distances are used unchanged.

    Args:
        tasks: one task of family `label_map` or `metric_map`.
        feature_channels: `one_pass.last_channels` of the U-Net.
        context_width: D, the width of the U-Net's text states.
        prompts: the K names of the conditioning. None takes the classes; for distances, the scenes
            of NYUv2.
        attention: levels at which attention maps are added to the features, see
            `attention.attention_levels`.
        width: channels of the decoder, a multiple of 16 (published: 256).
        norm: "batch" as published, "group" if micro-batches are too small for batch norm.
        farthest: distance in metres. Farther points cannot be predicted, and count as unknown.
        protocol: "host" trains as the released code: the U-Net runs at t = 1 on latents without
            scaling (see `latent_scale`), and the loss pools the pixels of a batch. "ours" uses
            t = 0 and scaled latents, and averages over the pixels of each sample.
        latent_scale: factor that undoes the scaling of latents, for protocol "host".
    """

    name: ClassVar = "vpd"
    has_own_conditioning: ClassVar = True
    published_width = FPN_WIDTH
    single_task_families: ClassVar = ("label_map", "metric_map")
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
        latent_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.add_families(tasks)
        self.check_options(width=width)
        _, family = self.single_task
        names = name_prompts(tasks, prompts)
        self.register_buffer("embeddings", torch.zeros(len(names), context_width))
        self.text_residual = nn.Sequential(
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
            self.timestep, self.latent_scale = 1, latent_scale

    @classmethod
    def mount(
        cls, base: StableDiffusionPipeline, tasks: dict[str, dict[str, Any]], **options: Any
    ) -> "Vpd":
        """A new host. The text encoder of the base encodes the names of its conditioning.

        Args:
            base: all parts of the base.
            tasks: task name -> the config of its family.
            options: options of the host.
        """
        defaults = {
            "attention": attention_levels(base.unet),
            "latent_scale": 1 / base.vae.config.scaling_factor,
        }
        channels, width = last_channels(base.unet), base.unet.config.cross_attention_dim
        options = {**defaults, **cls.default_options(base.unet, options)}
        host = cls(tasks, channels, width, **options)
        for place, name in enumerate(name_prompts(tasks, host.config.prompts)):
            texts = [template.format(name) for template in TEMPLATES]
            with torch.no_grad():
                pooled = Backbone.of(base).pool_text(texts)
            host.embeddings[place] = pooled.float().mean(0)
        return host

    def own_conditioning(self) -> Conditioning:
        """The embeddings of the names as text, `[1, K, D]`."""
        return Conditioning(
            (self.embeddings + self.gamma * self.text_residual(self.embeddings))[None]
        )

    def forward(
        self,
        pyramid: Pyramid,
        size: tuple[int, int],
        attention_maps: AttentionMaps | None = None,
    ) -> dict[str, Tensor]:
        own = zip(pyramid, self.config.feature_channels, strict=True)
        features = [level[:, -channels:] for level, channels in own]
        if self.reads_attention:
            for level in self.config.attention or []:
                if not attention_maps or level not in attention_maps:
                    raise ValueError(f"no attention map of level {level}: see record_attention")
                features[level] = torch.cat([features[level], attention_maps[level]], 1)
        name, _ = self.single_task
        return {name: self.read(features, size)}

    def losses(
        self,
        pyramid: Pyramid,
        size: tuple[int, int],
        targets: dict[str, Tensor],
        attention_maps: AttentionMaps | None = None,
    ) -> dict[str, Tensor]:
        name, family = self.single_task
        raw, target = self(pyramid, size, attention_maps)[name], targets[name]
        pooled = self.config.protocol == "host"
        if isinstance(family, MetricMap):
            _, target = family.within(target, target, self.config.farthest)
            silog = family.silog(raw, target, keep=0.5, pooled=pooled)
            return {name: silog + family.scale_loss(raw, target)}
        if pooled:  # the mean is over all pixels, and unknown pixels count as right
            error = F.cross_entropy(precise(raw), target[:, 0], ignore_index=255, reduction="none")
            return {name: error.mean().expand(len(raw))}
        return {name: family.loss(raw, target)}


def name_prompts(tasks: dict[str, dict[str, Any]], prompts: list[str] | None) -> list[str]:
    """The names of the conditioning of a host.

    Args:
        tasks: task name -> the config of its family.
        prompts: the names; None takes the classes, or the scenes of NYUv2.
    """
    (config,) = tasks.values()
    return list(prompts or config.get("names") or SCENES)


class SemanticFPN(nn.Module):
    """Logits from features of several levels, finest first.

    Coarser levels are added to finer ones. Then all levels are enlarged step by step and added.

    Source: Kirillov et al. 2019, arXiv 1901.02446.
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
    """Smooths one level, then convolves and enlarges it step by step to the finest level."""

    def __init__(self, width: int, level: int, norm: Norm) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(width, width, 3, padding=1)
        count = max(level, 1)
        self.steps = nn.ModuleList(
            normed_conv(width, width, 3, norm, nn.ReLU) for _ in range(count)
        )

    def forward(self, x: Tensor, sizes: list[torch.Size]) -> Tensor:
        """Enlarge one level.

        Args:
            x: features of the level, `[B, C, h, w]`.
            sizes: sizes of all levels, finest first.
        """
        x = self.smooth(x)
        for step, finer in zip(self.steps, reversed(range(len(self.steps))), strict=True):
            x = resize(step(x), sizes[finer])
        return x


class DistanceDecoder(nn.Module):
    """Log distance and log-scale from features of several levels, finest first.

    All levels are joined at the resolution of the third level. Strided convolutions shrink the
    finer levels.
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
    """Strided convolutions, with a norm and an activation between them."""
    layers: list[nn.Module] = []
    for _ in range(times):
        if layers:
            layers += [group_norm(channels, 16), nn.ReLU()]
        layers.append(nn.Conv2d(channels, channels, 3, 2, 1))
    return nn.Sequential(*layers)
