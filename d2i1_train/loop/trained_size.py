"""Trained size: a pipeline perceives by default at the size of the images it was trained on."""

from statistics import median_low

from d2i1_data.diff2in1 import Diff2in1Pipeline
from d2i1_data.sources import Rows, parse_resolution
from d2i1_data.sources.source import evenly_spaced

from .settings import TrainSettings

SAMPLES = 200  # images whose sizes are read


def register_size(pipe: Diff2in1Pipeline, settings: TrainSettings, rows: Rows) -> None:
    """Make the size of the training images the default of `predict`.

    Things on an image then have about the size in pixels that the pipeline has learnt.

    Args:
        pipe: the pipeline that is trained.
        settings: settings of the stage.
        rows: the real training rows.
    """
    pipe.register_to_config(default_processing_resolution=trained_size(settings.resolution, rows))


def trained_size(resolution: str | None, rows: Rows) -> int:
    """The usual longer side of training images, in pixels.

    It is the longer side of a `--resolution` that decides it, otherwise the median of the images.

    Args:
        resolution: the `--resolution` that the rows were opened with.
        rows: the training rows.
    """
    fixed = parse_resolution(resolution)
    if isinstance(fixed, int):
        return fixed
    if isinstance(fixed, tuple):
        return max(fixed)
    chosen = [rows.usable[n] for n in evenly_spaced(len(rows.usable), SAMPLES)]
    return median_low(max(rows.source.image_size(row)) for row in chosen)
