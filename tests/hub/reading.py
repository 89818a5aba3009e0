"""Reading: lists of files, their metadata, their bytes.

GET    /api/{kind}/{repo}/tree/{rev}[/{folder}]    ?recursive ?expand ?limit ?cursor, in pages
POST   /api/{kind}/{repo}/paths-info/{rev}         a form of paths; missing ones are left out
GET    /{prefix}{repo}/resolve/{rev}/{path}        a small file; a large one is redirected to
GET    /storage/files/{oid}?signature=             of another origin, which needs no token

The storage is at `localhost`, the Hub at `127.0.0.1`. Within one origin, clients follow redirects
silently and send their token. So a storage of the same origin would hide leaked tokens.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from tests.hub import access
from tests.hub.store import Blob, Commit, Repo
from tests.hub.wire import Answer, Refused, Request, Route, in_json, ranged

if TYPE_CHECKING:
    from tests.hub.server import Hub

PAGE = 1000  # entries, or a hundred if expanded


def tree(hub: Hub, request: Request) -> Answer:
    repo = access.readable(hub, request)
    commit = access.commit_at(repo, request.params["rev"])
    folder = request.params.get("rest", "").strip("/")
    inside = f"{folder}/" if folder else ""
    paths = [path for path in _entries(commit) if path.startswith(inside)]
    if not paths and folder:
        raise _missing(folder, commit)
    if not request.asks("recursive"):
        paths = [path for path in paths if "/" not in path[len(inside) :]]
    expand = request.asks("expand")
    limit = int(request.query.get("limit", [PAGE // 10 if expand else PAGE])[0])
    start = 0
    if after := request.query.get("cursor", [""])[0]:
        start = paths.index(base64.urlsafe_b64decode(after).decode()) + 1
    page = paths[start : start + limit]
    headers = {}
    if start + limit < len(paths):
        cursor = base64.urlsafe_b64encode(page[-1].encode()).decode()
        query = {key: said[0] for key, said in request.query.items()} | {"cursor": cursor}
        headers["Link"] = f'<{hub.url}{request.path}?{urlencode(query)}>; rel="next"'
    return in_json([_entry(hub, repo, commit, path, expand) for path in page], headers=headers)


def paths_info(hub: Hub, request: Request) -> Answer:
    repo = access.readable(hub, request)
    commit = access.commit_at(repo, request.params["rev"])
    known = set(_entries(commit))
    asked = [path.strip("/") for path in request.form.get("paths", [])]
    expand = request.asks("expand")
    return in_json([_entry(hub, repo, commit, path, expand) for path in asked if path in known])


def _entries(commit: Commit) -> list[str]:
    """All files and their folders, in order."""
    parts = (path.split("/") for path in commit.tree)
    return sorted({"/".join(part[:n]) for part in parts for n in range(1, len(part) + 1)})


def _entry(hub: Hub, repo: Repo, commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    """The entry of a file or a folder in a list."""
    told: dict[str, Any]
    if blob := commit.tree.get(path):
        told = {"type": "file", "path": path, "size": blob.size, "oid": blob.git_oid}
        if blob.large:
            pointer = {"oid": blob.oid, "size": blob.size, "pointerSize": len(blob.pointer)}
            told["lfs"] = pointer
        if xet := hub.cas.hashes.get(blob.oid):
            told["xetHash"] = xet
    else:
        told = {"type": "directory", "path": path, "size": 0, "oid": _folder_oid(commit, path)}
    if expand:
        last = _last_change(repo, commit, path)
        told["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}
    return told


def _inside(commit: Commit, path: str) -> dict[str, Blob]:
    """The file, or the files of the folder."""
    tree = commit.tree.items()
    return {name: blob for name, blob in tree if name == path or name.startswith(f"{path}/")}


def _folder_oid(commit: Commit, path: str) -> str:
    inside = sorted(_inside(commit, path).items())
    listed = "".join(f"{name} {blob.git_oid}\n" for name, blob in inside)
    return hashlib.sha1(listed.encode()).hexdigest()


def _last_change(repo: Repo, commit: Commit, path: str) -> Commit:
    """The last commit that changed a path."""
    last, wanted = commit, _inside(commit, path)
    for earlier in repo.log(commit):
        if _inside(earlier, path) != wanted:
            break
        last = earlier
    return last


def resolve(hub: Hub, request: Request) -> Answer:
    repo = access.readable(hub, request)
    commit = access.commit_at(repo, request.params["rev"])
    path = request.params["rest"]
    if path not in commit.tree:
        raise _missing(path, commit)
    blob = commit.tree[path]
    headers = {"X-Repo-Commit": commit.oid}
    if not blob.large:
        return ranged(request, hub.content(blob), headers | {"ETag": f'"{blob.oid}"'})
    headers["X-Linked-ETag"] = f'"{blob.oid}"'
    headers["X-Linked-Size"] = str(blob.size)
    if xet := hub.cas.hashes.get(blob.oid):
        kind = quote(f"{repo.repo_type}s/{repo.name}")
        headers["X-Xet-Hash"] = xet
        headers["Link"] = f'<{hub.url}/api/{kind}/xet-read-token/{commit.oid}>; rel="xet-auth"'
    headers["Location"] = hub.signed(f"/storage/files/{blob.oid}")
    return Answer(302, b"", headers)


def _missing(path: str, commit: Commit) -> Refused:
    """The answer for a missing file. It names the commit, because clients cache it."""
    headers = {"X-Repo-Commit": commit.oid}
    return Refused(404, f"Entry not found: {path}", "EntryNotFound", headers)


def stored(hub: Hub, request: Request) -> Answer:
    hub.check_signature(request)
    oid = request.params["oid"]
    return ranged(request, hub.store.get(oid), {"ETag": f'"{oid}"'})


ROUTES = (
    Route("GET", "/api/{kind}/{repo}/tree/{rev}", tree),
    Route("GET", "/api/{kind}/{repo}/tree/{rev}/{rest}", tree),
    Route("POST", "/api/{kind}/{repo}/paths-info/{rev}", paths_info),
    Route("GET", "/{prefix}{repo}/resolve/{rev}/{rest}", resolve),
    Route("GET", "/storage/files/{oid}", stored),
)
