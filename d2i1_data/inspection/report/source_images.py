"""The source that a dataset was made from, if it is known."""

from collections.abc import Sequence

import pyarrow.compute as pc

from ...dataset.record import DatasetRecord
from ...dataset.sample import Provenance, Sample
from ...errors import InputError
from ...sources import Source, open_source
from ...sources.dataset import Dataset
from ...sources.source import evenly_spaced
from ..settings import ReportSettings

IMPORT = "import"  # the act whose rows are equal to those of their source


class SourceImages:
    """The images that the rows of a dataset were made from.

    source: the source; None if it is unknown or cannot be opened, and `missing` then says why.
    used: indices of the images that rows were made from.

    Args:
        rows: the dataset.
        settings: settings of the report.
        record: record of the dataset.

    Raises:
        InputError: if `--source` names a source that cannot be opened, or not the source of this
            dataset.
    """

    def __init__(self, rows: Dataset, settings: ReportSettings, record: DatasetRecord) -> None:
        self.source: Source | None = None
        self.missing: str | None = None
        self.place: dict[str, int] = {}
        if settings.source is None and record.run and record.run.act == IMPORT:
            self.missing = "Its rows are those of its source."
            return
        spec = settings.source or record.setting("source")
        if spec is None:
            self.missing = "The dataset does not name its source; name it with --source."
            return
        try:
            most = record.setting("max_pixels")
            source = open_source(str(spec), record.resolution, max_pixels=most)
            if not source.has_images:
                self.missing = f"The source, {source.name}, has no images, only captions."
                return
            place = {source.identity(index): index for index in range(len(source))}
            used = pc.unique(rows.column("provenance.source_id").combine_chunks()).to_pylist()
            self.used = [place[identity] for identity in used if identity in place]
            if not self.used:
                raise InputError(
                    f"source {spec}: {rows.name} was made from none of its {len(source)} images,"
                    f" but from others such as {used[0]!r}"
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
        image, expected = self.source[index], sample.provenance.source_sha256
        if expected and image.provenance.source_sha256 not in (None, expected):
            raise InputError(
                f"source {self.source.name}: row {sample.id!r} was made from a different image"
                f" {image.id!r}: its pixels differ"
            )
        return image

    def chosen(self, origins: Sequence[Provenance], limit: int) -> list[int]:
        """Indices of the source images to read.

        Args:
            origins: provenance of rows; the source images of these rows are included.
            limit: also include at most this many of all used images, evenly spaced.
        """
        own = [index for index in map(self.index, origins) if index is not None]
        return sorted({*own, *(self.used[n] for n in evenly_spaced(len(self.used), limit))})
