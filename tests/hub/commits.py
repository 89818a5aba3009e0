"""Commits: which files are large, then one commit of all operations.

POST   /api/validate-yaml                          is the metadata of a card valid?
POST   /api/{kind}/{repo}/preupload/{rev}          per file: small or large, ignored, already there
POST   /api/{kind}/{repo}/commit/{rev}             one JSON object per line: header, then operations

A commit contains its small files. Large ones are uploaded before (`lfs.py`, `cas.py`), and the
commit names them.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from tests.hub import access
from tests.hub.cards import errors_of, front_matter
from tests.hub.store import Blob, Repo
from tests.hub.wire import Answer, Refused, Request, Route, in_json

if TYPE_CHECKING:
    from tests.hub.server import Hub

MOST_ASKED = 256  # files per question
LARGEST_SMALL = 10 * 1024 * 1024
MOST_IN_FOLDER = 10_000

Tree = dict[str, Blob]


def validate_yaml(hub: Hub, request: Request) -> Answer:
    content = request.json.get("content", "")
    errors = errors_of(content, request.json.get("repoType"))
    empty = not errors and not front_matter(content)
    told = {
        "errors": [{"message": said} for said in errors],
        "warnings": [{"message": "empty or missing yaml metadata in repo card"}] * empty,
    }
    return in_json(told, 400 if errors else 200)


def preupload(hub: Hub, request: Request) -> Answer:
    repo = access.writable(hub, request)
    tree = access.commit_at(repo, request.params["rev"]).tree
    files = request.json.get("files", [])
    if len(files) > MOST_ASKED:
        raise Refused(400, f'"files" must contain at most {MOST_ASKED} items, got {len(files)}')
    ignored = request.json.get("gitIgnore")
    if ignored is None and ".gitignore" in tree:
        ignored = hub.content(tree[".gitignore"]).decode()
    told = []
    for file in files:
        path = checked_path(file["path"])
        known = tree.get(path)
        told.append(
            {
                "path": path,
                "uploadMode": "lfs" if _is_large(hub, tree, file) else "regular",
                "shouldIgnore": any(_matches(path, line) for line in (ignored or "").splitlines()),
                **({"oid": known.oid} if known else {}),
            }
        )
    return in_json({"files": told})


def _is_large(hub: Hub, tree: Tree, file: dict[str, Any]) -> bool:
    """Whether a file is large: by .gitattributes, by its size, or because it is not text."""
    attributes = tree.get(".gitattributes")
    lines = hub.content(attributes).decode().splitlines() if attributes else []
    patterns = [line.split()[0] for line in lines if "filter=lfs" in line]
    if file["size"] > LARGEST_SMALL or any(_matches(file["path"], found) for found in patterns):
        return True
    sample = base64.b64decode(file["sample"])
    try:  # the sample may end inside a character
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return True
    return b"\0" in sample


def _matches(path: str, pattern: str) -> bool:
    """Whether a pattern of git matches; without a slash it matches any part of the path."""
    pattern = pattern.strip().rstrip("/")
    if not pattern or pattern.startswith("#"):
        return False
    if "/" in pattern:
        return fnmatch(path, pattern.lstrip("/")) or fnmatch(path, f"{pattern.lstrip('/')}/*")
    return any(fnmatch(part, pattern) for part in path.split("/"))


def checked_path(asked: object) -> str:
    """A path that git allows and that stays inside the repository."""
    path = asked if isinstance(asked, str) else ""
    bad = {"", ".", "..", ".git"} & set(path.lower().split("/"))
    if bad or any(ord(letter) < 32 for letter in path):
        raise Refused(400, f"Invalid path: {asked!r}")
    return path


def commit(hub: Hub, request: Request) -> Answer:
    repo = access.writable(hub, request)
    branch = request.params["rev"]
    head = access.commit_at(repo, branch)
    if branch not in repo.branches:
        raise Refused(400, f"Commits go to a branch; {branch!r} is none")
    header, operations = _read(request)
    title = header.get("summary")
    if not isinstance(title, str) or not title.strip():
        raise Refused(400, '"summary" is required')
    if not head.oid.startswith(header.get("parentCommit", "")):
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    tree = dict(head.tree)
    for key, value in operations:
        path = value.get("path")
        if key == "deletedFolder" and isinstance(path, str):
            path = path.removesuffix("/")
        OPERATIONS[key](hub, repo, tree, checked_path(path), value)
    _check(hub, repo, tree)
    who = access.known_account(hub, request)
    made = repo.add(branch, tree, title, header.get("description", ""), who.user)
    url = f"{hub.page(repo.repo_type, repo.name)}/commit/{made.oid}"
    told = {"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""}
    return in_json({**told, "pullRequestUrl": None})


def _read(request: Request) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """The header and the operations of a commit."""
    if request.asks("create_pr"):
        raise Refused(400, "This Hub has no pull requests")
    try:
        lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
        (first, header), *operations = [(line["key"], dict(line["value"])) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(400, f"Invalid commit: {error}") from None
    if first != "header":
        raise Refused(400, f"Invalid commit: it must begin with a header, got {first!r}")
    for key, _ in operations:
        if key not in OPERATIONS:
            raise Refused(400, f"Invalid commit: unknown operation {key!r}")
    return header, operations


def _add_file(hub: Hub, repo: Repo, tree: Tree, path: str, value: dict[str, Any]) -> None:
    """A small file, with its bytes."""
    try:
        content = base64.b64decode(value["content"], validate=True)
    except (KeyError, binascii.Error):
        raise Refused(400, f"Invalid content: not base64, of {path}") from None
    if len(content) > LARGEST_SMALL:
        said = "Your push was rejected because it contains files larger than 10 MiB. Please use"
        raise Refused(400, f"{said} https://git-lfs.github.com/ to store larger files: {path}")
    tree[path] = hub.store.put_file(content)
    hub.received[tree[path].oid] += 1


def _add_large(hub: Hub, repo: Repo, tree: Tree, path: str, value: dict[str, Any]) -> None:
    """A large file, which must have been uploaded."""
    oid = value.get("oid", "")
    size = repo.objects.get(oid)
    if value.get("algo") != "sha256" or size is None or value.get("size", size) != size:
        said = "Your push was rejected because an LFS pointer pointed to a file that does not exist"
        raise Refused(400, f"{said}: {path} ({value.get('algo')}:{oid}, {value.get('size')} bytes)")
    tree[path] = Blob(oid, size, large=True)


def _delete_file(hub: Hub, repo: Repo, tree: Tree, path: str, value: dict[str, Any]) -> None:
    if tree.pop(path, None) is None:
        raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")


def _delete_folder(hub: Hub, repo: Repo, tree: Tree, path: str, value: dict[str, Any]) -> None:
    inside = [name for name in tree if name.startswith(f"{path}/")]
    if not inside:
        raise Refused(404, f"A folder with this name doesn't exist: {path}", "EntryNotFound")
    for name in inside:
        del tree[name]


OPERATIONS: dict[str, Callable[[Hub, Repo, Tree, str, dict[str, Any]], None]] = {
    "file": _add_file,
    "lfsFile": _add_large,
    "deletedFile": _delete_file,
    "deletedFolder": _delete_folder,
}


def _check(hub: Hub, repo: Repo, tree: Tree) -> None:
    """Check the whole tree. The Hub publishes no limit for the number of operations."""
    folders: Counter[str] = Counter()
    for path in tree:
        above = path.split("/")[:-1]
        folders["/".join(above)] += 1
        for n in range(1, len(above) + 1):
            if "/".join(above[:n]) in tree:
                raise Refused(400, f"Invalid path: {path!r} is inside a file")
    folder, most = folders.most_common(1)[0] if folders else ("", 0)
    if most > MOST_IN_FOLDER:
        raise Refused(400, f"More than {MOST_IN_FOLDER} files in a folder: {most} in {folder!r}")
    more = {blob.oid: blob.size for blob in tree.values()}
    have = {blob.oid for made in repo.history.values() for blob in made.tree.values()}
    access.has_room(hub, repo, sum(more[oid] for oid in more.keys() - have - repo.objects.keys()))
    text = hub.content(tree["README.md"]).decode(errors="replace") if "README.md" in tree else ""
    if errors := errors_of(text, repo.repo_type):
        raise Refused(400, "Invalid metadata in README.md.\n" + "\n".join(errors))


ROUTES = (
    Route("POST", "/api/validate-yaml", validate_yaml),
    Route("POST", "/api/{kind}/{repo}/preupload/{rev}", preupload, upload=True),
    Route("POST", "/api/{kind}/{repo}/commit/{rev}", commit, upload=True),
)
