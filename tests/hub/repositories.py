"""Repositories: account, create, delete, settings, metadata, branches, tags, history.

GET    /api/whoami-v2                              name and role of the token
POST   /api/repos/create    DELETE /api/repos/delete
PUT    /api/{kind}/{repo}/settings                 make it private or public
GET    /api/{kind}/{repo}/auth-check[/write]
GET    /api/{kind}?author=&search=                 those that the user may see
GET    /api/{kind}/{repo}[/revision/{rev}]         metadata, files and card
GET    /api/{kind}/{repo}/refs, /commits/{rev}
POST   /api/{kind}/{repo}/branch/{branch}, /tag/{rev}         DELETE the same
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from tests.hub import access
from tests.hub.cards import WORDS, front_matter
from tests.hub.store import Blob, Commit, Repo
from tests.hub.wire import Answer, Refused, Request, Route, in_json

if TYPE_CHECKING:
    from tests.hub.server import Hub


NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")


def whoami(hub: Hub, request: Request) -> Answer:
    who = access.known_account(hub, request)
    token = {"displayName": who.token_name, "role": who.role, "createdAt": "2026-01-01T00:00:00Z"}
    facts = {"type": "user", "id": _id(who.user), "name": who.user, "fullname": who.user.title()}
    auth = {"type": "access_token", "accessToken": token}
    return in_json({**facts, "isPro": False, "orgs": [], "auth": auth})


def create(hub: Hub, request: Request) -> Answer:
    who = access.known_account(hub, request)
    asked = request.json
    repo_type = asked.get("type") or "model"
    if repo_type not in {"model", "dataset", "space"}:
        raise Refused(400, f'"type" must be one of [model, dataset, space], got {repo_type!r}')
    owner = asked.get("organization") or who.user
    if who.role != "write" or owner != who.user:
        said = f'You don\'t have the rights to create a {repo_type} under the namespace "{owner}"'
        raise Refused(403, said)
    name = f"{owner}/{_checked_name(asked.get('name'))}"
    url = hub.page(repo_type, name)
    if (repo_type, name) in hub.store.repos:
        raise Refused(409, f"You already created this {repo_type} repo", url=url)
    if repo_type == "space" and asked.get("sdk") not in WORDS["sdks"]:
        raise Refused(400, f'"sdk" must be one of {WORDS["sdks"]}')
    private = _is_private(asked) or False
    hub.store.create(Repo(repo_type, name, private, asked.get("sdk")))
    return in_json({"url": url, "name": name, "id": _id(repo_type + name)})


def _checked_name(name: Any) -> str:
    """A name that the Hub allows. Not all clients check it."""
    if isinstance(name, str) and NAME.fullmatch(name) and not name.endswith((".git", ".ipynb")):
        return name
    said = "1 to 96 letters, digits, '-', '_', '.'; no '--', no '..'; no '-' or '.' at an end"
    raise Refused(400, f"Invalid repo name: {said}; no .git, no .ipynb, got {name!r}")


def _is_private(asked: dict[str, Any]) -> bool | None:
    """The visibility in `visibility`, or in `private` of older clients; None without both."""
    said = asked.get("visibility")
    if said not in {None, "private", "public"}:
        raise Refused(400, f'"visibility" must be one of [private, public], got {said!r}')
    return asked.get("private") if said is None else said == "private"


def delete(hub: Hub, request: Request) -> Answer:
    who = access.known_account(hub, request)
    asked = request.json
    name = f"{asked.get('organization') or who.user}/{asked.get('name')}"
    repo = access.visible(hub, request, asked.get("type") or "model", name)
    access.may_write(who, repo)
    del hub.store.repos[repo.repo_type, repo.name]
    return in_json({})


def settings(hub: Hub, request: Request) -> Answer:
    repo = access.writable(hub, request)
    private = _is_private(request.json)
    if private is None:
        raise Refused(400, '"visibility" is required')
    repo.private = private
    return in_json({"private": private})


def may_read(hub: Hub, request: Request) -> Answer:
    access.readable(hub, request)
    return in_json({})


def may_write(hub: Hub, request: Request) -> Answer:
    access.writable(hub, request)
    return in_json({})


def listed(hub: Hub, request: Request) -> Answer:
    who = access.account(hub, request)
    author, search = (request.query.get(word, [""])[0] for word in ("author", "search"))
    shown = [
        repo
        for repo in hub.store.repos.values()
        if repo.repo_type == request.repo_type
        and access.may_see(who, repo)
        and author in {"", repo.owner}
        and search.lower() in repo.name.lower()
    ]
    return in_json([_facts(hub, repo, repo.commits[0], request) for repo in shown])


def facts(hub: Hub, request: Request) -> Answer:
    repo = access.readable(hub, request)
    commit = access.commit_at(repo, request.params.get("rev", "main"))
    known = _facts(hub, repo, commit, request)
    wanted = request.query.get("expand") or request.query.get("expand[]")
    if wanted:
        known = {key: known[key] for key in ("_id", "id", *wanted) if key in known}
    return in_json(known)


def _facts(hub: Hub, repo: Repo, commit: Commit, request: Request) -> dict[str, Any]:
    """The metadata of a repository at a commit."""
    readme = commit.tree.get("README.md")
    card = front_matter(hub.content(readme).decode(errors="replace")) if readme else None
    card = card if isinstance(card, dict) else {}
    tags = [tag for tag in card.get("tags") or [] if isinstance(tag, str)]
    if isinstance(licence := card.get("license"), str):
        tags.append(f"license:{licence}")
    known = {
        "_id": _id(repo.repo_type + repo.name),
        "id": repo.name,
        "author": repo.owner,
        "sha": commit.oid,
        "createdAt": repo.created,
        "lastModified": commit.date,
        "private": repo.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": tags,
        "cardData": card,
        "usedStorage": repo.used,
        "siblings": [_sibling(path, blob, request) for path, blob in sorted(commit.tree.items())],
    }
    if repo.repo_type == "model":
        known |= {"modelId": repo.name, "spaces": []}
        known |= {key: card[key] for key in ("library_name", "pipeline_tag") if key in card}
    if repo.repo_type == "space":
        known |= {"sdk": repo.sdk}
    return known


def _sibling(path: str, blob: Blob, request: Request) -> dict[str, Any]:
    if not request.asks("blobs"):
        return {"rfilename": path}
    told: dict[str, Any] = {"rfilename": path, "size": blob.size, "blobId": blob.git_oid}
    if blob.large:
        told["lfs"] = {"sha256": blob.oid, "size": blob.size, "pointerSize": len(blob.pointer)}
    return told


def refs(hub: Hub, request: Request) -> Answer:
    repo = access.readable(hub, request)
    told = {
        kind: [
            {"name": name, "ref": f"refs/{git}/{name}", "targetCommit": oid}
            for name, oid in named.items()
        ]
        for kind, git, named in (("branches", "heads", repo.branches), ("tags", "tags", repo.tags))
    }
    return in_json({**told, "converts": [], "pullRequests": []})


def commits(hub: Hub, request: Request) -> Answer:
    repo = access.readable(hub, request)
    told = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "authors": [{"user": commit.author}],
            "date": commit.date,
        }
        for commit in repo.log(access.commit_at(repo, request.params["rev"]))
    ]
    return in_json(told, headers={"X-Total-Count": str(len(told))})


def create_branch(hub: Hub, request: Request) -> Answer:
    repo = access.writable(hub, request)
    branch = _new_ref(repo, request.params["branch"])
    repo.branches[branch] = access.commit_at(repo, request.json.get("startingPoint", "main")).oid
    return in_json({})


def create_tag(hub: Hub, request: Request) -> Answer:
    repo = access.writable(hub, request)
    tag = _new_ref(repo, request.json.get("tag", ""))
    repo.tags[tag] = access.commit_at(repo, request.params["rev"]).oid
    return in_json({})


def _new_ref(repo: Repo, name: str) -> str:
    """A name for a branch or tag that git allows and that is free."""
    if not re.fullmatch(r"\w[\w./-]*", name) or ".." in name or "//" in name or name[-1] in "./":
        raise Refused(400, f"Invalid reference name: {name!r}")
    if name in repo.branches or name in repo.tags:
        raise Refused(409, f"Reference already exists: {name}")
    return name


def delete_branch(hub: Hub, request: Request) -> Answer:
    repo = access.writable(hub, request)
    if request.params["branch"] == "main":
        raise Refused(403, "The main branch cannot be deleted")
    return _dropped(repo.branches, request.params["branch"])


def delete_tag(hub: Hub, request: Request) -> Answer:
    return _dropped(access.writable(hub, request).tags, request.params["rev"])


def _dropped(named: dict[str, str], name: str) -> Answer:
    if named.pop(name, None) is None:
        raise Refused(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return in_json({})


def _id(name: str) -> str:
    """An id of 24 hexadecimal digits, as in the database of the Hub."""
    return hashlib.sha1(name.encode()).hexdigest()[:24]


ROUTES = (
    Route("GET", "/api/whoami-v2", whoami),
    Route("POST", "/api/repos/create", create),
    Route("DELETE", "/api/repos/delete", delete),
    Route("PUT", "/api/{kind}/{repo}/settings", settings),
    Route("GET", "/api/{kind}/{repo}/auth-check", may_read),
    Route("GET", "/api/{kind}/{repo}/auth-check/write", may_write),
    Route("GET", "/api/{kind}/{repo}/refs", refs),
    Route("GET", "/api/{kind}/{repo}/commits/{rev}", commits),
    Route("POST", "/api/{kind}/{repo}/branch/{branch}", create_branch),
    Route("DELETE", "/api/{kind}/{repo}/branch/{branch}", delete_branch),
    Route("POST", "/api/{kind}/{repo}/tag/{rev}", create_tag),
    Route("DELETE", "/api/{kind}/{repo}/tag/{rev}", delete_tag),
    Route("GET", "/api/{kind}/{repo}/revision/{rev}", facts),
    Route("GET", "/api/{kind}", listed),
    Route("GET", "/api/{kind}/{repo}", facts),
)
