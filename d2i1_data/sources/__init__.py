"""Sources: real data in its own layout, as samples."""

from collections.abc import Mapping

from ..errors import InputError
from .source import (
    Resized,
    Rows,
    Source,
    agreeing_tasks,
    parse_resolution,
    usable_rows,
    write_report,
)

__all__ = [
    "Rows",
    "Source",
    "agreeing_tasks",
    "open_rows",
    "open_source",
    "parse_resolution",
    "split_of",
    "usable_rows",
    "write_report",
]


def open_source(
    spec: str, resolution: str | None = None, min_quality: Mapping[str, float] | None = None
) -> Source:
    """The source a `--source` names, at its own or another resolution (see `parse_resolution`).

    `rooms[:SPLIT]`, `folder:FILE.yaml[:SPLIT]`, `dataset:PATH_OR_ID[:SPLIT]`, or `text:FILE`.
    min_quality: of a dataset, which rows to keep, see `dataset.Dataset`.
    """
    kind, _, rest = spec.partition(":")
    place, _, split = rest.partition(":")
    if min_quality and kind != "dataset":
        raise InputError(
            f"--min_quality: source {spec!r} has no scores, only dataset:PATH_OR_ID has"
        )
    if kind == "rooms":
        from .rooms import Rooms

        source: Source = Rooms(place or "train")
    elif kind == "folder" and place:
        from .folder import Folder

        source = Folder(place, split or None)
    elif kind == "dataset" and place:
        from .dataset import Dataset

        source = Dataset(place, split or None, min_quality)
    elif kind == "text" and place:
        from .text import Text

        if resolution is None:
            raise InputError(f"source {spec}: captions have no size, give one with --resolution")
        source = Text(place)
    else:
        allowed = "rooms[:SPLIT], folder:FILE.yaml[:SPLIT], dataset:PATH_OR_ID[:SPLIT], text:FILE"
        raise InputError(f"source {spec!r}: expected one of {allowed}")
    size = parse_resolution(resolution)
    return source if size is None else Resized(source, size)


def split_of(spec: str) -> str | None:
    """The split that a `--source` names, None where it names none."""
    kind, _, rest = spec.partition(":")
    place, _, split = rest.partition(":")
    return (place if kind == "rooms" else split) or None


def open_rows(
    spec: str,
    resolution: str | None = None,
    limit: int | None = None,
    on_bad_row: str = "stop",
    min_quality: Mapping[str, float] | None = None,
) -> Rows:
    """The rows of a source that an act uses: the first `limit`, see `usable_rows`."""
    return usable_rows(open_source(spec, resolution, min_quality), limit, on_bad_row)
