"""Base class of sources that change the samples of another source."""

from typing import TYPE_CHECKING

from .source import Source

if TYPE_CHECKING:
    from ..dataset.schema import Schema


class WrappedSource(Source):
    """A source with the samples of another one. A subclass changes them in `read`.

    Args:
        source: the other source. All that a subclass does not change is taken from it.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.name, self.tasks, self.fingerprint = source.name, source.tasks, source.fingerprint
        self.has_images, self.max_pixels = source.has_images, source.max_pixels
        self.notes, self.strays = source.notes, source.strays

    def __len__(self) -> int:
        return len(self.source)

    @property
    def schema(self) -> "Schema":
        return self.source.schema

    @property
    def original(self) -> Source:
        return self.source.original

    def identity(self, index: int) -> str:
        return self.source.identity(index)

    def origin(self, index: int) -> str:
        return self.source.origin(index)

    def check_pairs(self) -> None:
        self.source.check_pairs()

    def image_size(self, index: int) -> tuple[int, int]:
        return self.source.image_size(index)
