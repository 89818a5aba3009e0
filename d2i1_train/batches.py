"""Batches: which samples a step draws, and their latents and targets.

Nothing here has a state that a checkpoint must keep: what a step draws follows from the seed and
the step's number.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.diff2in1.images import pad_to_stride, to_batches
from d2i1_data.errors import InputError
from d2i1_data.sample import image_sha256
from d2i1_data.sources import Rows

from .cache import Cache
from .objective import Targets
from .theta import Noised, Theta

SMALL_BASE = 10_000_000  # parameters of a U-Net whose pyramids are worth keeping
MEMORY = 4 * 1024**3  # bytes for kept examples, of each source, on each process


def seeded(*parts: object) -> torch.Generator:
    """A generator whose seed is a hash of the parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


class Example(NamedTuple):
    """One sample as the model sees it, with its sides padded to the base's stride."""

    latents: Tensor  # [C, h, w]
    targets: Targets  # [C, H, W] each, padding unknown
    inside: Tensor  # [1, H, W] bool, False where padded
    created: bool
    pyramid: tuple[Tensor, ...] | None
    caption: str
    noised: Noised | None = None  # of this draw

    @property
    def nbytes(self) -> int:
        """Memory of what can be kept."""
        maps = [self.latents, self.inside, *self.targets.values(), *(self.pyramid or ())]
        return sum(one.nbytes for one in maps)


@dataclass
class Batch:
    """Examples of one size, stacked."""

    latents: Tensor  # [B, C, h, w]
    targets: Targets  # [B, C, H, W]
    created: Tensor  # [M] which of them are created
    believed: Tensor  # [M, 1, H, W] bool: where of those theta_C's belief is the target
    pyramid: tuple[Tensor, ...] | None
    noised: Noised | None

    @property
    def size(self) -> tuple[int, int]:
        """H and W in pixels."""
        target = next(iter(self.targets.values()))
        return target.shape[2], target.shape[3]


class Examples:
    """Rows of a source as examples.

    The first of them are kept, as far as memory allows, and of all of them the latents, if there is
    a cache on disk. That is right because the only augmentation is a flip, whose views are kept
    apart. Pyramids are kept with them while the U-Net is frozen and small.
    """

    def __init__(
        self,
        rows: Rows,
        pipe: Diff2in1Pipeline,
        theta: Theta,
        context: Tensor,
        cache: Cache,
        *,
        flip: bool,
        created: bool = False,
        denoise: bool = False,
    ) -> None:
        self.rows, self.pipe, self.theta, self.context = rows, pipe, theta, context
        self.cache, self.flip, self.created, self.denoise = cache, flip, created, denoise
        small = sum(p.numel() for p in theta.unet.parameters()) < SMALL_BASE
        self.keeps_pyramids = small and theta.frozen
        self.kept: dict[tuple[int, bool], Example] = {}
        self.captions: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.rows.usable)

    def identity(self, index: int) -> str:
        """Id of the sample behind an example."""
        return self.rows.source.identity(self.rows.usable[index])

    def draw(self, index: int, generator: torch.Generator) -> Example:
        """The example of a row; whether it is mirrored, and its noise, from the generator."""
        chance = torch.rand(1, generator=generator).item()
        example = self.get(index, self.flip and chance < 0.5)
        return self._noised(example, generator) if self.denoise else example

    @torch.no_grad()
    def get(self, index: int, mirrored: bool) -> Example:
        """The example of a row, mirrored or not."""
        if (index, mirrored) in self.kept:
            return self.kept[index, mirrored]
        example = self._make(index, mirrored)
        if self._fits(index, example):
            self.kept[index, mirrored] = example
        return example

    def _fits(self, index: int, example: Example) -> bool:
        """Whether memory allows to keep it: said by the row, not by what came first."""
        return (index + 1) * (1 + self.flip) * example.nbytes <= MEMORY

    def _make(self, index: int, flip: bool) -> Example:
        sample = self.rows.source[self.rows.usable[index]]
        pixels = to_batches(sample.image)[0]
        pixels = pad_to_stride(pixels.flip(-1) if flip else pixels, self.pipe.stride)
        padding = (0, pixels.shape[3] - sample.size[1], 0, pixels.shape[2] - sample.size[0])
        targets = {}
        for name, family in self.pipe.perception.families.items():
            target = family.blank(sample.size)
            if name in sample.targets and not self.created:
                target = family.to_tensor(sample.targets[name])
            target = family.flip(target[None])[0] if flip else target
            targets[name] = F.pad(target, padding, value=family.unknown)
        inside = F.pad(torch.ones(1, *sample.size, dtype=torch.bool), padding)
        vae = self.pipe.vae
        latents = self.cache.get(
            vae,
            (image_sha256(sample.image), tuple(pixels.shape), flip, vae.config.scaling_factor),
            lambda: self.pipe.encode_image(pixels.to(self.pipe.device))[0],
        )
        plain = Example(latents, targets, inside, self.created, None, sample.caption or "")
        if not self.keeps_pyramids:
            return plain
        pyramid = self.theta.see(latents[None].to(self.pipe.device), self.context)
        whole = plain._replace(pyramid=tuple(level[0].cpu() for level in pyramid))
        return whole if self._fits(index, whole) else plain

    @torch.no_grad()
    def _embedding(self, caption: str) -> Tensor:
        """[L, D], kept as far as memory allows."""
        if caption in self.captions:
            return self.captions[caption]
        tokens = tuple(self.pipe.tokenize([caption])[0].tolist())
        found = self.cache.get(
            self.pipe.text_encoder, tokens, lambda: self.pipe.encode_prompt([caption])[0]
        )
        if len(self.captions) * found.nbytes < MEMORY:
            self.captions[caption] = found
        return found

    def _noised(self, example: Example, generator: torch.Generator) -> Example:
        """With noise, at a level drawn evenly, for the U-Net to tell apart again."""
        scheduler = self.pipe.scheduler
        levels = scheduler.config.num_train_timesteps
        t = torch.randint(levels, (1,), generator=generator)
        latents = example.latents[None].float()
        noise = torch.randn(latents.shape, generator=generator)
        wanted = noise
        if scheduler.config.prediction_type == "v_prediction":
            wanted = scheduler.get_velocity(latents, noise, t)
        seen = scheduler.add_noise(latents, noise, t)
        noised = Noised(seen[0], t[0], self._embedding(example.caption), wanted[0])
        return example._replace(noised=noised)


class Draws:
    """An endless order of examples: every epoch a fresh permutation, mirrored at random."""

    def __init__(self, parts: Sequence[Examples], seed: int) -> None:
        self.places = [(part, index) for part in parts for index in range(len(part))]
        self.parts, self.seed = parts, seed
        self.order: tuple[int, list[int]] = (-1, [])

    def at(self, position: int) -> Example:
        """The example at a position of the order."""
        epoch, place = divmod(position, len(self.places))
        known, order = self.order
        if known != epoch:
            kinds = [part.created for part in self.parts]  # else both kinds share an order
            generator = seeded(self.seed, "order", kinds, epoch)
            order = torch.randperm(len(self.places), generator=generator).tolist()
            self.order = epoch, order
        part, index = self.places[order[place]]
        return part.draw(index, seeded(self.seed, epoch, part.identity(index)))


def stack(examples: Sequence[Example], device: torch.device) -> Batch:
    """A batch of examples of one size."""
    sizes = {tuple(example.inside.shape[1:]) for example in examples}
    if len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise InputError(
            f"images of different sizes in one batch ({shown}): give --resolution HEIGHTxWIDTH,"
            " which cuts all to one aspect ratio and scales them"
        )
    names = examples[0].targets
    pyramids = [example.pyramid for example in examples if example.pyramid is not None]
    whole = len(pyramids) == len(examples)
    created = torch.tensor([n for n, example in enumerate(examples) if example.created]).long()
    inside = torch.stack([example.inside for example in examples])[created]
    noised = [example.noised for example in examples if example.noised is not None]
    return Batch(
        torch.stack([example.latents for example in examples]).to(device),
        {n: torch.stack([e.targets[n] for e in examples]).to(device) for n in names},
        created.to(device),
        inside.to(device),
        tuple(torch.stack(level).to(device) for level in zip(*pyramids, strict=True))
        if whole
        else None,
        Noised(*(torch.stack(part).to(device) for part in zip(*noised, strict=True)))
        if noised
        else None,
    )
