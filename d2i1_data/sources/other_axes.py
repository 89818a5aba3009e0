"""A source whose normals are stored with other axes than it declares, see `--axes`."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..dataset.sample import Sample
from ..errors import InputError
from .axes import OURS, read_axes, to_ours
from .source import Source, fingerprint

if TYPE_CHECKING:
    from ..dataset.schema import Schema


class OtherAxes(Source):
    """A source whose stored normals are read with these axes.

    Args:
        source: the source at its own resolution.
        axes: see `axes.py`.

    Raises:
        InputError: if the axes have another form, or the source has no normals.
    """

    def __init__(self, source: Source, axes: str) -> None:
        super().__init__()
        read_axes(axes, "--axes")
        self.source, self.axes = source, axes
        self.directions = [name for name, task in source.tasks.items() if task.family.axes]
        if not self.directions:
            raise InputError(f"--axes: source {source.name} has no normals")
        self.name, self.tasks, self.notes = source.name, source.tasks, source.notes
        self.has_images, self.strays, self.camera = source.has_images, source.strays, source.camera
        self.max_pixels, self.fingerprint = source.max_pixels, source.fingerprint
        if axes != (source.axes or OURS):
            self.fingerprint = fingerprint(source.fingerprint, axes)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def schema(self) -> "Schema":
        return self.source.schema

    def identity(self, index: int) -> str:
        return self.source.identity(index)

    def check_pairs(self) -> None:
        self.source.check_pairs()

    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        sample = self.source.read(index, tasks)
        channels, signs = read_axes(self.source.axes or OURS, self.source.name)
        targets = dict(sample.targets)
        for name in self.directions:
            if name in targets:
                ours = np.asarray(targets[name], np.float32)
                stored = np.empty_like(ours)
                stored[..., channels] = ours * np.asarray(signs, np.float32)
                targets[name] = to_ours(stored, self.axes)
        return replace(sample, targets=targets)
