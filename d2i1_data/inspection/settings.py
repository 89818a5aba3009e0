"""Settings of `d2i1 predict`, `report` and `judge`."""

from dataclasses import dataclass
from typing import Literal

from ..checks import MAX_PIXELS, MAX_SIDE, require_between, require_library, require_positive
from ..errors import InputError


@dataclass(kw_only=True)
class PredictionSettings:
    """Prediction"""

    processing_resolution: int | None = None
    """Longer side at which the model works. None takes the default of the checkpoint, 0 keeps the
    sizes of the images."""
    flip: bool = False
    """Average with the prediction of the mirrored image."""
    window: int | None = None
    """Predict in overlapping square windows with this side. None predicts the whole image at
    once."""
    ensemble_size: int = 1
    """Average the predictions of this many views, 1 to 4: the image, its mirror image, and both
    enlarged. Cannot be used with `flip`."""
    max_pixels: int = MAX_PIXELS
    """Refuse images with more pixels than this. A small file can hold a huge image."""

    def check(self) -> None:
        """Refuse impossible values."""
        require_positive(self, "window", "max_pixels")
        require_between(self, 1, 4, "ensemble_size")  # 4: `prediction.MOST_VIEWS`
        if self.flip and self.ensemble_size > 1:
            raise InputError(f"--flip: --ensemble_size {self.ensemble_size} has mirrored images")
        if not 0 <= (self.processing_resolution or 0) <= MAX_SIDE:
            raise InputError(
                f"--processing_resolution {self.processing_resolution}: expected 0 to {MAX_SIDE}"
            )

    def check_window(self, stride: int) -> None:
        """Refuse windows that are smaller than the stride of a base."""
        if self.window is not None and self.window < stride:
            raise InputError(f"--window {self.window}: this pipeline needs at least {stride}")


@dataclass(kw_only=True)
class PredictSettings(PredictionSettings):
    """Label your images: write label pictures, arrays, colour pictures and overlays, no dataset."""

    images: list[str]
    """Image files, folders of images, or patterns such as photos/*.jpg. Needs no flag."""
    pipeline: str
    """Folder or Hub id of a Diff2in1Pipeline."""
    output_dir: str
    """Folder for labels/TASK/NAME.png (as datasets store them), arrays/TASK/NAME.npy (physical
    units), pictures/TASK/NAME.png (in colours) and overlays/TASK/NAME.png (colours on the
    image)."""
    batch_size: int = 8
    """Images in one batch. Only images of one size can share a batch."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the weights and of all computation."""
    overwrite: bool = False
    """Write into a folder that is not empty. Files with the same names are replaced, other files
    stay."""

    def __post_init__(self) -> None:
        require_positive(self, "batch_size")
        PredictionSettings.check(self)


@dataclass(kw_only=True)
class ReportSettings:
    """Show what is in a dataset, beside its source, on one page."""

    dataset: str
    """Folder or Hub id of a dataset in our schema."""
    output_dir: str | None = None
    """Folder for index.html and its figures. None is DATASET/report."""
    source: str | None = None
    """The source of the images. None takes it from run.json of the dataset."""
    pipeline: str | None = None
    """Pipeline that computes features of images, to find copies. None takes it from run.json of the
    dataset."""
    max_samples: int = 2000
    """Read at most this many rows, and as many images of the source, evenly spaced."""
    batch_size: int = 16
    """Images in one batch."""
    copy_threshold: float = 0.98
    """A created image counts as a copy of a source image if their cosine is at least this."""

    def __post_init__(self) -> None:
        require_library("matplotlib", "plots", "report")
        require_positive(self, "max_samples", "batch_size")


@dataclass(kw_only=True)
class JudgeSettings:
    """Score the labels of a dataset, and its quality scores, where the truth is known."""

    dataset: str
    """Folder or Hub id of a dataset in our schema."""
    source: str
    """The truth for the same images: their source, or a dataset with labels of a reference
    model."""
    output_file: str
    """JSON file for the metrics."""
    plot: str | None = None
    """PNG file for a figure that shows the error of each sample against its scores."""
    resolution: str | None = None
    """Resolution of the truth, as for `d2i1 label`. None takes it from run.json of the dataset."""
    max_samples: int = 2000
    """Judge at most this many rows, evenly spaced."""
    keep: float = 0.8
    """Compare filters that keep this share of the rows."""
    rounds: int = 1000
    """Number of rounds of the bootstrap, and of random choices of rows."""
    seed: int = 0
    """Seed of all random draws."""

    def __post_init__(self) -> None:
        if self.plot:
            require_library("matplotlib", "plots", "--plot")
        require_positive(self, "max_samples", "rounds")
        if not 0 < self.keep < 1:
            raise InputError(f"--keep {self.keep}: expected a share between 0 and 1")
