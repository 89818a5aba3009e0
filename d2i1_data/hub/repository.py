"""One repository of the Hub: what it holds, and bringing it to hold what it should."""

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
from .patience import Patience, patiently, whoami

Kind = Literal["model", "dataset", "space"]
Content = Path | bytes

FILES_A_COMMIT = 250  # what upload_folder of huggingface_hub begins with
# sent one by one before their commit, so that each comes once, whatever happens in between
HEAVY = (".parquet", ".safetensors", ".bin", ".png")


@dataclass(frozen=True)
class Held:
    """What a repository holds. commit: its newest, None of one that is not there; files: those of
    it, by path."""

    commit: str | None = None
    private: bool = False
    files: Mapping[str, RepoFile] = field(default_factory=dict)

    def has(self, path: str, content: Content) -> bool:
        """Whether the file is there already, with this content."""
        file = self.files.get(path)
        if file is None or file.size != size_of(content):
            return False
        own = file.blob_id if file.lfs is None else file.lfs.sha256
        return bool(own == content_id(content, lfs=file.lfs is not None))


@dataclass(frozen=True)
class Changes:
    """What a repository lacks, in the order in which it is to come, and what must go at the end."""

    files: Mapping[str, Content] = field(default_factory=dict)
    gone: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.gone)

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(map(size_of, self.files.values()))


class Repository:
    """One repository of the Hub, existing or not."""

    def __init__(self, name: str, kind: Kind) -> None:
        """name: `user/name`, or a name alone, which is the user's own whose token it is."""
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
        """Where people look at it."""
        return f"{self.api.endpoint}/{self}"

    def create(self, private: bool) -> Held:
        """Make sure that it exists, that this token may write to it, and that it is as private as
        what is asked for; what it holds.

        private: of a new one; False leaves that to its owner's default. One that is there keeps its
        visibility.
        """
        sdk = "gradio" if self.kind == "space" else None

        def call() -> None:
            self.api.create_repo(
                self.id, repo_type=self.kind, private=private or None, exist_ok=True, space_sdk=sdk
            )
            self.api.auth_check(self.id, repo_type=self.kind, write=True)

        patiently(str(self), call)
        held = self.held()
        self.refuse_public(held, private)
        return held

    def refuse_public(self, held: Held, private: bool) -> None:
        """Refuse one that everybody sees for what is to be private."""
        if private and held.commit and not held.private:
            raise InputError(
                f"{self} exists and is public: --private is for new repositories; make it private"
                f" in its settings, {self.url}/settings"
            )

    def held(self) -> Held:
        """What lies there now, of one commit."""

        def call() -> Held:
            info = self.api.repo_info(self.id, repo_type=self.kind)
            tree = self.api.list_repo_tree(
                self.id, recursive=True, revision=info.sha, repo_type=self.kind
            )
            files = {file.path: file for file in tree if isinstance(file, RepoFile)}
            return Held(info.sha, bool(info.private), files)

        return patiently(str(self), call)

    def held_if_any(self) -> Held:
        """What lies there now, nothing if it does not exist or is hidden."""
        try:
            return self.held()
        except InputError as error:
            if isinstance(error.__cause__, RepositoryNotFoundError):
                return Held()
            raise

    def read(self, path: str, held: Held) -> bytes:
        """A small file of what it holds."""

        def call() -> bytes:
            return Path(
                self.api.hf_hub_download(self.id, path, revision=held.commit, repo_type=self.kind)
            ).read_bytes()

        return patiently(str(self), call)

    def check_card(self, text: str) -> None:
        """Have the Hub validate a card's metadata, before anything is sent."""
        card = RepoCard(text, ignore_metadata_errors=True)
        patiently(f"{self}: its card", lambda: card.validate(repo_type=self.kind))

    def bring(self, lacking: Callable[[Held], Changes], message: str, quiet: bool = False) -> None:
        """Send files, a few at a time, until nothing is lacking any more.

        lacking: decides from what is held; asked again after every commit and every failure. The
        order of its files is that of the commits, so what comes last describes what is complete.
        """
        patience, sent, done = Patience(str(self)), Changes(), 0
        with _without_bars(), tqdm(desc=str(self), unit="B", unit_scale=True, disable=quiet) as bar:
            while True:
                held = self.held()
                changes = lacking(held)
                self._refuse_untaken(sent, changes)
                bar.n, bar.total = done, done + changes.size
                bar.refresh()
                if not changes:
                    return
                group = Changes(dict(islice(changes.files.items(), FILES_A_COMMIT)))
                if len(group.files) == len(changes.files):
                    group = changes  # with the last of the files goes what must go
                try:
                    self._commit(held, group, message, bar)
                except Exception as error:
                    patience.wait(error)
                    sent = Changes()
                else:
                    patience, sent, done = Patience(str(self)), group, done + group.size

    def _commit(self, held: Held, changes: Changes, message: str, bar: tqdm) -> None:
        adds = [CommitOperationAdd(path, content) for path, content in changes.files.items()]
        for add in adds:
            if add.path_in_repo.endswith(HEAVY):  # Xet keeps all that is sent at once, or nothing
                self.api.preupload_lfs_files(self.id, [add], repo_type=self.kind, free_memory=False)
                bar.update(add.upload_info.size)
        self.api.create_commit(
            self.id,
            [*adds, *map(CommitOperationDelete, changes.gone)],
            commit_message=message,
            repo_type=self.kind,
            parent_commit=held.commit,
        )

    def _refuse_untaken(self, sent: Changes, changes: Changes) -> None:
        """What was committed just now and is lacking as before would be for ever."""
        for path, content in sent.files.items():
            if changes.files.get(path) == content:
                raise InputError(f"{self} did not take {path}; does its .gitignore name it?")


def content_id(content: Content, lfs: bool) -> str:
    """What the Hub calls a content by: sha256 of a large file, git's blob id of a small one."""
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
    """Bytes."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


@contextmanager
def _without_bars() -> Iterator[None]:
    """No bar for every small batch: one shows all."""
    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()
