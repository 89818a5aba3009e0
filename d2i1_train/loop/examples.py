"""Examples: samples of a source as inputs of the model, with their views and feature dropout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from d2i1_data.dataset.sample import Sample, image_sha256
from d2i1_data.diff2in1 import Conditioning, Diff2in1Pipeline, pyramid_channels
from d2i1_data.diff2in1.images import pad_to_stride, to_batches
from d2i1_data.sources import Rows

from ..objective import Targets
from ..perturbation import Drawn, draw_channel_weights, draw_patch
from ..pseudo_labels import BELIEF_VIEWS, ViewInput
from ..theta import Noised, Theta
from .augment import Augmentation, View
from .cache import Cache

Size = tuple[int, int]  # height, width

SMALL_BASE = 10_000_000  # up to this number of U-Net parameters, pyramids are kept in memory
MEMORY = 4 * 1024**3  # bytes for kept examples, for each source on each process


class Example(NamedTuple):
    """One sample as input of the model. Its sides are padded to the stride of the base.

    views: for a created sample the inputs from which theta_C predicts its labels, by belief view;
    None stands for theta_E's own input. Without views the labels are those of the dataset.
    """

    latents: Tensor  # [C, h, w], theta_E's input
    targets: Targets  # [C, H, W] each, padding unknown
    inside: Tensor  # [1, H, W] bool, False where padded
    created: bool
    pyramid: tuple[Tensor, ...] | None
    caption: str
    original: Tensor | None = None  # [C, h, w] with the original colours, if they were changed
    noised: Noised | None = None  # for the denoising loss
    views: Mapping[str, ViewInput | None] = {}
    perturbation: Drawn = Drawn()
    weight: float = 1.0  # in the objective

    @property
    def nbytes(self) -> int:
        """Memory of the tensors that can be kept, in bytes."""
        maps = [self.latents, self.inside, *self.targets.values(), *(self.pyramid or ())]
        for view in self.views.values():
            maps += [view.latents, *(view.pyramid or ())] if view else []
        return sum(one.nbytes for one in maps)


@dataclass(frozen=True, kw_only=True)
class Use:
    """How training uses the samples of a source.

    Args:
        created: whether they are created samples.
        denoise: whether they also get noisy latents, for the denoising loss.
        belief_views: views from which theta_C predicts the labels of created samples. Without
            views the labels of the dataset are used.
        dropout: share of the pyramid's channels that theta_E does not get.
        cutmix: share of the samples in which another sample replaces a rectangle for theta_E.
        weight: weight of each sample in the objective.
    """

    created: bool = False
    denoise: bool = False
    belief_views: Sequence[str] = ("image",)
    dropout: float = 0.0
    cutmix: float = 0.0
    weight: float = 1.0


REAL = Use()


class Examples:
    """Rows of a source as examples.

    The first examples are kept in memory, up to a limit. With a cache, the latents of all examples
    are kept on disk. Both happen only if the only augmentation is a flip, because with any other
    every draw is new. If the U-Net is frozen and small, pyramids are also kept in memory.

    Args:
        rows: rows of the source.
        pipe: encodes images and captions.
        theta: theta_E, for pyramids.
        conditioning: the empty prompt, a batch of one.
        cache: the cache on disk.
        augment: the augmentation.
        use: how training uses them.
    """

    def __init__(
        self,
        rows: Rows,
        pipe: Diff2in1Pipeline,
        theta: Theta,
        conditioning: Conditioning,
        cache: Cache,
        *,
        augment: Augmentation,
        use: Use = REAL,
    ) -> None:
        self.rows, self.pipe, self.theta, self.conditioning = rows, pipe, theta, conditioning
        self.cache, self.augment, self.use = cache, augment, use
        self.views = tuple(use.belief_views) if use.created else ()
        self.channels = pyramid_channels(theta.unet)
        # a mirrored view is kept as the mirrored example
        self.mirrors = augment.flip or "mirror" in self.views
        small = sum(p.numel() for p in theta.unet.parameters()) < SMALL_BASE
        self.keeps_pyramids = small and theta.frozen and augment.recurs
        self.kept: dict[tuple[int, bool, Size | None], Example] = {}
        self.captions: dict[str, Conditioning] = {}

    def __len__(self) -> int:
        return len(self.rows.usable)

    def identity(self, index: int) -> str:
        """Id of the sample in a row."""
        return self.rows.source.identity(self.rows.usable[index])

    def sizes(self) -> list[Size]:
        """Height and width of the example of each row, padded to the stride of the base."""
        if self.augment.crop:
            found = [self.augment.crop] * len(self)
        else:
            rows = tqdm(self.rows.usable, "read sizes", unit="image", leave=False, delay=2)
            found = [self.rows.source.image_size(row) for row in rows]
        stride = self.pipe.stride
        return [
            (-(-height // stride) * stride, -(-width // stride) * stride) for height, width in found
        ]

    def draw(self, index: int, generator: torch.Generator, size: Size | None = None) -> Example:
        """Draw an example of a row. The generator decides its view, noise and perturbation.

        Args:
            index: number of the row.
            generator: decides all that is drawn.
            size: height and width that the image is padded to; None pads to the stride of the base.
        """
        view = self.augment.draw(generator)._replace(padded=size)
        if self.augment.recurs:
            example = self.get(index, view.mirrored, size)
            if "mirror" in self.views:
                other = self.get(index, not view.mirrored, size)
                views = {**example.views, "mirror": ViewInput(other.latents, other.pyramid)}
                example = example._replace(views=views)
        else:
            example = self._make(index, view)
        example = self._noised(example, generator) if self.use.denoise else example
        return example._replace(perturbation=self._perturbation(example, generator))

    def _perturbation(self, example: Example, generator: torch.Generator) -> Drawn:
        """Draw how theta_E's view of an example differs from theta_C's."""
        weights = patch = None
        if self.use.dropout:
            weights = draw_channel_weights(self.channels, self.use.dropout, generator)
        if self.use.cutmix:
            reduction = 2 ** (len(self.channels) - 1)
            height, width = (side // reduction for side in example.latents.shape[1:])
            patch = draw_patch((height, width), self.use.cutmix, generator)
        return Drawn(weights, patch)

    @torch.no_grad()
    def get(self, index: int, mirrored: bool, size: Size | None = None) -> Example:
        """The example of a row, mirrored or not. size: see `draw`."""
        key = index, mirrored, size
        if key in self.kept:
            return self.kept[key]
        example = self._make(index, View(mirrored, padded=size))
        if self._fits(index, example):
            self.kept[key] = example
        return example

    def _fits(self, index: int, example: Example) -> bool:
        """Whether to keep an example in memory. Its row decides, not the order of draws."""
        return (index + 1) * (1 + self.mirrors) * example.nbytes <= MEMORY

    @torch.no_grad()
    def _make(self, index: int, view: View) -> Example:
        source, row = self.rows.source, self.rows.usable[index]
        sample = source[row] if self.views else source.labelled(row)  # views: theta_C labels it
        families = self.pipe.perception.families
        stored = {} if self.views else sample.targets
        known = {n: f.to_tensor(stored[n])[None] for n, f in families.items() if n in stored}
        image, maps = view.frame(to_batches(sample.image)[0], known, families)
        size, pixels = (image.shape[2], image.shape[3]), self._padded(image, view)
        padding = (0, pixels.shape[3] - size[1], 0, pixels.shape[2] - size[0])
        targets = {}
        for name, family in families.items():
            target = maps[name][0] if name in maps else family.blank(size)
            targets[name] = F.pad(target, padding, value=family.unknown)
        inside = F.pad(torch.ones(1, *size, dtype=torch.bool), padding)
        original = None
        if view.colours is not None:
            if self.use.created or self.use.denoise:  # otherwise nothing uses the original colours
                original = self._latents(sample, pixels, view)
            pixels = self._padded(view.recoloured(image), view)
        latents = self._latents(sample, pixels, view)
        plain = Example(
            latents,
            targets,
            inside,
            self.use.created,
            None,
            sample.caption or "",
            original,
            views=self._view_inputs(sample, image, view, original),
            weight=self.use.weight,
        )
        if not self.keeps_pyramids:
            return plain
        whole = plain._replace(pyramid=self._pyramid(latents))
        return whole if self._fits(index, whole) else plain

    def _view_inputs(
        self, sample: Sample, image: Tensor, view: View, original: Tensor | None
    ) -> dict[str, ViewInput | None]:
        """The inputs of theta_C by belief view.

        A mirrored view that is also an example of its own is added by `draw`.

        Args:
            sample: the created sample.
            image: its image in the geometry of the view, `[1, 3, H, W]`.
            view: the view that was drawn.
            original: latents in the original colours, if theta_E gets others.
        """
        views: dict[str, ViewInput | None] = {}
        for name in self.views:
            change = BELIEF_VIEWS[name]
            if name == "image":
                views[name] = None if original is None else ViewInput(original)
                continue
            if change.mirrored and self.augment.recurs:
                continue
            pixels = self._padded(image.flip(-1) if change.mirrored else image, view)
            if change.scale != 1:
                size = [round(side * change.scale) for side in pixels.shape[2:]]
                larger = F.interpolate(pixels, size, mode="bilinear", antialias=True)
                pixels = pad_to_stride(larger, self.pipe.stride)
            latents = self._latents(sample, pixels, view)
            pyramid = self._pyramid(latents) if self.keeps_pyramids else None
            views[name] = ViewInput(latents, pyramid)
        return views

    def _pyramid(self, latents: Tensor) -> tuple[Tensor, ...]:
        """The pyramid of latents `[C, h, w]`, on the CPU."""
        levels = self.theta.compute_pyramid(latents[None].to(self.pipe.device), self.conditioning)
        return tuple(level[0].cpu() for level in levels)

    def _padded(self, image: Tensor, view: View) -> Tensor:
        """Pad an image to the size of the window, to the stride of the base, then to its bucket."""
        whole = pad_to_stride(_grey_padded(image, view.crop), self.pipe.stride)
        return _grey_padded(whole, view.padded)

    def _latents(self, sample: Sample, pixels: Tensor, view: View) -> Tensor:
        """Latents `[C, h, w]`. They come from the cache if the same view can be drawn again."""
        vae = self.pipe.vae

        def encode() -> Tensor:
            return self.pipe.encode_image(pixels.to(self.pipe.device))[0]

        if not self.augment.recurs:
            return encode().cpu()
        image, shape = image_sha256(sample.image), tuple(pixels.shape)
        made_of = (image, shape, view.mirrored, vae.config.scaling_factor)
        bucket = (view.padded,) if view.padded else ()  # grey where others are reflected
        return self.cache.get(vae, made_of + bucket, encode)

    @torch.no_grad()
    def _caption_conditioning(self, caption: str) -> Conditioning:
        """The conditioning of one caption, on the CPU. It is kept in memory, up to a limit."""
        if caption in self.captions:
            return self.captions[caption]
        backbone = self.pipe.backbone
        ids = backbone.tokenize([caption])

        def encode() -> dict[str, Tensor]:
            return backbone.encode_tokens(ids.to(self.pipe.device)).select(0).named()

        made_of = tuple(ids[0].tolist())
        found = Conditioning(**self.cache.get_named(self.pipe.text_encoder, made_of, encode))
        if len(self.captions) * found.nbytes < MEMORY:
            self.captions[caption] = found
        return found

    def _noised(self, example: Example, generator: torch.Generator) -> Example:
        """Add noisy latents for the denoising loss. The noise level is drawn uniformly."""
        scheduler = self.pipe.backbone.noise_levels
        levels = scheduler.config.num_train_timesteps
        t = torch.randint(levels, (1,), generator=generator)
        original = example.latents if example.original is None else example.original
        latents = original[None].float()
        noise = torch.randn(latents.shape, generator=generator)
        target = self.pipe.backbone.training_target(latents, noise, t)
        noisy = scheduler.add_noise(latents, noise, t)
        conditioning = self._caption_conditioning(example.caption)
        return example._replace(noised=Noised(noisy[0], t[0], conditioning, target[0]))


def _grey_padded(image: Tensor, size: Size | None) -> Tensor:
    """Extend an image `[1, 3, H, W]` to a size with mid grey. None changes nothing."""
    height, width = size or image.shape[2:]
    return F.pad(image, (0, width - image.shape[3], 0, height - image.shape[2]))
