"""The source that a dataset was made from, where that is known."""

from collections.abc import Sequence

import pyarrow.compute as pc

from ...dataset.record import DatasetRecord
from ...dataset.sample import Provenance, Sample
from ...errors import InputError
from ...sources import Source, open_source
from ...sources.dataset import Dataset
from ...sources.source import evenly_spaced
from ..settings import ReportSettings


class SourceImages:
    """The images that the rows of a dataset were made from.

    source: None if it is unknown or cannot be opened; `missing` then says why. used: indices of the
    images that rows were made from.

    Args:
        rows: the dataset.
        settings: of the report.
        record: of the dataset.

    Raises:
        InputError: if `--source` names a source that cannot be opened or is another one.
    """

    def __init__(self, rows: Dataset, settings: ReportSettings, record: DatasetRecord) -> None:
        self.source: Source | None = None
        self.missing: str | None = None
        self.place: dict[str, int] = {}
        spec = settings.source or record.setting("source")
        if spec is None:
            self.missing = "The dataset does not name its source; --source can."
            return
        try:
            source = open_source(str(spec), record.resolution)
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
            self.missing = f"The source cannot be opened: {error}."
            return
        self.source, self.place = source, place

    def index(self, provenance: Provenance) -> int | None:
        """The index of the source image that a row was made from, None if unknown."""
        return self.place.get(str(provenance.source_id))

    def of(self, sample: Sample) -> Sample | None:
        """The source image that a sample was made from, None if unknown.

        Raises:
            InputError: if the image in the source has other pixels.
        """
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
        """Indices of the source images to read.

        Args:
            made: provenance of rows; the images that they were made from are included.
            limit: how many of all used images are included as well, evenly spaced.
        """
        own = [index for index in map(self.index, made) if index is not None]
        return sorted({*own, *(self.used[n] for n in evenly_spaced(len(self.used), limit))})
