"""Files that are complete or not there: written beside, synced, renamed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """A full disk as an InputError."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise InputError(
            f"{folder}: {os.strerror(error.errno)}; what is complete stays, and the same command"
            " continues once there is room"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    _settle(temporary, path)


def _settle(temporary: Path, path: Path) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def require_folder(folder: Path) -> None:
    """Refuse a file where a folder is to be."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file; --output_dir needs a folder")
