"""Batches: the samples that a step draws, with their latents and targets.

Checkpoints need no state of this file, because the seed and the step number decide all draws.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from d2i1_data.dataset.sample import Sample, image_sha256
from d2i1_data.diff2in1 import Conditioning, Diff2in1Pipeline
from d2i1_data.diff2in1.images import pad_to_stride, to_batches
from d2i1_data.errors import InputError
from d2i1_data.sources import Rows

from ..objective import Targets
from ..theta import Noised, Theta
from .augment import Augmentation, View
from .cache import Cache

SMALL_BASE = 10_000_000  # up to this number of U-Net parameters, pyramids are kept in memory
MEMORY = 4 * 1024**3  # bytes for kept examples, for each source on each process


def seeded(*parts: object) -> torch.Generator:
    """A generator whose seed is a hash of the parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


class Example(NamedTuple):
    """One sample as input of the model. Its sides are padded to the stride of the base."""

    latents: Tensor  # [C, h, w], theta_E's input
    targets: Targets  # [C, H, W] each, padding unknown
    inside: Tensor  # [1, H, W] bool, False where padded
    created: bool
    pyramid: tuple[Tensor, ...] | None
    caption: str
    original: Tensor | None = None  # [C, h, w] with the original colours, if they were changed
    noised: Noised | None = None  # for the denoising loss

    @property
    def nbytes(self) -> int:
        """Memory of the tensors that can be kept, in bytes."""
        maps = [self.latents, self.inside, *self.targets.values(), *(self.pyramid or ())]
        return sum(one.nbytes for one in maps)


@dataclass
class TrainingBatch:
    """Examples of one size, stacked."""

    latents: Tensor  # [B, C, h, w]
    targets: Targets  # [B, C, H, W]
    created: Tensor  # [M] indices of the created examples
    inside: Tensor  # [M, 1, H, W] bool, False in the padding of created examples
    pyramid: tuple[Tensor, ...] | None
    noised: Noised | None
    original: Tensor | None = None  # [M, C, h, w] input of theta_C, if it differs from theta_E's

    @property
    def size(self) -> tuple[int, int]:
        """H and W in pixels."""
        target = next(iter(self.targets.values()))
        return target.shape[2], target.shape[3]


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
        created: whether the rows are created samples. Their labels are not used.
        denoise: whether examples also get noisy latents, for the denoising loss.
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
        created: bool = False,
        denoise: bool = False,
    ) -> None:
        self.rows, self.pipe, self.theta, self.conditioning = rows, pipe, theta, conditioning
        self.cache, self.augment, self.created, self.denoise = cache, augment, created, denoise
        small = sum(p.numel() for p in theta.unet.parameters()) < SMALL_BASE
        self.keeps_pyramids = small and theta.frozen and augment.recurs
        self.kept: dict[tuple[int, bool], Example] = {}
        self.captions: dict[str, Conditioning] = {}

    def __len__(self) -> int:
        return len(self.rows.usable)

    def identity(self, index: int) -> str:
        """Id of the sample in a row."""
        return self.rows.source.identity(self.rows.usable[index])

    def draw(self, index: int, generator: torch.Generator) -> Example:
        """Draw an example of a row. The generator decides its view and its noise."""
        view = self.augment.draw(generator)
        recurs = self.augment.recurs
        example = self.get(index, view.mirrored) if recurs else self._make(index, view)
        return self._noised(example, generator) if self.denoise else example

    @torch.no_grad()
    def get(self, index: int, mirrored: bool) -> Example:
        """The example of a row, mirrored or not."""
        if (index, mirrored) in self.kept:
            return self.kept[index, mirrored]
        example = self._make(index, View(mirrored))
        if self._fits(index, example):
            self.kept[index, mirrored] = example
        return example

    def _fits(self, index: int, example: Example) -> bool:
        """Whether to keep an example in memory. Its row decides, not the order of draws."""
        return (index + 1) * (1 + self.augment.flip) * example.nbytes <= MEMORY

    @torch.no_grad()
    def _make(self, index: int, view: View) -> Example:
        sample = self.rows.source[self.rows.usable[index]]
        families, stored = self.pipe.perception.families, {} if self.created else sample.targets
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
            if self.created or self.denoise:  # otherwise nothing uses the original colours
                original = self._latents(sample, pixels, view)
            pixels = self._padded(view.recoloured(image), view)
        latents = self._latents(sample, pixels, view)
        plain = Example(
            latents, targets, inside, self.created, None, sample.caption or "", original
        )
        if not self.keeps_pyramids:
            return plain
        pyramid = self.theta.compute_pyramid(latents[None].to(self.pipe.device), self.conditioning)
        whole = plain._replace(pyramid=tuple(level[0].cpu() for level in pyramid))
        return whole if self._fits(index, whole) else plain

    def _padded(self, image: Tensor, view: View) -> Tensor:
        """Pad an image to the size of the window with mid grey, then to the stride of the base."""
        height, width = view.crop or image.shape[2:]
        grey = F.pad(image, (0, width - image.shape[3], 0, height - image.shape[2]))
        return pad_to_stride(grey, self.pipe.stride)

    def _latents(self, sample: Sample, pixels: Tensor, view: View) -> Tensor:
        """Latents `[C, h, w]`. They come from the cache if the same view can be drawn again."""
        vae = self.pipe.vae

        def encode() -> Tensor:
            return self.pipe.encode_image(pixels.to(self.pipe.device))[0]

        if not self.augment.recurs:
            return encode().cpu()
        image, shape = image_sha256(sample.image), tuple(pixels.shape)
        made_of = (image, shape, view.mirrored, vae.config.scaling_factor)
        return self.cache.get(vae, made_of, encode)

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
        scheduler = self.pipe.scheduler
        levels = scheduler.config.num_train_timesteps
        t = torch.randint(levels, (1,), generator=generator)
        original = example.latents if example.original is None else example.original
        latents = original[None].float()
        noise = torch.randn(latents.shape, generator=generator)
        target = self.pipe.backbone.training_target(latents, noise, t)
        noisy = scheduler.add_noise(latents, noise, t)
        conditioning = self._caption_conditioning(example.caption)
        return example._replace(noised=Noised(noisy[0], t[0], conditioning, target[0]))


class SampleOrder:
    """An endless order of examples. Every epoch has a new permutation and new views.

    Args:
        parts: examples of one or several sources, which are shuffled together.
        seed: seed of the permutations and views.
    """

    def __init__(self, parts: Sequence[Examples], seed: int) -> None:
        self.places = [(part, index) for part in parts for index in range(len(part))]
        self.parts, self.seed = parts, seed
        self.order: tuple[int, list[int]] = (-1, [])

    def at(self, position: int) -> Example:
        """The example at a position of the order."""
        epoch, place = divmod(position, len(self.places))
        known, order = self.order
        if known != epoch:
            kinds = [part.created for part in self.parts]  # so that kinds have different orders
            generator = seeded(self.seed, "order", kinds, epoch)
            order = torch.randperm(len(self.places), generator=generator).tolist()
            self.order = epoch, order
        part, index = self.places[order[place]]
        return part.draw(index, seeded(self.seed, epoch, part.identity(index)))


def stack(examples: Sequence[Example], device: torch.device) -> TrainingBatch:
    """Stack examples to a batch.

    Raises:
        InputError: if their sizes differ.
    """
    sizes = {tuple(example.inside.shape[1:]) for example in examples}
    if len(sizes) > 1:
        found = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise InputError(
            f"images of different sizes in one batch ({found}): give --resolution HEIGHTxWIDTH,"
            " which cuts all to one aspect ratio and scales them"
        )
    pyramids = [example.pyramid for example in examples if example.pyramid is not None]
    noised = [example.noised for example in examples if example.noised is not None]
    created = torch.tensor([n for n, example in enumerate(examples) if example.created]).long()
    made = [example for example in examples if example.created]
    recoloured = any(example.original is not None for example in made)
    original = [e.latents if e.original is None else e.original for e in made]

    def joined(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(parts)).to(device)

    return TrainingBatch(
        latents=joined([example.latents for example in examples]),
        targets={n: joined([e.targets[n] for e in examples]) for n in examples[0].targets},
        created=created.to(device),
        inside=torch.stack([example.inside for example in examples])[created].to(device),
        pyramid=tuple(map(joined, zip(*pyramids, strict=True)))
        if len(pyramids) == len(examples)
        else None,
        noised=_stack_noised(noised, device) if noised else None,
        original=joined(original) if recoloured else None,
    )


def _stack_noised(noised: Sequence[Noised], device: torch.device) -> Noised:
    latents, t, conditionings, targets = zip(*noised, strict=True)
    return Noised(
        torch.stack(latents).to(device),
        torch.stack(t).to(device),
        Conditioning.stack(conditionings).to(device),
        torch.stack(targets).to(device),
    )
