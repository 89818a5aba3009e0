"""Batches: the samples that a step draws, with their latents and targets.

Checkpoints need no state of this file, because the seed and the step number decide all draws.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from d2i1_data.diff2in1 import Conditioning

from ..objective import Targets
from ..perturbation import Perturbation, stack_drawn
from ..pseudo_labels import ViewInput
from ..theta import Noised
from .examples import Example, Examples, Size


def seeded(*parts: object) -> torch.Generator:
    """A generator whose seed is a hash of the parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@dataclass
class TrainingBatch:
    """Examples of one size, stacked."""

    latents: Tensor  # [B, C, h, w]
    targets: Targets  # [B, C, H, W]
    created: Tensor  # [M] indices of the created examples
    inside: Tensor  # [M, 1, H, W] bool, False in the padding of created examples
    pyramid: tuple[Tensor, ...] | None
    noised: Noised | None
    # inputs of theta_C by belief view, [M, ...]; None stands for theta_E's own input
    views: Mapping[str, ViewInput | None] = field(default_factory=dict)
    perturbation: Perturbation | None = None
    weights: Tensor | None = None  # [B], of the samples in the objective

    @property
    def size(self) -> tuple[int, int]:
        """H and W in pixels."""
        target = next(iter(self.targets.values()))
        return target.shape[2], target.shape[3]

    @property
    def pixels_per_latent(self) -> int:
        """The factor between the sides in pixels and those of the latents."""
        return self.size[0] // self.latents.shape[2]

    def inputs_of_theta_c(self, pyramid: tuple[Tensor, ...] | None) -> dict[str, ViewInput]:
        """The inputs from which theta_C predicts the labels of created samples, by belief view.

        Args:
            pyramid: pyramid of all samples as theta_E gets them, if it is already computed.
        """
        own = pyramid and tuple(level[self.created] for level in pyramid)
        shared = ViewInput(self.latents[self.created], own)
        return {name: view or shared for name, view in self.views.items()}


class SampleOrder:
    """An endless order of examples. Every epoch has a new permutation and new views.

    Args:
        parts: examples of one or several sources, which are shuffled together.
        seed: seed of the permutations and views.
        members: places of the examples that take part; None takes all.
        size: height and width that images are padded to; None pads to the stride of the base.
    """

    def __init__(
        self,
        parts: Sequence[Examples],
        seed: int,
        members: Collection[int] | None = None,
        size: Size | None = None,
    ) -> None:
        self.places = [(part, index) for part in parts for index in range(len(part))]
        self.parts, self.seed, self.size = parts, seed, size
        self.members = None if members is None else frozenset(members)
        self.order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return len(self.places if self.members is None else self.members)

    def part(self, members: Collection[int], size: Size) -> "SampleOrder":
        """The same order with some of its examples only, padded to a size."""
        return SampleOrder(self.parts, self.seed, members, size)

    def sizes(self) -> list[Size]:
        """Height and width of each example, padded to the stride of the base."""
        return [size for part in self.parts for size in part.sizes()]

    def permutation(self, epoch: int) -> list[int]:
        """The places of the examples in the order of an epoch."""
        kinds = [part.use.created for part in self.parts]  # so that kinds have different orders
        generator = seeded(self.seed, "order", kinds, epoch)
        order = torch.randperm(len(self.places), generator=generator).tolist()
        return [n for n in order if self.members is None or n in self.members]

    def at(self, position: int) -> Example:
        """The example at a position of the order."""
        epoch, place = divmod(position, len(self))
        known, order = self.order
        if known != epoch:
            order = self.permutation(epoch)
            self.order = epoch, order
        part, index = self.places[order[place]]
        return part.draw(index, seeded(self.seed, epoch, part.identity(index)), self.size)


def stack(examples: Sequence[Example], device: torch.device) -> TrainingBatch:
    """Stack examples of one size to a batch."""
    noised = [example.noised for example in examples if example.noised is not None]
    created = torch.tensor([n for n, example in enumerate(examples) if example.created]).long()

    def joined(parts: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(parts)).to(device)

    return TrainingBatch(
        latents=joined([example.latents for example in examples]),
        targets={n: joined([e.targets[n] for e in examples]) for n in examples[0].targets},
        created=created.to(device),
        inside=torch.stack([example.inside for example in examples])[created].to(device),
        pyramid=_stack_levels([example.pyramid for example in examples], device),
        noised=_stack_noised(noised, device) if noised else None,
        views=_stack_views([example for example in examples if example.created], device),
        perturbation=_stack_perturbations(examples, device),
        weights=torch.tensor([example.weight for example in examples], device=device)
        if any(example.weight != 1 for example in examples)
        else None,
    )


def _stack_levels(
    pyramids: Sequence[tuple[Tensor, ...] | None], device: torch.device
) -> tuple[Tensor, ...] | None:
    """Stack pyramids level by level; None if any is missing."""
    known = [pyramid for pyramid in pyramids if pyramid is not None]
    if len(known) < len(pyramids):
        return None
    return tuple(torch.stack(level).to(device) for level in zip(*known, strict=True))


def _stack_views(created: Sequence[Example], device: torch.device) -> dict[str, ViewInput | None]:
    """Stack the inputs of theta_C by belief view."""
    views: dict[str, ViewInput | None] = {}
    for name in created[0].views if created else ():
        own = [example.views[name] for example in created]
        if all(view is None for view in own):
            views[name] = None
            continue
        inputs = [
            view or ViewInput(example.latents, example.pyramid)
            for view, example in zip(own, created, strict=True)
        ]
        latents = torch.stack([one.latents for one in inputs]).to(device)
        views[name] = ViewInput(latents, _stack_levels([one.pyramid for one in inputs], device))
    return views


def _stack_perturbations(examples: Sequence[Example], device: torch.device) -> Perturbation | None:
    drawn = [example.perturbation for example in examples]
    return stack_drawn(drawn, [example.created for example in examples], device)


def _stack_noised(noised: Sequence[Noised], device: torch.device) -> Noised:
    latents, t, conditionings, targets = zip(*noised, strict=True)
    return Noised(
        torch.stack(latents).to(device),
        torch.stack(t).to(device),
        Conditioning.stack(conditionings).to(device),
        torch.stack(targets).to(device),
    )
