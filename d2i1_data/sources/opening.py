"""Opening: from the spelling of a source to its samples."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import InputError
from ..registry import load
from .registry import SOURCES, parse_spec
from .resize import ResizedSource, parse_resolution
from .source import Rows, Source

if TYPE_CHECKING:
    from .dataset import Dataset


def open_source(
    spec: str, resolution: str | None = None, min_quality: Mapping[str, float] | None = None
) -> Source:
    """Open the source that a `--source` names.

    Args:
        spec: see `registry.SOURCES`, such as `rooms:train`.
        resolution: see `parse_resolution`; None keeps the source's own.
        min_quality: `TASK.SCORE` -> least value; keeps the rows that reach all of them.

    Raises:
        InputError: if the spec is wrong, or its place cannot be read.
    """
    found = parse_spec(spec)
    kind = SOURCES[found.kind]
    if min_quality and not kind.quality:
        allowed = ", ".join(one.form for one in SOURCES.values() if one.quality)
        raise InputError(f"--min_quality: source {spec!r} has no scores, only {allowed} has")
    if not kind.images and resolution is None:
        raise InputError(f"source {spec}: captions have no size, give one with --resolution")
    options = {"min_quality": min_quality} if kind.quality else {}
    source: Source = load(kind.target)(*found.arguments, **options)
    size = parse_resolution(resolution)
    return source if size is None else ResizedSource(source, size)


def open_rows(
    spec: str,
    resolution: str | None = None,
    limit: int | None = None,
    on_bad_row: str = "stop",
    min_quality: Mapping[str, float] | None = None,
) -> Rows:
    """Open a source and choose its rows, see `open_source` and `Source.usable_rows`."""
    return open_source(spec, resolution, min_quality).usable_rows(limit, on_bad_row)


def open_dataset(place: str) -> "Dataset":
    """Open a dataset in our schema.

    Args:
        place: a folder or Hub id, and perhaps `:SPLIT`.

    Raises:
        InputError: if there is no such dataset.
    """
    from .dataset import Dataset

    spec = parse_spec(f"dataset:{place}")
    return Dataset(str(spec.place), spec.split)
