"""A repository of the Hub: its state, and the commits that sync it."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard, RepoFile
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    validate_repo_id,
)
from tqdm import tqdm

from ..errors import InputError
from .retry import PATIENCE, Retry, whoami, with_retries

Kind = Literal["model", "dataset", "space"]
Content = Path | bytes

FILES_A_COMMIT = 250  # upload_folder of huggingface_hub starts with this number
# these files are sent one by one before their commit, so a failure does not send them twice
LARGE_FILES = (".parquet", ".safetensors", ".bin", ".png")


@dataclass(frozen=True)
class RemoteState:
    """What a repository holds at one commit.

    Attributes:
        commit: the newest commit, None for a repository that does not exist.
        private: whether the repository is private.
        files: the files of this commit, by path.
    """

    commit: str | None = None
    private: bool = False
    files: Mapping[str, RepoFile] = field(default_factory=dict)

    def has(self, path: str, content: Content) -> bool:
        """Whether the repository has this content under this path."""
        file = self.files.get(path)
        if file is None or file.size != size_of(content):
            return False
        own = file.blob_id if file.lfs is None else file.lfs.sha256
        return bool(own == content_id(content, lfs=file.lfs is not None))


@dataclass(frozen=True)
class Changes:
    """Changes to a repository.

    Attributes:
        files: files to add or replace, by path, in the order in which they are sent.
        deleted: paths to delete, together with the last files.
    """

    files: Mapping[str, Content] = field(default_factory=dict)
    deleted: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.deleted)

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(map(size_of, self.files.values()))


class Repository:
    """One repository of the Hub. It need not exist yet."""

    def __init__(self, name: str, kind: Kind) -> None:
        """Name a repository. This calls the Hub only if the user is missing.

        Args:
            name: `user/name`, or a name alone for a repository of the user whose token is set.
            kind: model, dataset or space.

        Raises:
            InputError: if the name is not a valid one.
        """
        self.api, self.kind = HfApi(), kind
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise InputError(f"repository {name!r}: {error}") from error
        self.id = name if "/" in name else f"{whoami()}/{name}"

    def __str__(self) -> str:
        return self.id if self.kind == "model" else f"{self.kind}s/{self.id}"

    @property
    def url(self) -> str:
        """The address of its page."""
        return f"{self.api.endpoint}/{self}"

    def create(self, private: bool) -> RemoteState:
        """Create the repository if it does not exist, and check that this token may write to it.

        Args:
            private: make a new repository private. False uses the default of the owner. An existing
                repository keeps its visibility.

        Returns:
            What the repository holds.

        Raises:
            InputError: if the token may not write, or the repository is public despite `private`.
        """
        sdk = "gradio" if self.kind == "space" else None

        def call() -> None:
            self.api.create_repo(
                self.id, repo_type=self.kind, private=private or None, exist_ok=True, space_sdk=sdk
            )
            self.api.auth_check(self.id, repo_type=self.kind, write=True)

        with_retries(str(self), call)
        state = self.state()
        self.refuse_public(state, private)
        return state

    def refuse_public(self, state: RemoteState, private: bool) -> None:
        """Raise InputError if the user wants a private repository, and this one is public."""
        if private and state.commit and not state.private:
            raise InputError(
                f"{self} exists and is public: --private is for new repositories; make it private"
                f" in its settings, {self.url}/settings"
            )

    def state(self) -> RemoteState:
        """What the repository holds now."""

        def call() -> RemoteState:
            info = self.api.repo_info(self.id, repo_type=self.kind, timeout=PATIENCE)
            tree = self.api.list_repo_tree(
                self.id, recursive=True, revision=info.sha, repo_type=self.kind
            )
            files = {file.path: file for file in tree if isinstance(file, RepoFile)}
            return RemoteState(info.sha, bool(info.private), files)

        return with_retries(str(self), call)

    def state_if_any(self) -> RemoteState:
        """What the repository holds now; an empty state if it does not exist or is hidden."""
        try:
            return self.state()
        except InputError as error:
            if isinstance(error.__cause__, RepositoryNotFoundError):
                return RemoteState()
            raise

    def read(self, path: str, state: RemoteState) -> bytes:
        """The content of a small file at the commit of this state."""

        def call() -> bytes:
            return Path(
                self.api.hf_hub_download(self.id, path, revision=state.commit, repo_type=self.kind)
            ).read_bytes()

        return with_retries(str(self), call)

    def check_card(self, text: str) -> None:
        """Let the Hub validate the metadata of a card. Call it before anything is sent."""
        card = RepoCard(text, ignore_metadata_errors=True)
        with_retries(f"{self}: its card", lambda: card.validate(repo_type=self.kind))

    def sync(
        self, changes_from: Callable[[RemoteState], Changes], message: str, quiet: bool = False
    ) -> None:
        """Send changes, some files in each commit, until none is left.

        Args:
            changes_from: gives the changes that a state still needs. It is called again after every
                commit and every failure. Files are committed in the given order, so the last file
                can describe a complete content.
            message: title of the commits.
            quiet: show no progress bar.

        Raises:
            InputError: if the Hub refuses, or a file is missing after its commit.
        """
        retry, sent, done = Retry(str(self)), Changes(), 0
        with _without_bars(), tqdm(desc=str(self), unit="B", unit_scale=True, disable=quiet) as bar:
            while True:
                state = self.state()
                changes = changes_from(state)
                self._refuse_ignored(sent, changes)
                bar.n, bar.total = done, done + changes.size
                bar.refresh()
                if not changes:
                    return
                group = Changes(dict(islice(changes.files.items(), FILES_A_COMMIT)))
                if len(group.files) == len(changes.files):
                    group = changes  # the deletions go with the last files
                try:
                    self._commit(state, group, message, bar)
                except Exception as error:
                    retry.wait(error)
                    sent = Changes()
                else:
                    retry, sent, done = Retry(str(self)), group, done + group.size

    def _commit(self, state: RemoteState, changes: Changes, message: str, bar: tqdm) -> None:
        adds = [CommitOperationAdd(path, content) for path, content in changes.files.items()]
        for add in adds:
            if add.path_in_repo.endswith(LARGE_FILES):  # Xet stores all files of a call or none
                self.api.preupload_lfs_files(self.id, [add], repo_type=self.kind, free_memory=False)
                bar.update(add.upload_info.size)
        self.api.create_commit(
            self.id,
            [*adds, *map(CommitOperationDelete, changes.deleted)],
            commit_message=message,
            repo_type=self.kind,
            parent_commit=state.commit,
        )

    def _refuse_ignored(self, sent: Changes, changes: Changes) -> None:
        """Raise InputError if a committed file is still missing. Syncing would never end."""
        for path, content in sent.files.items():
            if changes.files.get(path) == content:
                raise InputError(f"{self} did not accept {path}; does its .gitignore name it?")


def content_id(content: Content, lfs: bool) -> str:
    """The id of a content on the Hub: sha256 of a large file, git's blob id of a small one."""
    if isinstance(content, bytes):
        return _digest(content, lfs)
    stat = content.stat()
    return _file_id(content, lfs, stat.st_size, stat.st_mtime_ns)


@cache
def _file_id(path: Path, lfs: bool, size: int, changed: int) -> str:
    if not lfs:
        return _digest(path.read_bytes(), lfs)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(data: bytes, lfs: bool) -> str:
    if lfs:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def size_of(content: Content) -> int:
    """Bytes of a content."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


@contextmanager
def _without_bars() -> Iterator[None]:
    """Hide the progress bars of huggingface_hub. Our own bar shows the progress."""
    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()
