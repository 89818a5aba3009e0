"""Import a source, and show on a page what was imported."""

import os
from pathlib import Path

from ..creation.create import import_source as write_dataset
from ..creation.settings import ImportSettings
from .report.report import report
from .settings import ReportSettings


def import_source(settings: ImportSettings) -> Path:
    """Write a dataset of real samples with their labels, and its page if the settings ask for it.

    Returns:
        The folder of the dataset.

    Raises:
        InputError: if the settings, the source or the folder cannot be used.
    """
    folder = write_dataset(settings)
    if settings.report and os.environ.get("RANK", "0") == "0":
        report(ReportSettings(dataset=str(folder)))
    return folder
