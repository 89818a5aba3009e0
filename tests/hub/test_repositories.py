"""Repositories, and who may do what with them."""

from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from tests.hub import Hub
from tests.hub.calls import Ask, refused

TYPES = ("model", "dataset", "space")


def test_who_am_i(hub: Hub, api: HfApi) -> None:
    told = {name: api.whoami(token) for name, token in hub_tokens(hub).items()}
    assert {name: who["name"] for name, who in told.items()} == {
        "write": "alice",
        "read": "alice",
        "bob": "bob",
    }
    assert told["read"]["auth"]["accessToken"]["role"] == "read"
    assert told["write"]["auth"]["accessToken"]["role"] == "write"


def hub_tokens(hub: Hub) -> dict[str, str]:
    return {"write": hub.token, "read": hub.read_token, "bob": hub.bob_token}


@pytest.mark.parametrize("repo_type", TYPES)
def test_create_and_delete(hub: Hub, api: HfApi, repo_type: str) -> None:
    named = {"repo_type": repo_type, "space_sdk": "gradio" if repo_type == "space" else None}
    url = api.create_repo("alice/new", **named)
    assert url.repo_id == "alice/new" and url.repo_type == repo_type
    assert str(url).startswith(hub.url)
    repo = hub.repo("alice/new", repo_type)
    assert not repo.private and [commit.title for commit in repo.commits] == ["initial commit"]
    assert (repo.commits[0].author, repo.commits[0].parent) == ("alice", None)
    assert list(hub.files("alice/new", repo_type)) == [".gitattributes"]

    refused(409, "You already created", api.create_repo, "alice/new", **named)
    assert api.create_repo("new", exist_ok=True, **named) == url
    api.delete_repo("alice/new", repo_type=repo_type)
    assert hub.store.repos == {}
    refused(404, "Repository Not Found", api.delete_repo, "alice/new", repo_type=repo_type)
    assert hub.unknown == []


def test_the_same_name_is_another_repository_of_another_type(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/both")
    api.create_repo("alice/both", repo_type="dataset")
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="a.json", repo_id="alice/both")
    assert "a.json" not in hub.files("alice/both", "dataset")


def test_private_repositories_are_hidden(hub: Hub, api: HfApi, ask: Ask) -> None:
    api.create_repo("alice/secret", private=True)
    assert hub.repo("alice/secret").private
    assert api.model_info("alice/secret").private
    assert api.model_info("alice/secret", token=hub.read_token).id == "alice/secret"
    for token, status in ((hub.bob_token, 404), (False, 401)):
        raised = refused(
            status, "Repository Not Found", api.model_info, "alice/secret", token=token
        )
        assert isinstance(raised, RepositoryNotFoundError)
    assert [info.id for info in api.list_models(author="alice")] == ["alice/secret"]
    assert list(api.list_models(author="alice", token=hub.bob_token)) == []

    assert ask("PUT", "/api/models/alice/secret/settings", json={}).status_code == 400
    api.update_repo_settings("alice/secret", private=False)
    assert api.model_info("alice/secret", token=False).id == "alice/secret"


def test_missing_and_private_repositories_look_the_same(hub: Hub, api: HfApi) -> None:
    refused(404, "Repository Not Found", api.model_info, "alice/none")
    refused(401, "Repository Not Found", api.model_info, "alice/none", token=False)
    refused(404, "Repository Not Found", api.model_info, "gpt2")


@pytest.mark.parametrize("path", ["/api/whoami-v2", "/api/models/alice/open", "/api/models"])
def test_a_wrong_token_is_refused_everywhere(hub: Hub, api: HfApi, ask: Ask, path: str) -> None:
    api.create_repo("alice/open")
    answer = ask("GET", path, token="hf_" + "x" * 34)
    assert answer.status_code == 401
    assert answer.headers["X-Error-Message"] == "Invalid credentials in Authorization header"
    assert answer.json() == {"error": "Invalid credentials in Authorization header"}


def test_no_token_may_write_nothing(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/open")
    refused(401, "Invalid username", api.create_repo, "alice/other", token=False)
    file = {"path_or_fileobj": b"x", "path_in_repo": "x.txt", "repo_id": "alice/open"}
    refused(401, "Invalid username", api.upload_file, **file, token=False)
    assert "x.txt" not in hub.files("alice/open")


@pytest.mark.parametrize("who", ["read", "bob"])
def test_other_users_and_read_only_tokens(hub: Hub, api: HfApi, who: str) -> None:
    token = hub_tokens(hub)[who]
    api.create_repo("alice/open")
    refused(403, "don't have the rights", api.create_repo, "alice/other", token=token)
    said = "read access but not the required permissions"
    named: dict[str, Any] = {"repo_id": "alice/open", "token": token}
    file = {"path_or_fileobj": b"x", "path_in_repo": "x.txt"}
    refused(403, said, api.upload_file, **file, **named)
    refused(403, said, api.delete_repo, **named)
    refused(403, said, api.create_branch, **named, branch="b")
    refused(403, said, api.create_tag, **named, tag="t")
    refused(403, said, api.update_repo_settings, **named, private=True)
    refused(403, said, api.auth_check, **named, write=True)
    api.auth_check(**named)
    assert len(hub.repo("alice/open").commits) == 1


@pytest.mark.parametrize(
    "name", ["a..b", "a--b", "a" * 97, "-a", "a.", "a.git", "a b", "../a", "", None, "a/b"]
)
def test_invalid_names(hub: Hub, ask: Ask, name: str | None) -> None:
    """Sent as plain requests, because huggingface_hub refuses them itself."""
    answer = ask("POST", "/api/repos/create", json={"name": name, "organization": None})
    assert answer.status_code == 400 and "Invalid repo name" in answer.json()["error"]
    assert hub.store.repos == {}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"type": "bucket"}, '"type" must be one of'),
        ({"type": "space"}, '"sdk" must be one of'),
        ({"type": "space", "sdk": "flask"}, '"sdk" must be one of'),
        ({"visibility": "hidden"}, '"visibility" must be one of'),
    ],
)
def test_invalid_repositories(ask: Ask, wrong: dict[str, str], said: str) -> None:
    answer = ask("POST", "/api/repos/create", json={"name": "a", **wrong})
    assert answer.status_code == 400 and said in answer.json()["error"]


def test_branches_and_tags(hub: Hub, api: HfApi) -> None:
    api.create_repo("alice/a")
    first = api.list_repo_commits("alice/a")[0].commit_id
    api.create_branch("alice/a", branch="work")
    new = api.upload_file(
        path_or_fileobj=b"1", path_in_repo="n.txt", repo_id="alice/a", revision="work"
    )
    api.create_tag("alice/a", tag="v1", revision="work")
    api.create_branch("alice/a", branch="more/work", revision="v1")

    refs = api.list_repo_refs("alice/a")
    heads = {ref.name: (ref.ref, ref.target_commit) for ref in refs.branches}
    assert heads["main"] == ("refs/heads/main", first)
    assert heads["more/work"] == ("refs/heads/more/work", new.oid)
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", new.oid)]
    for revision in ("work", "v1", "more/work", new.oid, new.oid[:8]):
        assert api.model_info("alice/a", revision=revision).sha == new.oid
    titles = [commit.title for commit in api.list_repo_commits("alice/a", revision="v1")]
    assert titles == ["Upload n.txt with huggingface_hub", "initial commit"]

    refused(409, "already exists", api.create_branch, "alice/a", branch="work")
    api.create_branch("alice/a", branch="work", exist_ok=True)
    refused(409, "already exists", api.create_tag, "alice/a", tag="v1")
    refused(400, "Invalid reference", api.create_branch, "alice/a", branch="a..b")
    refused(404, "Revision Not Found", api.create_branch, "alice/a", branch="x", revision="no")
    refused(403, "cannot be deleted", api.delete_branch, "alice/a", branch="main")
    api.delete_branch("alice/a", branch="work")
    api.delete_tag("alice/a", tag="v1")
    raised = refused(404, "Revision Not Found", api.model_info, "alice/a", revision="v1")
    assert isinstance(raised, RevisionNotFoundError)
    refused(404, "Revision Not Found", api.delete_tag, "alice/a", tag="v1")
    assert hub.unknown == []


def test_a_later_hub_opens_the_same_folder(tmp_path: Any) -> None:
    one = Hub(tmp_path)
    one.start()
    api = HfApi(one.url, token=one.token)
    api.create_repo("alice/kept", private=True)
    oid = api.upload_file(path_or_fileobj=b"abc", path_in_repo="a.txt", repo_id="alice/kept").oid
    one.stop()
    other = Hub(tmp_path)
    assert other.files("alice/kept") == one.files("alice/kept")
    assert other.files("alice/kept")["a.txt"] == b"abc"
    assert other.repo("alice/kept").private and other.repo("alice/kept").commits[0].oid == oid
    other.stop()
