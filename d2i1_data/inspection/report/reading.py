"""Reading: one pass over decoded samples that keeps only counts, hashes and what the eye saw."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ...dataset.sample import Provenance, image_sha256
from ...diff2in1.families import Distribution
from ...sources import Source
from ...tasks import Task
from .copies import Eye


class Seen(NamedTuple):
    """What was seen of samples of a source, in their order.

    numbers: which of the source. features: [N, C], None without an eye.
    """

    source: Source
    numbers: list[int]
    ids: list[str]
    origins: list[Provenance]
    hashes: list[str]
    sizes: Counter[str]
    distributions: dict[str, Distribution]
    features: Tensor | None

    def equal(self) -> list[list[str]]:
        """The ids of samples that have the very same image, group by group."""
        groups: dict[str, list[str]] = {}
        for identity, digest in zip(self.ids, self.hashes, strict=True):
            groups.setdefault(digest, []).append(identity)
        return [group for group in groups.values() if len(group) > 1]


def look(
    source: Source,
    numbers: Sequence[int],
    tasks: Mapping[str, Task],
    eye: Eye | None,
    batch_size: int,
) -> Seen:
    """Look once at each of these samples of a source."""
    counts = {name: task.family.distribution() for name, task in tasks.items()}
    seen = Seen(source, list(numbers), [], [], [], Counter(), counts, None)
    features = []
    with tqdm(total=len(numbers), desc="look", unit="image", leave=False, mininterval=1) as bar:
        for start in range(0, len(numbers), batch_size):
            batch = [source[number] for number in numbers[start : start + batch_size]]
            for sample in batch:
                seen.ids.append(sample.id)
                seen.origins.append(sample.provenance)
                seen.hashes.append(image_sha256(sample.image))
                seen.sizes["x".join(map(str, sample.size))] += 1
                for name, distribution in counts.items():
                    if name in sample.targets:
                        distribution.add(sample.targets[name])
            if eye:
                features.append(eye.see([sample.image for sample in batch]))
            bar.update(len(batch))
    return seen._replace(features=torch.cat(features)) if eye else seen
