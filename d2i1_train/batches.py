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
from d2i1_data.sample import Sample
from d2i1_data.sources import Rows

from .objective import Targets
from .theta import Theta

SMALL_BASE = 10_000_000  # parameters of a U-Net whose pyramids are worth keeping
PYRAMID_BYTES = 4 * 1024**3  # memory for kept pyramids


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


@dataclass
class Batch:
    """Examples of one size, stacked."""

    latents: Tensor  # [B, C, h, w]
    targets: Targets  # [B, C, H, W]
    believed: Tensor  # [B, 1, H, W] bool: where theta_C's belief is the target
    pyramid: tuple[Tensor, ...] | None

    @property
    def size(self) -> tuple[int, int]:
        """H and W in pixels."""
        return self.believed.shape[2], self.believed.shape[3]


class Examples:
    """Rows of a source as examples; latents are made once and kept in memory.

    Keeping latents is right because the only augmentation is a flip, and both views are kept.
    Pyramids are kept too, of as many rows as fit, while the U-Net is frozen and small.
    """

    def __init__(
        self,
        rows: Rows,
        pipe: Diff2in1Pipeline,
        theta: Theta,
        context: Tensor,
        *,
        flip: bool,
        created: bool = False,
    ) -> None:
        self.rows, self.pipe, self.theta, self.context = rows, pipe, theta, context
        self.flip, self.created = flip, created
        small = sum(p.numel() for p in theta.unet.parameters()) < SMALL_BASE
        frozen = not any(p.requires_grad for p in theta.unet.parameters())
        self.keeps_pyramids = small and frozen
        self.kept: dict[tuple[int, bool], Example] = {}

    def __len__(self) -> int:
        return len(self.rows.usable)

    def identity(self, index: int) -> str:
        """Id of the sample behind an example."""
        return self.rows.source.identity(self.rows.usable[index])

    def get(self, index: int, mirrored: bool) -> Example:
        """The example of a row, mirrored or not."""
        if (index, mirrored) not in self.kept:
            sample = self.rows.source[self.rows.usable[index]]
            for view in (False, True) if self.flip else (False,):
                self.kept[index, view] = self._make(sample, index, view)
        return self.kept[index, mirrored]

    @torch.no_grad()
    def _make(self, sample: Sample, index: int, flip: bool) -> Example:
        pixels = to_batches(sample.image)[0].to(self.pipe.device)
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
        latents, pyramid = self.pipe.encode_image(pixels), None
        if self.keeps_pyramids:
            pyramid = tuple(level[0].cpu() for level in self.theta.see(latents, self.context))
            views = (1 + self.flip) * sum(level.nbytes for level in pyramid)
            if (index + 1) * views > PYRAMID_BYTES:  # said by the row, not by what came first
                pyramid = None
        return Example(latents[0].cpu(), targets, inside, self.created, pyramid)


class Draws:
    """An endless order of examples: every epoch a fresh permutation, mirrored at random."""

    def __init__(self, parts: Sequence[Examples], seed: int) -> None:
        self.places = [(part, index) for part in parts for index in range(len(part))]
        self.parts, self.seed = parts, seed
        self.order: tuple[int, list[int]] = (-1, [])

    def at(self, position: int) -> Example:
        """The example at a position of the order."""
        epoch, place = divmod(position, len(self.places))
        if self.order[0] != epoch:
            kinds = [part.created for part in self.parts]  # else both kinds share an order
            generator = seeded(self.seed, "order", kinds, epoch)
            self.order = epoch, torch.randperm(len(self.places), generator=generator).tolist()
        part, index = self.places[self.order[1][place]]
        chance = torch.rand(1, generator=seeded(self.seed, epoch, part.identity(index))).item()
        return part.get(index, part.flip and chance < 0.5)


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
    created = torch.tensor([example.created for example in examples])[:, None, None, None]
    return Batch(
        torch.stack([example.latents for example in examples]).to(device),
        {n: torch.stack([e.targets[n] for e in examples]).to(device) for n in names},
        (torch.stack([example.inside for example in examples]) & created).to(device),
        tuple(torch.stack(level).to(device) for level in zip(*pyramids, strict=True))
        if whole
        else None,
    )
