"""Mix: which samples a micro-batch takes. All samples of a micro-batch have one size.

Samples of one size form a bucket, and a micro-batch takes its samples from one bucket. So no batch
mixes sizes, and no image is cut. The order of micro-batches depends on the seed alone. With samples
of one size, or with one sample in a micro-batch, it is the plain order of the samples.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .batches import SampleOrder
from .examples import Size

Places = list[tuple[SampleOrder, int]]  # an order and a position in it, for each sample


class Bucket(NamedTuple):
    """Samples that share micro-batches.

    size: height and width that their images are padded to. members: their places in an order.
    """

    size: Size
    members: list[int]


class Mix:
    """The samples of all micro-batches. A turn numbers the micro-batches of all processes.

    The first order decides which bucket a turn takes. In each epoch its samples are dealt to their
    buckets in the plain order, and a bucket gives a micro-batch whenever it has enough samples. The
    rest of a bucket waits for the next epoch. So each sample is drawn equally often, and the first
    order draws the same samples whatever the others are.

    Args:
        orders: pairs of an order and the number of its samples in a micro-batch, at least one.
    """

    def __init__(self, orders: Sequence[tuple[SampleOrder, int]]) -> None:
        self.orders = list(orders)
        (self.first, self.size), *others = self.orders
        alone = self.size == 1 and not others
        sizes = [[] if alone else order.sizes() for order, _ in self.orders]
        self.buckets = [self.orders]  # the orders of each bucket
        self.bucket_of = [0] * len(self.first)
        if len({size for own in sizes for size in own}) > 1:
            self._divide(sizes)
        self.counts = np.bincount(self.bucket_of).tolist()  # samples of the first order
        self.dealt: tuple[int, list[tuple[int, int]]] = (-1, [])

    def _divide(self, sizes: Sequence[Sequence[Size]]) -> None:
        """Divide each order into buckets. sizes: of the samples of each order."""
        buckets = make_buckets(sizes[0], self.size)
        parts = [buckets, *(assign(own, buckets) for own in sizes[1:])]
        self.buckets = []
        for number, own in enumerate(zip(*parts, strict=True)):
            size = own[0].size
            for other in own[1:]:
                size = union(size, other.size)
            self.buckets.append(
                [
                    (order.part(bucket.members, size), count)
                    for (order, count), bucket in zip(self.orders, own, strict=True)
                ]
            )
            for member in own[0].members:
                self.bucket_of[member] = number

    def places(self, turn: int) -> Places:
        """The orders and positions of the samples of a micro-batch."""
        bucket, number = self._batch(turn)
        return [
            (order, number * size + n) for order, size in self.buckets[bucket] for n in range(size)
        ]

    def _batch(self, turn: int) -> tuple[int, int]:
        """The bucket of a turn, and how many micro-batches the bucket gave before."""
        if len(self.buckets) == 1:
            return 0, turn
        epoch = turn * self.size // len(self.first)
        while self._batches_before(epoch + 1) <= turn:
            epoch += 1
        known, dealt = self.dealt
        if known != epoch:
            dealt = self._deal(epoch)
            self.dealt = epoch, dealt
        return dealt[turn - self._batches_before(epoch)]

    def _batches_before(self, epoch: int) -> int:
        """Number of micro-batches that all epochs before this one give."""
        return sum(epoch * count // self.size for count in self.counts)

    def _deal(self, epoch: int) -> list[tuple[int, int]]:
        """The micro-batches of an epoch, each as its bucket and its number in the bucket."""
        batches = []
        dealt = [epoch * count for count in self.counts]
        for member in self.first.permutation(epoch):
            bucket = self.bucket_of[member]
            dealt[bucket] += 1
            if dealt[bucket] % self.size == 0:
                batches.append((bucket, dealt[bucket] // self.size - 1))
        return batches


def make_buckets(sizes: Sequence[Size], least: int) -> list[Bucket]:
    """Divide samples by their size.

    Sizes of too few samples are joined with the size that needs the least padding.

    Args:
        sizes: height and width of each sample.
        least: number of samples that a bucket needs, unless there is only one bucket.
    """
    groups = group(sizes)
    while len(groups) > 1:
        rare = min(groups, key=lambda size: (len(groups[size]), size))
        if len(groups[rare]) >= least:
            break
        members = groups.pop(rare)

        def padding(size: Size, rare: Size = rare, count: int = len(members)) -> tuple[int, Size]:
            both = _area(union(rare, size))
            cost = (both - _area(rare)) * count + (both - _area(size)) * len(groups[size])
            return cost, size

        other = min(groups, key=padding)
        members += groups.pop(other)
        joined = union(rare, other)
        groups[joined] = sorted(members + groups.pop(joined, []))
    return [Bucket(size, groups[size]) for size in sorted(groups)]


def assign(sizes: Sequence[Size], buckets: Sequence[Bucket]) -> list[Bucket]:
    """Divide samples among the buckets of other samples, with as little padding as possible.

    Args:
        sizes: height and width of each sample.
        buckets: the buckets.

    Returns:
        For each bucket the samples that join it, and the size that holds them. A bucket that no
        sample fits best takes those of the size that fits it best.
    """
    groups, joined = group(sizes), [Bucket(bucket.size, []) for bucket in buckets]
    for size, members in groups.items():
        best = min(range(len(joined)), key=lambda n: _area(union(buckets[n].size, size)))
        own = joined[best]
        joined[best] = Bucket(union(own.size, size), sorted(own.members + members))
    for n, own in enumerate(joined):
        if not own.members:
            size = min(groups, key=lambda size: _area(union(own.size, size)))
            joined[n] = Bucket(union(own.size, size), groups[size])
    return joined


def group(sizes: Sequence[Size]) -> dict[Size, list[int]]:
    """The places of the samples of each size."""
    groups: dict[Size, list[int]] = {}
    for place, size in enumerate(sizes):
        groups.setdefault(size, []).append(place)
    return groups


def union(one: Size, other: Size) -> Size:
    """The smallest size that holds both."""
    return max(one[0], other[0]), max(one[1], other[1])


def _area(size: Size) -> int:
    return size[0] * size[1]
