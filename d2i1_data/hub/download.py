"""Download from the Hub, or take files from the cache if the Hub does not answer."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from .errors import describe_error
from .repository import Kind
from .retry import no_answer


def snapshot(
    name: str,
    files: Sequence[str],
    kind: Kind = "model",
    revision: str | None = None,
    unwanted: Sequence[str] = (),
) -> Path:
    """Download some files of a repository.

    The clients of the Hub repeat a request for half a minute, or wait for its answer for ever. So
    the Hub is asked first whether it answers.

    Args:
        name: id of the repository.
        files: patterns of the files.
        kind: kind of the repository.
        revision: branch, tag or commit; None is the default branch.
        unwanted: patterns of files that are left out.

    Returns:
        Their folder, which has the name of the commit.

    Raises:
        HfHubHTTPError: if the Hub refuses, or does not know the repository.
        LocalEntryNotFoundError: if the Hub does not answer, and nothing is in the cache.
    """
    silent = no_answer()
    try:
        folder = snapshot_download(
            name,
            repo_type=kind,
            revision=revision,
            allow_patterns=[*files],
            ignore_patterns=[*unwanted],
            local_files_only=silent is not None,
        )
    except LocalEntryNotFoundError as error:
        if silent is None:
            raise
        raise LocalEntryNotFoundError(describe_error(silent)) from error
    return Path(folder)


def download(name: str, file: str, kind: Kind = "model", revision: str | None = None) -> Path:
    """Download one file of a repository, see `snapshot`."""
    found = snapshot(name, [file], kind, revision) / file
    if not found.is_file():
        raise LocalEntryNotFoundError(f"{name} has no {file}")
    return found
