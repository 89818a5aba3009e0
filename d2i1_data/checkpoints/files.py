"""Files of a checkpoint: fetch them from the Hub, and compute their fingerprint."""

import hashlib
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..checks import parse_json
from ..diff2in1.saving import HASHES, LORA_FILE, TRAINING, hash_file
from ..errors import InputError

# the files that are downloaded from the Hub; the repository of a base may have more
WANTED = ["model_index.json", "*.py", "*/*.json", "*/*.txt", "*/*.py", "*/*.safetensors"]
WANTED += [LORA_FILE, TRAINING, HASHES]
MESSAGE = 300  # characters of the message of a library that are shown
PLAIN = ["*.json", "*.txt", "*.model", "*.safetensors"]  # of a model of transformers alone
UNWANTED = ["*.fp16.*", "*.non_ema.*", "safety_checker/*", "checkpoint-*", "best/*"]


def fetch(name: str, kind: str, files: Sequence[str] = WANTED, revision: str | None = None) -> Path:
    """The folder of a checkpoint, downloaded if it is on the Hub.

    Args:
        name: a local folder or a Hub id.
        kind: what it is, such as "pipeline", for messages.
        files: patterns of the files to download.
        revision: branch, tag or commit on the Hub.

    Raises:
        InputError: if there is no such folder and no such repository, or a folder has a revision.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if revision is not None:
            raise InputError(f"{kind} {name}: is a folder, which has no revision {revision!r}")
        return path
    check_id(name, kind)
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from ..hub import snapshot

    try:
        return snapshot(name, files, revision=revision, unwanted=UNWANTED)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise not_found(kind, name, error) from error


def not_found(kind: str, name: str, error: Exception) -> InputError:
    """The error for a name that is neither a folder nor on the Hub."""
    from ..hub import describe_error

    return InputError(f"{kind} {name}: neither a folder nor on the Hub: {describe_error(error)}")


def check_id(name: str, kind: str) -> None:
    """Check that a name has the form of a Hub id.

    Raises:
        InputError: if it has another form.
    """
    if Path(name).is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise InputError(f"{kind} {name}: no such folder, and not a Hub id of the form user/name")


def read_index(folder: Path, kind: str) -> dict[str, Any]:
    """Read model_index.json of a folder in diffusers layout.

    Args:
        folder: the folder.
        kind: "pipeline" or "base", for messages.

    Raises:
        InputError: if there is no such file, or it holds no JSON object.
    """
    file = folder / "model_index.json"
    if not file.is_file():
        raise InputError(f"{kind} {folder}: no model_index.json there, expected diffusers layout")
    try:
        index = parse_json(file.read_text())
    except ValueError as error:
        raise InputError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(index, dict):
        raise InputError(f"{file}: expected an object, got {type(index).__name__}")
    return index


@contextmanager
def loading(what: str, hint: str = "") -> Iterator[None]:
    """Turn every error of loading foreign files into an InputError of one line.

    The libraries that read these files raise errors of many kinds.

    Args:
        what: names the files in the message.
        hint: advice at its end.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        message = " ".join(str(error).split())[:MESSAGE]
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise InputError(f"{what}: {kind}{message}{hint}") from error


def check_hashes(folder: Path, unused: Container[str] = ()) -> None:
    """Check that no file of a saved pipeline or adapter is damaged.

    Args:
        folder: its folder. If an earlier version wrote it, it has no hashes to check.
        unused: parts that are not used.

    Raises:
        InputError: if a file is missing or has another content.
    """
    present = {file.relative_to(folder).as_posix() for file in folder.glob("*/*")}
    present |= {file.name for file in folder.iterdir()}
    with loading(f"{folder / HASHES}"):
        hashes = parse_json((folder / HASHES).read_text()) if HASHES in present else {}
        for name, digest in hashes.items():
            if name not in present:
                raise InputError(f"{folder}: {name} is missing, but {HASHES} names it")
            if name.partition("/")[0] not in unused and hash_file(folder / name) != digest:
                raise InputError(
                    f"{folder / name}: has changed since it was written; fetch or train it again,"
                    f" or delete {HASHES} if the change is yours"
                )


def fingerprint(folder: Path) -> str:
    """The sha256 over names and contents of all weight and config files of a checkpoint."""
    digest = hashlib.sha256()
    files = (f for f in folder.rglob("*") if f.suffix in (".safetensors", ".json"))
    left_out = (folder / TRAINING, folder / HASHES)
    for file in sorted(file for file in files if file not in left_out):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(bytes.fromhex(hash_file(file)))
    return digest.hexdigest()
