"""Accounts, tokens and rights. Serves no route itself.

A hidden repository and a missing one get the same answer: 401 without a token, 404 with one. A user
who may read a repository but not write to it gets 403.
"""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.hub.store import Commit, Repo
from tests.hub.wire import Refused, Request

if TYPE_CHECKING:
    from tests.hub.server import Hub


@dataclass(frozen=True)
class Account:
    """The user of a token. `role` is what the token allows: `write` or `read`."""

    user: str
    token_name: str
    role: str = "write"


def new_token() -> str:
    """A random token in the form of a real one."""
    return "hf_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(34))


def account(hub: Hub, request: Request) -> Account | None:
    """The account of the token, None without a token. An unknown token is always refused."""
    if request.token is None:
        return None
    if request.token not in hub.accounts:
        raise Refused(401, "Invalid credentials in Authorization header")
    return hub.accounts[request.token]


def known_account(hub: Hub, request: Request) -> Account:
    """The account of the token, which is required."""
    if found := account(hub, request):
        return found
    raise Refused(401, "Invalid username or password.", headers={"WWW-Authenticate": "Bearer"})


def readable(hub: Hub, request: Request) -> Repo:
    """The repository of the path, if the user may see it."""
    return visible(hub, request, request.repo_type, request.params["repo"])


def visible(hub: Hub, request: Request, repo_type: str, name: str) -> Repo:
    """A repository, if the user may see it."""
    who = account(hub, request)
    repo = hub.store.repos.get((repo_type, name))
    if repo and may_see(who, repo):
        return repo
    if who is None:
        raise Refused(401, "Invalid username or password.", "RepoNotFound")
    raise Refused(404, "Repository not found", "RepoNotFound")


def may_see(who: Account | None, repo: Repo) -> bool:
    """Whether a user may see a repository: private ones only their owner."""
    return not repo.private or (who is not None and who.user == repo.owner)


def writable(hub: Hub, request: Request) -> Repo:
    """The repository of the path, if the user may change it."""
    repo = readable(hub, request)
    may_write(known_account(hub, request), repo)
    return repo


def may_write(who: Account, repo: Repo) -> None:
    """Refuse tokens that allow reading only."""
    if who.role != "write" or who.user != repo.owner:
        said = "You have read access but not the required permissions for this operation"
        raise Refused(403, said)


def commit_at(repo: Repo, revision: str) -> Commit:
    """The commit of a revision."""
    if commit := repo.find(revision):
        return commit
    raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def has_room(hub: Hub, repo: Repo, more: int) -> None:
    """Refuse contents that would exceed the quota of the owner."""
    if hub.quota is None or hub.store.used(repo.owner) + more <= hub.quota:
        return
    if repo.private:
        said = "Private repository storage limit reached, please upgrade your plan to increase it."
    else:
        said = (
            "Your storage patterns tripped our internal systems! Please contact us at "
            "website@huggingface.co so we can verify your account and unlock more storage."
        )
    raise Refused(403, said)
