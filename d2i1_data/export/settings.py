"""What can be set when data is exported."""

from dataclasses import dataclass
from typing import Literal

from ..checks import refuse_without, require_positive


@dataclass(kw_only=True)
class ExportSettings:
    """Write a dataset in a layout that other tools read."""

    dataset: str
    """Folder or Hub id of a dataset in our schema; needs no flag if it comes first."""
    format: Literal["coco", "yolo", "webdataset", "folders"]
    """coco: panoptic, semantic and mask annotations of each label map. yolo: polygons of one label
    map. webdataset: tar files. folders: PNG files, for the source `folder:`."""
    output_dir: str
    """New, or empty."""
    split: str | None = None
    """None is train."""
    tasks: str | None = None
    """Comma-separated; None is all that the format can hold."""
    min_quality: dict[str, float] | None = None
    """Export only samples that reach these scores: TASK.SCORE -> least value, such as
    {semseg.flip: 0.9}; the scores are `confidence`, `flip` and `reencode`."""
    shard_size: int = 1000
    """webdataset: samples a tar file."""
    min_region: int = 1
    """yolo: leave out connected regions of fewer pixels."""
    outline: Literal["exact", "pixels"] = "exact"
    """yolo: polygons run around a region's outer pixels, or through them, for readers that round to
    whole pixels and draw the outline too (supervision)."""

    def __post_init__(self) -> None:
        require_positive(self, "shard_size", "min_region")
        if self.format != "webdataset":
            refuse_without(self, ["shard_size"], "--format webdataset")
        if self.format != "yolo":
            refuse_without(self, ["min_region", "outline"], "--format yolo")
