"""The exporters, one record each. A new exporter is a new file beside this one, and a record."""

from dataclasses import dataclass

from ..registry import as_markdown


@dataclass(frozen=True)
class Exporter:
    """A layout that a dataset can be exported to.

    Args:
        name: the value of `--format`.
        target: `module:function` of the writer, which is called as
            `write(folder, selection, **options)` with an `entries.Selection`.
        help: one line that says what it writes.
        of_classes: whether the layout can hold only tasks with classes.
        of_one_task: whether it can hold only one task.
        options: names of the settings that the writer takes as options. Other exporters refuse
            them.
    """

    name: str
    target: str
    help: str
    of_classes: bool = False
    of_one_task: bool = False
    options: tuple[str, ...] = ()


RECORDS = (
    Exporter(
        "coco",
        "d2i1_data.export.coco:write_coco",
        "panoptic, semantic and mask annotations of every task with classes",
        of_classes=True,
    ),
    Exporter(
        "yolo",
        "d2i1_data.export.yolo:write_yolo",
        "polygons of one task with classes",
        of_classes=True,
        of_one_task=True,
        options=("min_region", "outline"),
    ),
    Exporter(
        "voc",
        "d2i1_data.export.voc:write_voc",
        "PASCAL VOC: pictures of class ids of one task, and lists of names for each split",
        of_classes=True,
        of_one_task=True,
    ),
    Exporter(
        "transformers",
        "d2i1_data.export.transformers:write_transformers",
        "Parquet files of one task with classes, for transformers' `run_semantic_segmentation.py`",
        of_classes=True,
        of_one_task=True,
        options=("shard_size",),
    ),
    Exporter(
        "webdataset",
        "d2i1_data.export.webdataset:write_webdataset",
        "tar files of samples",
        options=("shard_size",),
    ),
    Exporter(
        "folders",
        "d2i1_data.export.folders:write_folders",
        "PNG files, one folder for each task, which the source `folder:` reads",
    ),
)
EXPORTERS = {record.name: record for record in RECORDS}


def exporter_forms() -> str:
    """Every value of `--format` with its help line, for help."""
    return "; ".join(f"{exporter.name}: {exporter.help}" for exporter in EXPORTERS.values())


def exporter_table() -> str:
    """The table of the docs."""
    rows = ((f"`{exporter.name}`", exporter.help) for exporter in EXPORTERS.values())
    return as_markdown(("format", "what it writes"), rows)
