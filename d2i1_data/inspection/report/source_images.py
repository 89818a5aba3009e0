"""Origin: the source that a dataset was made from, where that is known."""

from collections.abc import Sequence

import pyarrow.compute as pc

from ...dataset.record import Record
from ...dataset.sample import Provenance, Sample
from ...errors import InputError
from ...sources import Source, open_source
from ...sources.dataset import Dataset
from ...sources.source import evenly_spaced
from ..settings import ReportSettings


class Origin:
    """The images that the rows of a dataset were made from.

    source: None if it is unknown or cannot be opened; `missing` then says why. A source that was
    asked for by a flag has to be the right one, else InputError.
    """

    def __init__(self, rows: Dataset, settings: ReportSettings, record: Record) -> None:
        self.source: Source | None = None
        self.missing: str | None = None
        self.place: dict[str, int] = {}
        spec = settings.source or record.run.get("source")
        if spec is None:
            self.missing = "The dataset does not say where its source is; --source does."
            return
        try:
            source = open_source(str(spec), record.run.get("resolution"))
            if not source.has_images:
                self.missing = f"The source, {source.name}, has no images, only captions."
                return
            place = {source.identity(index): index for index in range(len(source))}
            used = pc.unique(rows.column("provenance.source_id").combine_chunks()).to_pylist()
            self.used = [place[identity] for identity in used if identity in place]
            if not self.used:
                raise InputError(
                    f"source {spec}: none of its {len(source)} images is one that {rows.name} was"
                    f" made from, such as {used[0]!r}"
                )
        except InputError as error:
            if settings.source:
                raise
            self.missing = f"The source cannot be shown: {error}."
            return
        self.source, self.place = source, place

    def index(self, provenance: Provenance) -> int | None:
        """Which image of the source something was made from, None if unknown."""
        return self.place.get(str(provenance.source_id))

    def of(self, sample: Sample) -> Sample | None:
        """The image of the source that a sample was made from."""
        index = self.index(sample.provenance)
        if self.source is None or index is None:
            return None
        found, wanted = self.source[index], sample.provenance.source_sha256
        if wanted and found.provenance.source_sha256 not in (None, wanted):
            raise InputError(
                f"source {self.source.name}: image {found.id!r} is not the one that row"
                f" {sample.id!r} was made from; its pixels differ"
            )
        return found

    def chosen(self, made: Sequence[Provenance], limit: int) -> list[int]:
        """Images to look at: what these were made from, and up to `limit` of all that were used."""
        own = [index for index in map(self.index, made) if index is not None]
        return sorted({*own, *(self.used[n] for n in evenly_spaced(len(self.used), limit))})
