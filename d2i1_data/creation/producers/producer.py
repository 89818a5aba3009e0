"""The base class of all producers, and the producer that imports samples unchanged."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

from tqdm import tqdm

from ...dataset.prefetch import prefetch
from ...dataset.sample import Sample
from ...dataset.schema import Schema
from ...errors import InputError
from ...sources import Source, check_axes, random_subset
from ..plan import Item
from ..settings import ImportSettings, WriteSettings

Progress = Callable[[int], Any]  # called with the number of finished samples
Skipped = dict[str, str]  # id of a sample that is left out -> why
READERS = 2  # threads
NOT_FINITE = "the checkpoint gives NaN"
UNREADABLE = "the source cannot be read there"


class Producer:
    """Makes the samples of a dataset from the rows of a source.

    Attributes:
        act: name of the command.
        base_licence: licence of the base that makes the samples; None if unknown or without a base.
        source: where the samples come from.
        tasks: the tasks of the dataset.
        rows: indices of the rows of the source that are used.
    """

    act: str
    base_licence: str | None = None

    def __init__(self, source: Source, settings: WriteSettings) -> None:
        self.source, self.tasks = source, source.tasks
        limit, seed = settings.max_source_samples, settings.subset_seed
        self.rows = random_subset(len(source), limit, seed)
        self.skips = settings.on_bad_row == "skip"

    @property
    def schema(self) -> Schema:
        """The columns that the rows fill."""
        return self.source.schema

    def examine(self) -> None:
        """Look at the source once, before the plan is made.

        Raises:
            InputError: if it should not be used.
        """

    def facts(self) -> dict[str, Any]:
        """All facts besides the samples that decide the bytes of a shard."""
        return {"source": self.source.name, "source_fingerprint": self.source.fingerprint}

    def notes(self) -> dict[str, int]:
        """How often each change was made to the data of the source, such as resizing maps."""
        return {}

    def identity(self, item: Item) -> str:
        """The id of the sample that is made from an item."""
        return f"{item.source_id}-{item.variant:03d}"

    def make(self, items: Sequence[Item], skipped: Skipped, progress: Progress) -> Iterator[Sample]:
        """Make the samples of a shard.

        Args:
            items: the samples, as planned.
            skipped: gets the ids of the samples that are left out, and why.
            progress: called with the number of finished samples.

        Raises:
            InputError: if a sample is unusable, unless the settings leave such samples out.
        """
        raise NotImplementedError

    def read(self, item: Item, skipped: Skipped) -> Sample | None:
        """Read the source image of an item. None if it is unreadable and left out."""
        try:
            if item.source_id not in self._row:
                raise InputError(f"source {self.source.name} has no sample {item.source_id!r}")
            return self.fetch(self._row[item.source_id])
        except InputError as error:
            self.refuse(item, str(error), skipped)
            return None

    def fetch(self, row: int) -> Sample:
        """Read a row of the source, without targets."""
        return self.source.picture(row)

    def refuse(self, item: Item, reason: str, skipped: Skipped) -> None:
        """Leave an unusable sample out.

        Raises:
            InputError: if an unusable sample stops the run, see `on_bad_row`.
        """
        if not self.skips:
            raise InputError(f"{reason}; --on_bad_row skip leaves it out")
        skipped[self.identity(item)] = reason

    @cached_property
    def _row(self) -> dict[str, int]:
        return {self.source.identity(row): row for row in self.rows}


class Importer(Producer):
    """Imports the samples of a source unchanged."""

    act = "import"

    def __init__(self, source: Source, settings: WriteSettings) -> None:
        super().__init__(source, settings)
        require_images(source)
        self.chose_axes = isinstance(settings, ImportSettings) and settings.axes is not None
        if not self.skips:
            source.check_pairs()

    def examine(self) -> None:
        if line := check_axes(self.source, self.rows, self.chose_axes):
            tqdm.write(line, file=sys.stderr)

    def notes(self) -> dict[str, int]:
        return dict(self.source.notes)

    def identity(self, item: Item) -> str:
        return item.source_id

    def fetch(self, row: int) -> Sample:
        return self.source.labelled(row)

    def make(self, items: Sequence[Item], skipped: Skipped, progress: Progress) -> Iterator[Sample]:
        for sample in prefetch(lambda item: self.read(item, skipped), items, 8, READERS):
            if sample is not None:
                yield sample
            progress(1)


def require_images(source: Source) -> None:
    """Raise InputError for a source of captions alone."""
    if not source.has_images:
        raise InputError(f"source {source.name} has no images; use d2i1 create to make them")
