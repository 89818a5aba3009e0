"""Sources: read data in several layouts as samples."""

from .agreement import check_axes
from .opening import open_dataset, open_rows, open_source
from .registry import SOURCES, parse_spec
from .resize import parse_resolution
from .source import Rows, Source, agreeing_tasks, random_subset, write_report
from .spec import Spec

__all__ = [
    "SOURCES",
    "Rows",
    "Source",
    "Spec",
    "agreeing_tasks",
    "check_axes",
    "open_dataset",
    "open_rows",
    "open_source",
    "parse_resolution",
    "parse_spec",
    "random_subset",
    "write_report",
]
