"""Staging: an export is written to a hidden folder first, so no half export is ever visible."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..dataset.files import atomic_folder, require_folder, temporary_path
from ..errors import InputError


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Give a hidden folder beside the output folder. It replaces the output folder at the end.

    Args:
        folder: the output folder.

    Raises:
        InputError: if the output folder is not empty, or cannot be replaced.
    """
    folder = folder.resolve()
    require_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: choose another --output_dir")
    if folder.is_mount():
        raise InputError(f"{folder} is a mount point and cannot be replaced: choose a folder in it")
    beside = temporary_path(folder, unique=True)
    try:  # find errors before the first row is read
        beside.mkdir(parents=True, exist_ok=True)
        beside.rmdir()
    except OSError as error:
        raise InputError(f"--output_dir {folder}: {error.strerror}") from error
    with atomic_folder(folder, unique=True) as temporary:
        yield temporary
