"""Repositories with commits, branches and tags. Serves no route itself.

A commit is a tree of path -> blob. Contents are kept in memory, or in a folder that a later Hub can
open again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LARGE_FILES = """
    7z arrow bin bz2 ckpt ftz gz h5 joblib mlmodel model msgpack npy npz onnx ot parquet pb pickle
    pkl pt pth rar safetensors tar tflite tgz wasm xz zip zst
"""
MEDIA = " bmp flac gif jpeg jpg mp3 mp4 ogg png tiff wav webm webp"


def now() -> str:
    """A date in the form of the Hub."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


def git_oid(content: bytes) -> str:
    """The id of a content in git."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class Blob:
    """One version of a file. `oid` is git's SHA-1; of a large file its SHA-256."""

    oid: str
    size: int
    large: bool = False

    @property
    def pointer(self) -> bytes:
        """The pointer that git keeps instead of a large file."""
        version = "version https://git-lfs.github.com/spec/v1"
        return f"{version}\noid sha256:{self.oid}\nsize {self.size}\n".encode()

    @property
    def git_oid(self) -> str:
        """The id in git: of a large file that of its pointer."""
        return git_oid(self.pointer) if self.large else self.oid


@dataclass(frozen=True)
class Commit:
    """One state of a branch, with its title and date."""

    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    tree: dict[str, Blob]


@dataclass
class Repo:
    """A repository. `name` is `owner/name`; `objects` are its large files, id -> size."""

    repo_type: str
    name: str
    private: bool = False
    sdk: str | None = None
    created: str = field(default_factory=now)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    history: dict[str, Commit] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """The owner, from the name."""
        return self.name.partition("/")[0]

    @property
    def commits(self) -> list[Commit]:
        """The commits of `main`, newest first."""
        return self.log(self.history[self.branches["main"]])

    def log(self, commit: Commit) -> list[Commit]:
        """The commit and its ancestors, newest first."""
        found = [commit]
        while parent := found[-1].parent:
            found.append(self.history[parent])
        return found

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag, or at least seven digits of a commit id."""
        oid = self.branches.get(revision) or self.tags.get(revision)
        if oid is None and len(revision) >= 7:
            oid = next((known for known in self.history if known.startswith(revision)), None)
        return self.history[oid] if oid else None

    def add(self, branch: str, tree: dict[str, Blob], title: str, message: str, who: str) -> Commit:
        """Add a commit to a branch."""
        parent = self.branches.get(branch)
        made = [parent, title, message, who, time.time_ns(), sorted(map(str, tree.items()))]
        oid = hashlib.sha1(json.dumps(made).encode()).hexdigest()
        self.history[oid] = Commit(oid, parent, title, message, who, now(), tree)
        self.branches[branch] = oid
        return self.history[oid]

    @property
    def used(self) -> int:
        """Bytes of storage: every content once, also of old commits."""
        trees = (commit.tree.values() for commit in self.history.values())
        sizes = {blob.oid: blob.size for tree in trees for blob in tree}
        return sum((sizes | self.objects).values())


class Store:
    """All repositories and the contents of their files, by id."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.repos: dict[tuple[str, str], Repo] = {}
        self._memory: dict[str, bytes] = {}
        if folder and (folder / "repositories.json").exists():
            for stored in json.loads((folder / "repositories.json").read_text()):
                repo = _restored(stored)
                self.repos[repo.repo_type, repo.name] = repo

    def put(self, oid: str, content: bytes) -> None:
        """Keep a content under its id."""
        if self.folder is None:
            self._memory[oid] = content
            return
        (self.folder / "contents").mkdir(parents=True, exist_ok=True)
        self._replace(self.folder / "contents" / oid, content)

    def get(self, oid: str) -> bytes:
        """The content with this id."""
        if self.folder is None:
            return self._memory[oid]
        return (self.folder / "contents" / oid).read_bytes()

    def put_file(self, content: bytes) -> Blob:
        """Keep a small file; its blob."""
        blob = Blob(git_oid(content), len(content))
        self.put(blob.oid, content)
        return blob

    def create(self, repo: Repo) -> None:
        """Create a repository with the first commit, as the Hub does."""
        suffixes = LARGE_FILES + (MEDIA if repo.repo_type == "dataset" else "")
        names = [f"*.{suffix}" for suffix in suffixes.split()] + ["*tfevents*"]
        lines = "".join(f"{name} filter=lfs diff=lfs merge=lfs -text\n" for name in names)
        tree = {".gitattributes": self.put_file(lines.encode())}
        repo.add("main", tree, "initial commit", "", repo.owner)
        self.repos[repo.repo_type, repo.name] = repo

    def used(self, owner: str) -> int:
        """Bytes of all repositories of an owner."""
        return sum(repo.used for repo in self.repos.values() if repo.owner == owner)

    def save(self) -> None:
        """Save the repositories for a later Hub on the same folder."""
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            stored = json.dumps([asdict(repo) for repo in self.repos.values()])
            self._replace(self.folder / "repositories.json", stored.encode())

    def _replace(self, file: Path, content: bytes) -> None:
        beside = file.with_name(f"{file.name}.tmp")
        beside.write_bytes(content)
        os.replace(beside, file)


def _restored(stored: dict[str, Any]) -> Repo:
    """A repository as `Store.save` wrote it."""
    for oid, commit in stored["history"].items():
        tree = {path: Blob(**blob) for path, blob in commit.pop("tree").items()}
        stored["history"][oid] = Commit(**commit, tree=tree)
    return Repo(**stored)
