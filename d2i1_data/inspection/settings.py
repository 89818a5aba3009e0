"""What can be set when data is inspected."""

from dataclasses import dataclass

from ..checks import require_positive
from ..errors import InputError


@dataclass(kw_only=True)
class ReportSettings:
    """Show what is in a dataset, beside its source, on one page."""

    dataset: str
    """Folder or Hub id of a dataset in our schema."""
    output_dir: str | None = None
    """Where index.html and its figures go; None is DATASET/report."""
    source: str | None = None
    """What the images were made from; None is what the dataset's run.json says."""
    pipeline: str | None = None
    """Whose features tell copies from variations; None is what the dataset's run.json says."""
    max_samples: int = 2000
    """Read at most this many rows, and as many images of the source, evenly_spaced evenly."""
    batch_size: int = 16
    copy_threshold: float = 0.98
    """Cosine from which a created image counts as a copy of a source image."""

    def __post_init__(self) -> None:
        require_positive(self, "max_samples", "batch_size")


@dataclass(kw_only=True)
class JudgeSettings:
    """Score the labels of a dataset, and its quality scores, where the truth is known."""

    dataset: str
    """Folder or Hub id of a dataset in our schema."""
    source: str
    """The truth, on the same images: what was labelled, or a dataset that a reference labelled."""
    output_file: str
    """All figures, as JSON."""
    plot: str | None = None
    """A PNG of every sample's error against its scores."""
    resolution: str | None = None
    """Of the truth, as for `d2i1 label`; None is what the dataset's run.json says."""
    max_samples: int = 2000
    """Judge at most this many rows, evenly_spaced evenly."""
    keep: float = 0.8
    """The share of rows that a filter by quality would keep."""
    rounds: int = 1000
    """Of the bootstrap, and of drawing rows at random."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "max_samples", "rounds")
        if not 0 < self.keep < 1:
            raise InputError(f"--keep {self.keep}: expected a share between 0 and 1")
