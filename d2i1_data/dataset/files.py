"""Files and folders that are complete or absent.

They are written under a temporary name, synced, and moved into place. All results are written with
these functions. After a power cut, a kill or a full disk there is the old content, or nothing, but
never half of the new content.
"""

import errno
import fcntl
import io
import json
import math
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
MANY_FILES = 256  # for more files, syncing all file systems is quicker than syncing each file


@contextmanager
def atomic_file(path: Path, unique: bool = False, sync: bool = True) -> Iterator[Path]:
    """Give a temporary path beside a file. It replaces the file if the block raises no error.

    Args:
        path: the file. Its folder must exist.
        unique: whether other processes or threads may write the same file at the same time.
        sync: False for a cache whose reader detects files that a power cut has broken.
    """
    temporary = temporary_path(path, unique)
    try:
        yield temporary
        if sync:
            _sync_file(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path, unique: bool = False, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside a folder. It replaces the folder if the block raises no error.

    Args:
        folder: the folder. It may exist if it is empty.
        unique: whether other processes or threads may write the same folder at the same time.
        replace: whether a folder with content is deleted before the new one takes its place.
    """
    temporary = temporary_path(folder, unique)
    shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed
    temporary.mkdir(parents=True)
    try:
        yield temporary
        move_into_place(temporary, folder, replace)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_path(path: Path, unique: bool = False) -> Path:
    """The hidden path where a file or folder is written before it is complete.

    Args:
        path: the file or folder.
        unique: whether other processes or threads may write it at the same time.
    """
    own = f".{os.getpid()}.{threading.get_ident()}" if unique else ""
    return path.with_name(f".{path.name}{own}.tmp")


def move_into_place(temporary: Path, place: Path, replace: bool = False) -> None:
    """Sync a complete file or folder and give it its name.

    Args:
        temporary: where it was written.
        place: its final path.
        replace: whether a folder with content is replaced.
    """
    files = [file for file in temporary.rglob("*") if file.is_file()]
    if temporary.is_file():
        _sync_file(temporary)
    elif len(files) < MANY_FILES:
        for file in files:
            _sync_file(file)
    else:
        os.sync()
    if not (replace and place.is_dir()):
        os.replace(temporary, place)
        return
    old = temporary_path(place.with_name(f"{place.name}.old"))
    shutil.rmtree(old, ignore_errors=True)  # left by a run that was killed
    os.replace(place, old)
    os.replace(temporary, place)
    shutil.rmtree(old)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file as a whole or not at all.

    JSON has no NaN and no infinity. Objects leave them out, and lists have null instead.
    """
    write_text(path, json.dumps(without_nan(content), indent=2, allow_nan=False) + "\n")


def without_nan(content: Any) -> Any:
    """The same content without NaN and infinity, see `write_json`."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, list | tuple):
        return [without_nan(item) for item in content]
    if not isinstance(content, dict):
        return content
    kept = {key: (value, without_nan(value)) for key, value in content.items()}
    return {key: new for key, (old, new) in kept.items() if new is not None or old is None}


def write_png(path: Path, picture: "Image") -> None:
    """Write a picture as a PNG file, as a whole or not at all."""
    data = io.BytesIO()
    picture.save(data, "PNG")
    write_bytes(path, data.getvalue())


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Raise InputError for a disk that is full, and for a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in READ_ONLY:
            place = error.filename or folder
            raise InputError(f"{place}: {error.strerror}: choose another --output_dir") from error
        if error.errno not in DISK_FULL:
            raise
        raise InputError(
            f"{folder}: {os.strerror(error.errno)}; complete files stay; make room and repeat the"
            " command to continue"
        ) from error


@contextmanager
def as_os_error() -> Iterator[None]:
    """Raise OSError if safetensors or torch cannot write, because they raise other errors."""
    try:
        yield
    except (OSError, InputError):
        raise
    except Exception as error:
        found = [number for number in (*READ_ONLY, *DISK_FULL) if os.strerror(number) in str(error)]
        if not found and "inline_container" in str(error):  # torch does not say why
            found = [errno.ENOSPC]
        if not found:
            raise
        raise OSError(found[0], os.strerror(found[0])) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, so that one run at a time writes to it. The lock ends with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: another run is writing it") from error
        except OSError:
            pass  # the file system has no locks
        yield
    finally:
        os.close(handle)


def require_folder(folder: Path) -> None:
    """Raise InputError for a file where a folder is needed."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file; --output_dir needs a folder")
