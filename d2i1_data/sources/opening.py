"""Open sources: from the text of a `--source` to its samples."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import InputError
from ..registry import load
from .captions import CaptionedSource
from .other_axes import OtherAxes
from .registry import SOURCES, parse_spec
from .resize import ResizedSource, parse_resolution
from .source import Rows, Source

if TYPE_CHECKING:
    from .dataset import Dataset


def open_source(
    spec: str,
    resolution: str | None = None,
    min_quality: Mapping[str, float] | None = None,
    max_pixels: int | None = None,
    captions: str | None = None,
    axes: str | None = None,
) -> Source:
    """Open the source that a `--source` names.

    Args:
        spec: text such as `rooms:train`, see `registry.SOURCES`.
        resolution: see `parse_resolution`; None keeps the resolution of the source.
        min_quality: `TASK.SCORE` -> least value; only rows that reach all these values are kept.
        max_pixels: larger images are refused; None takes the default of `Source`.
        captions: file with the captions, see `read_captions`; None keeps those of the source.
        axes: how its normals are stored, see `axes.py`; None takes what it declares.

    Raises:
        InputError: if the spec is wrong, or its file, folder or Hub id cannot be read.
    """
    parsed = parse_spec(spec)
    kind = SOURCES[parsed.kind]
    if min_quality and not kind.quality:
        allowed = ", ".join(scored.form for scored in SOURCES.values() if scored.quality)
        raise InputError(f"--min_quality: source {spec!r} has no scores, only {allowed} has")
    if not kind.images and resolution is None:
        raise InputError(f"source {spec}: captions have no size, give one with --resolution")
    options = {"min_quality": min_quality} if kind.quality else {}
    source: Source = load(kind.target)(*parsed.arguments, **options)
    source.max_pixels = max_pixels or source.max_pixels
    if axes is not None:
        source = OtherAxes(source, axes)
    if captions is not None:
        source = CaptionedSource(source, captions)
    size = parse_resolution(resolution)
    return source if size is None else ResizedSource(source, size)


def open_rows(
    spec: str,
    resolution: str | None = None,
    limit: int | None = None,
    on_bad_row: str = "stop",
    min_quality: Mapping[str, float] | None = None,
    subset_seed: int | None = 0,
    max_pixels: int | None = None,
    captions: str | None = None,
) -> Rows:
    """Open a source and choose its rows.

    Args:
        spec: see `open_source`.
        resolution: see `open_source`.
        limit: number of rows to choose at random, see `random_subset`; None takes all.
        on_bad_row: `skip` or `stop`, see `Source.usable_rows`.
        min_quality: see `open_source`.
        subset_seed: decides which rows are chosen.
        max_pixels: see `open_source`.
        captions: see `open_source`.

    Raises:
        InputError: if the source cannot be opened, or no row is usable.
    """
    source = open_source(spec, resolution, min_quality, max_pixels, captions)
    return source.usable_rows(limit, on_bad_row, subset_seed)


def open_dataset(place: str) -> "Dataset":
    """Open a dataset in our schema.

    Args:
        place: a folder or Hub id, optionally followed by `:SPLIT`.

    Raises:
        InputError: if there is no such dataset.
    """
    from .dataset import Dataset

    spec = parse_spec(f"dataset:{place}")
    return Dataset(str(spec.place), spec.split)
