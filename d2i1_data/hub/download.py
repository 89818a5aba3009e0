"""Download one file of a repository."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from .repository import Kind


def download(name: str, file: str, kind: Kind = "model", revision: str | None = None) -> Path:
    """Download a file, or take it from the cache if the Hub does not answer.

    `hf_hub_download` repeats a request without an answer for half a minute. This asks only once.

    Args:
        name: id of the repository.
        file: path of the file in the repository.
        kind: kind of the repository.
        revision: branch, tag or commit; None is the default branch.

    Returns:
        The file, in a folder that has the name of its commit.

    Raises:
        HfHubHTTPError: if the Hub refuses, or does not know the repository.
        LocalEntryNotFoundError: if there is no such file, or no answer and no cached file.
    """
    folder = snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=[file])
    if not (found := Path(folder) / file).is_file():
        raise LocalEntryNotFoundError(f"{name} has no {file}")
    return found
