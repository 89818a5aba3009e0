"""Staging: a folder is complete or not there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from ..dataset.files import require_folder
from ..errors import InputError


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A hidden folder beside this one, which takes its place if all goes well, and is removed else.

    InputError unless the folder is new or empty.
    """
    folder = folder.resolve()
    require_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: choose another --output_dir")
    if folder.is_mount():
        raise InputError(f"{folder} is a mount point, which nothing can replace: name one in it")
    beside = folder.with_name(f".{folder.name}.{uuid4().hex}.part")
    try:
        beside.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"--output_dir {folder}: {error.strerror}") from error
    try:
        yield beside
        os.sync()  # else a power cut could leave the name, and files without content
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
