"""Captions alone, one a line of a text file, to create images from without any image."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..dataset.sample import Provenance, Sample
from ..errors import InputError
from ..tasks import Task
from .source import fingerprint


class Text:
    """Samples of a caption and one blank pixel, which `--resolution` brings to a size.

    An id is the file's name and the number of the line. Empty lines are left out.
    """

    has_images = False
    tasks: ClassVar[dict[str, Task]] = {}

    def __init__(self, file: str) -> None:
        path = Path(file)
        if not path.is_file():
            raise InputError(f"text {file}: no such file")
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"text {file}: not readable as UTF-8: {error}") from error
        self.name, self.fingerprint = path.stem, fingerprint(lines)
        self.notes: dict[str, int] = {}
        self.captions = [(n, line.strip()) for n, line in enumerate(lines, 1) if line.strip()]
        if not self.captions:
            raise InputError(f"text {file}: holds no caption")

    def __len__(self) -> int:
        return len(self.captions)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def identity(self, index: int) -> str:
        return f"{self.name}-{self.captions[index][0]:06d}"

    def picture(self, index: int) -> Sample:
        return self[index]

    def __getitem__(self, index: int) -> Sample:
        identity, blank = self.identity(index), np.zeros((1, 1, 3), np.uint8)
        provenance = Provenance("real", self.name, identity)
        return Sample(identity, blank, {}, self.captions[index][1], provenance)
