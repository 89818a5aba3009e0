"""Writing to the Hub: patiently, resumable at any point, and what goes wrong in one line.

A repository is brought to what it should hold by looking at what it holds, sending some of what
differs, and looking again. So an interruption, an answer that was lost, or somebody else's commit
in between all end the same way: the next look tells what is left to do.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard, RepoFile
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    validate_repo_id,
)
from tqdm import tqdm

from .errors import InputError

Kind = Literal["model", "dataset", "space"]
Content = Path | bytes
T = TypeVar("T")

FILES_A_COMMIT = 250  # what upload_folder of huggingface_hub begins with
HEAVY = (".parquet", ".safetensors")  # sent one by one before their commit: so each comes once
TRIES = 8  # in a row without any progress
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds
CONFLICTS = (409, 412)  # somebody else's commit came first
TEMPORARY = (*CONFLICTS, 408, 425, 429, 500, 502, 503, 504)
FORBIDDEN = "no right to write there, or its storage is full"
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class Held:
    """What a repository holds. commit: its newest; files: those of it, by path."""

    commit: str | None = None
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


class Patience:
    """Waits longer after every failure in a row; the Hub may say for how long."""

    def __init__(self, about: str) -> None:
        self.about, self.failures = about, 0

    def wait(self, error: Exception) -> None:
        """Wait, if it is worth it; raises InputError if it is not, and what is no error of a
        client of the Hub as it is."""
        self.failures += 1
        passes = _temporary(error)
        if not passes and not isinstance(error, OSError | RuntimeError | ValueError):
            raise error
        if not passes or self.failures >= TRIES:
            raise explain(error, self.about) from error
        response = getattr(_http(error), "response", None)
        asked = response.headers.get("Retry-After", "") if response is not None else ""
        wait = float(asked) if asked.isdigit() else FIRST_WAIT * 2 ** (self.failures - 1)
        time.sleep(min(wait, LONGEST_WAIT))


def patiently(about: str, call: Callable[[], T]) -> T:
    """What a call answers that may be made again."""
    patience = Patience(about)
    while True:
        try:
            return call()
        except Exception as error:
            patience.wait(error)


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

    def create(self, private: bool) -> None:
        """Make sure that it exists; one that does keeps its visibility, which must be as private as
        what is asked for."""
        sdk = "gradio" if self.kind == "space" else None

        def call() -> bool:
            self.api.create_repo(
                self.id, repo_type=self.kind, private=private, exist_ok=True, space_sdk=sdk
            )
            return bool(self.api.repo_info(self.id, repo_type=self.kind).private)

        if not patiently(str(self), call) and private:
            raise InputError(
                f"{self} exists and is public: --private is for new repositories; make it private"
                f" in its settings, {self.url}/settings"
            )

    def held(self) -> Held:
        """What lies there now, of one commit."""

        def call() -> Held:
            commit = self.api.repo_info(self.id, repo_type=self.kind).sha
            tree = self.api.list_repo_tree(
                self.id, recursive=True, revision=commit, repo_type=self.kind
            )
            return Held(commit, {file.path: file for file in tree if isinstance(file, RepoFile)})

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
        patience = Patience(str(self))
        with (
            _without_bars(),
            tqdm(desc=str(self), unit="B", unit_scale=True, disable=quiet) as bar,
        ):
            while True:
                held = self.held()
                changes = lacking(held)
                if not changes:
                    return
                bar.total = bar.n + sum(map(size_of, changes.files.values()))
                try:
                    self._commit(held, changes, message, bar)
                except Exception as error:
                    patience.wait(error)
                else:
                    patience = Patience(str(self))

    def _commit(self, held: Held, changes: Changes, message: str, bar: tqdm) -> None:
        """One commit of the first files; with the last of them goes what must go."""
        group = list(changes.files.items())[:FILES_A_COMMIT]
        adds = [CommitOperationAdd(path, content) for path, content in group]
        heavy = [add for add in adds if add.path_in_repo.endswith(HEAVY)]
        for add in heavy:  # Xet keeps all that is sent at once, or nothing
            self.api.preupload_lfs_files(self.id, [add], repo_type=self.kind, free_memory=False)
            bar.update(add.upload_info.size)
        last = len(group) == len(changes.files)
        deletes = [CommitOperationDelete(path) for path in changes.gone] if last else []
        self.api.create_commit(
            self.id,
            [*adds, *deletes],
            commit_message=message,
            repo_type=self.kind,
            parent_commit=held.commit,
        )
        bar.update(sum(add.upload_info.size for add in adds if add not in heavy))


def whoami() -> str:
    """The user whose token it is, from the environment or the Hub's own login."""
    return str(patiently("the Hub", lambda: HfApi().whoami(cache=True))["name"])


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


def explain(error: Exception, about: str) -> InputError:
    """An error of the Hub's clients as one line."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, LocalTokenNotFoundError):
        return InputError(f"{about}: no token of the Hub: {LOG_IN}")
    if isinstance(error, OfflineModeIsEnabled):
        return InputError(f"{about}: HF_HUB_OFFLINE is set, so nothing can be sent")
    found = _http(error)
    if found is None:
        hint = f" ({FORBIDDEN})" if "403 Forbidden" in str(error) else ""  # of hf_xet
        return InputError(f"{about}: {_line(error)}{hint}")
    status = found.response.status_code
    said = found.server_message or _line(found)
    if status == 401:
        return InputError(f"{about}: the Hub does not accept the token, or there is none: {LOG_IN}")
    if status == 403:
        return InputError(f"{about}: the Hub refuses (403): {said}")
    if status == 404:
        return InputError(f"{about}: not on the Hub, or hidden from this token ({said})")
    return InputError(f"{about}: the Hub answers {status}: {said}")


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _http(error: Exception) -> HfHubHTTPError | None:
    """The answer of the Hub that an error came from."""
    return next((one for one in _chain(error) if isinstance(one, HfHubHTTPError)), None)


def _temporary(error: Exception) -> bool:
    """Whether it may pass: an answer that says so, or none at all."""
    if any(isinstance(one, OfflineModeIsEnabled) for one in _chain(error)):
        return False
    if (found := _http(error)) is not None:
        return found.response.status_code in TEMPORARY
    lost = (ConnectionError, TimeoutError)
    return any(
        isinstance(one, lost) or type(one).__module__.partition(".")[0] in ("httpx", "httpx2")
        for one in _chain(error)
    )


@contextmanager
def _without_bars() -> Iterator[None]:
    """No bar for every small batch: one shows all."""
    before = are_progress_bars_disabled()
    disable_progress_bars()
    yield
    if not before:
        enable_progress_bars()
