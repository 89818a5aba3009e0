"""The source `text:`: captions, one on each line of a file, to create images from text alone."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ..dataset.sample import Provenance, Sample
from ..dataset.schema import Schema
from ..errors import InputError
from ..tasks import Task
from .source import Source, fingerprint


class Text(Source):
    """Samples with a caption and one blank pixel, which `--resolution` enlarges to a size.

    An id is the name of the file and the number of the line. Empty lines are left out.

    Args:
        file: UTF-8 text.

    Raises:
        InputError: if there is no such file, or it holds no caption.
    """

    has_images = False
    tasks: Mapping[str, Task] = {}

    def __init__(self, file: str) -> None:
        super().__init__()
        path = Path(file)
        if not path.is_file():
            raise InputError(f"text {file}: no such file")
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"text {file}: not readable as UTF-8: {error}") from error
        self.name, self.fingerprint = path.stem, fingerprint(lines)
        self.captions = [(n, line.strip()) for n, line in enumerate(lines, 1) if line.strip()]
        if not self.captions:
            raise InputError(f"text {file}: holds no caption")

    def __len__(self) -> int:
        return len(self.captions)

    def identity(self, index: int) -> str:
        return f"{self.name}-{self.captions[index][0]:06d}"

    @property
    def schema(self) -> Schema:
        """Captions without labels and without a known licence."""
        return Schema.real({}, licence=False)

    def read(self, index: int, tasks: Iterable[str]) -> Sample:
        identity, blank = self.identity(index), np.zeros((1, 1, 3), np.uint8)
        provenance = Provenance("real", self.name, identity)
        return Sample(identity, blank, {}, self.captions[index][1], provenance)
