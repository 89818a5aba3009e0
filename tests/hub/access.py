"""Who asks, and may they: accounts, tokens, the Hub's refusals. Serves no route itself.

Without a token, a repository one may not see and one that does not exist are both 401; with one,
both are 404. Who may see a repository but not write to it gets 403.
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
    """A user as one token shows them; `role` is what the token may do: `write` or `read`."""

    user: str
    token_name: str
    role: str = "write"


def new_token() -> str:
    """What nobody can guess, in the shape of a real token."""
    return "hf_" + "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(34))


def account(hub: Hub, request: Request) -> Account | None:
    """Whose token was sent; a token nobody has is refused everywhere, also where none is needed."""
    if request.token is None:
        return None
    if request.token not in hub.accounts:
        raise Refused(401, "Invalid credentials in Authorization header")
    return hub.accounts[request.token]


def known_account(hub: Hub, request: Request) -> Account:
    """Whose token was sent; there must be one."""
    if found := account(hub, request):
        return found
    raise Refused(401, "Invalid username or password.", headers={"WWW-Authenticate": "Bearer"})


def readable(hub: Hub, request: Request) -> Repo:
    """The repository of the path, if it exists for who asks."""
    return visible(hub, request, request.repo_type, request.params["repo"])


def visible(hub: Hub, request: Request, repo_type: str, name: str) -> Repo:
    """A repository, if it exists for who asks."""
    who = account(hub, request)
    repo = hub.store.repos.get((repo_type, name))
    if repo and may_see(who, repo):
        return repo
    if who is None:
        raise Refused(401, "Invalid username or password.", "RepoNotFound")
    raise Refused(404, "Repository not found", "RepoNotFound")


def may_see(who: Account | None, repo: Repo) -> bool:
    """Private ones exist for their owner only."""
    return not repo.private or (who is not None and who.user == repo.owner)


def writable(hub: Hub, request: Request) -> Repo:
    """The repository of the path, if who asks may change it."""
    repo = readable(hub, request)
    may_write(known_account(hub, request), repo)
    return repo


def may_write(who: Account, repo: Repo) -> None:
    """Refuse those who may only read."""
    if who.role != "write" or who.user != repo.owner:
        said = "You have read access but not the required permissions for this operation"
        raise Refused(403, said)


def commit_at(repo: Repo, revision: str) -> Commit:
    """The commit a revision names."""
    if commit := repo.find(revision):
        return commit
    raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def has_room(hub: Hub, repo: Repo, more: int) -> None:
    """Refuse what would exceed the storage of the owner; nothing more fits a full one."""
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
