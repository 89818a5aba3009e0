"""What all producers share, and the one that takes samples as they are."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from ...dataset.prefetch import prefetch
from ...dataset.sample import Sample
from ...dataset.schema import Schema
from ...errors import InputError
from ...sources import Source
from ..plan import Item
from ..settings import WriteSettings

Progress = Callable[[int], Any]  # is told how many more samples are made
Skipped = dict[str, str]  # ids of samples that cannot be made, and why
READERS = 2  # threads
UNMADE = "the checkpoint gives NaN"
UNREAD = "the source cannot be read there"


class Producer:
    """What all acts share: the source's rows by id, and what becomes of unusable ones.

    base_licence: of the base that makes the samples, if there is one and it is known.
    """

    act: str
    base_licence: str | None = None

    def __init__(self, source: Source, settings: WriteSettings) -> None:
        self.source, self.tasks = source, source.tasks
        self.rows = range(len(source))[: settings.max_source_samples]
        self.skips = settings.on_bad_row == "skip"

    @property
    def schema(self) -> Schema:
        """The columns that the rows fill."""
        return self.source.schema

    def facts(self) -> dict[str, Any]:
        """All that decides the bytes of a shard, beside what is in it."""
        return {"source": self.source.name, "source_fingerprint": self.source.fingerprint}

    def notes(self) -> dict[str, int]:
        """Counts so far of what was done to the source's data, as far as it is kept."""
        return {}

    def identity(self, item: Item) -> str:
        """The id of what is made."""
        return f"{item.source_id}-{item.variant:03d}"

    def make(self, items: Sequence[Item], skipped: Skipped, progress: Progress) -> Iterator[Sample]:
        """The samples of a shard; what is left out is added to `skipped`."""
        raise NotImplementedError

    def read(self, item: Item, skipped: Skipped) -> Sample | None:
        """The image of the source behind an item, None if it cannot be read."""
        try:
            return self.fetch(self._row[item.source_id])
        except InputError as error:
            self.refuse(item, str(error), skipped)
            return None

    def fetch(self, row: int) -> Sample:
        """What is wanted of a row of the source."""
        return self.source.picture(row)

    def refuse(self, item: Item, why: str, skipped: Skipped) -> None:
        """Stop at an unusable sample, or leave it out, as the settings say."""
        if not self.skips:
            raise InputError(f"{why}; --on_bad_row skip leaves it out")
        skipped[self.identity(item)] = why

    @cached_property
    def _row(self) -> dict[str, int]:
        return {self.source.identity(row): row for row in self.rows}


class Importer(Producer):
    """Takes the samples of a source as they are."""

    act = "import"

    def __init__(self, source: Source, settings: WriteSettings) -> None:
        super().__init__(source, settings)
        require_images(source)

    def notes(self) -> dict[str, int]:
        return dict(self.source.notes)

    def identity(self, item: Item) -> str:
        return item.source_id

    def fetch(self, row: int) -> Sample:
        return self.source[row]

    def make(self, items: Sequence[Item], skipped: Skipped, progress: Progress) -> Iterator[Sample]:
        for sample in prefetch(lambda item: self.read(item, skipped), items, 8, READERS):
            if sample is not None:
                yield sample
            progress(1)


def require_images(source: Source) -> None:
    """Refuse a source of captions alone."""
    if not source.has_images:
        raise InputError(f"source {source.name} has no images; d2i1 create makes them")
