"""A source whose normals are stored with other axes than it declares, see `--axes`."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ..dataset.sample import Sample
from ..errors import InputError
from .axes import OURS, read_axes, to_ours
from .source import Source, fingerprint
from .wrapped import WrappedSource


class OtherAxes(WrappedSource):
    """A source whose stored normals are read with these axes.

    Args:
        source: the source at its own resolution.
        axes: see `axes.py`.

    Raises:
        InputError: if the axes have another form, or the source has no normals.
    """

    def __init__(self, source: Source, axes: str) -> None:
        super().__init__(source)
        read_axes(axes, "--axes")
        self.axes, self.camera = axes, source.camera
        self.directions = [name for name, task in source.tasks.items() if task.family.axes]
        if not self.directions:
            raise InputError(f"--axes: source {source.name} has no normals")
        if axes != (source.axes or OURS):
            self.fingerprint = fingerprint(source.fingerprint, axes)

    @property
    def original(self) -> Source:
        return self

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
