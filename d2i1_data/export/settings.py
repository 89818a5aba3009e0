"""Settings of `d2i1 export`."""

from dataclasses import dataclass
from typing import Literal

from ..checks import refuse_without, require_positive
from ..dataset.splits import read_splits
from ..registry import find
from .registry import EXPORTERS


@dataclass(kw_only=True)
class ExportSettings:
    """Write a dataset in a layout that other tools read."""

    dataset: str
    """Folder or Hub id of a dataset in our schema. As the first argument it needs no flag."""
    format: str
    """{exporters}."""
    output_dir: str
    """New or empty folder."""
    split: str | None = None
    """Split to export. None exports all splits of the dataset."""
    splits: str | None = None
    """Shares of new splits, such as `train=0.9,val=0.1`. All samples that were made from one image
    are in one split. None keeps the splits of the dataset."""
    tasks: str | None = None
    """Comma-separated. None exports all tasks that the format can hold."""
    min_quality: dict[str, float] | None = None
    """Export only samples with at least these scores: {TASK.SCORE: least value}, such as
    {semseg.flip: 0.9}. The scores are `confidence`, `flip` and `reencode`."""
    shard_size: int = 1000
    """webdataset, transformers: samples in one file."""
    min_region: int = 1
    """yolo: leave out connected regions with fewer pixels."""
    outline: Literal["exact", "pixels"] = "exact"
    """yolo: `exact` polygons run around the outer pixels of a region. `pixels` run through these
    pixels, for readers that round to whole pixels and draw the outline too (supervision)."""

    def __post_init__(self) -> None:
        require_positive(self, "shard_size", "min_region")
        if self.splits is not None:
            read_splits(self.splits)
        own = find(EXPORTERS, self.format, "--format")
        for option in {option: None for one in EXPORTERS.values() for option in one.options}:
            if option not in own.options:
                formats = [one.name for one in EXPORTERS.values() if option in one.options]
                refuse_without(self, [option], f"--format {' or '.join(formats)}")
