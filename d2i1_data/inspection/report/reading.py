"""Read samples once, and keep only counts, hashes and features."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ...dataset.sample import Provenance, Sample, image_sha256
from ...diff2in1.families import Distribution
from ...sources import Source
from ...tasks import Task
from .copies import FeatureExtractor


class ReadSamples(NamedTuple):
    """Facts about samples of a source, in their order.

    numbers: indices of the samples in the source. origins: their provenance. hashes: hashes of
    their pixels. sizes: how often each size occurs. distributions: counts of their labels, by task.
    features: [N, C], None without an extractor. pixels, unknown: number of all pixels and of the
    unknown pixels of their labels, by task.
    """

    source: Source
    numbers: list[int]
    ids: list[str]
    origins: list[Provenance]
    hashes: list[str]
    sizes: Counter[str]
    distributions: dict[str, Distribution]
    features: Tensor | None
    pixels: Counter[str]
    unknown: Counter[str]

    def add(self, sample: Sample) -> None:
        """Count a sample that was read."""
        self.ids.append(sample.id)
        self.origins.append(sample.provenance)
        self.hashes.append(image_sha256(sample.image))
        self.sizes["x".join(map(str, sample.size))] += 1
        for name, distribution in self.distributions.items():
            if name not in sample.targets:
                continue
            distribution.add(sample.targets[name])
            family = self.source.tasks[name].family
            valid = family.valid(family.to_tensor(sample.targets[name])[None])
            self.pixels[name] += valid.numel()
            self.unknown[name] += valid.numel() - int(valid.sum())

    def equal(self) -> list[list[str]]:
        """Groups of ids whose samples have the same image."""
        groups: dict[str, list[str]] = {}
        for identity, digest in zip(self.ids, self.hashes, strict=True):
            groups.setdefault(digest, []).append(identity)
        return [group for group in groups.values() if len(group) > 1]


def read_samples(
    source: Source,
    numbers: Sequence[int],
    tasks: Mapping[str, Task],
    extractor: FeatureExtractor | None,
    batch_size: int,
) -> ReadSamples:
    """Read samples of a source once.

    Args:
        source: the source.
        numbers: indices of the samples.
        tasks: the tasks whose labels are counted.
        extractor: computes the features; None computes no features.
        batch_size: images in one batch of the extractor.
    """
    counts = {name: task.family.distribution() for name, task in tasks.items()}
    result = ReadSamples(
        source, list(numbers), [], [], [], Counter(), counts, None, Counter(), Counter()
    )
    features = []
    with tqdm(total=len(numbers), desc="read", unit="image", leave=False, mininterval=1) as bar:
        for start in range(0, len(numbers), batch_size):
            batch = [source[number] for number in numbers[start : start + batch_size]]
            for sample in batch:
                result.add(sample)
            if extractor:
                features.append(extractor.extract([sample.image for sample in batch]))
            bar.update(len(batch))
    return result._replace(features=torch.cat(features)) if extractor else result
