"""What the Hub refuses; asked plainly where its own clients would not ask."""

import base64
import hashlib
import json
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, get_session

from tests.hub import Hub
from tests.hub.calls import Ask
from tests.hub.commits import LARGEST_SMALL
from tests.hub.lfs import PART
from tests.hub.shards import END

Commit = Callable[..., Any]
CONTENT = b"large" * 100
OID = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def commit(api: HfApi, ask: Ask) -> Commit:
    """Commits operations to alice/a, as plain lines; the response."""
    api.create_repo("alice/a")

    def commit(*operations: tuple[str, dict[str, Any]], **header: Any) -> Any:
        lines = [("header", {"summary": "plain", **header}), *operations]
        text = "\n".join(json.dumps({"key": key, "value": value}) for key, value in lines)
        return ask("POST", "/api/models/alice/a/commit/main", content=text)

    return commit


def file(path: Any, content: bytes = b"text") -> tuple[str, dict[str, Any]]:
    return "file", {"path": path, "content": base64.b64encode(content).decode()}


def refuses(hub: Hub, answer: Any, status: int, said: str) -> None:
    """Check that a request was refused and changed nothing."""
    assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text
    assert len(hub.repo("alice/a").commits) == 1


PATHS = ["../x", "a/../../x", "/etc/x", "a//x", "a/", "", ".", "./x", ".git/config", "a/.GIT/x"]


@pytest.mark.parametrize("path", [*PATHS, "a\0b", "a\nb", None])
def test_paths_that_leave_the_repository(hub: Hub, commit: Commit, path: str | None) -> None:
    refuses(hub, commit(file("good.txt"), file(path)), 400, "Invalid path")


@pytest.mark.parametrize("path", ["../x", "/x", ".git/config"])
def test_such_paths_are_refused_before(commit: Commit, ask: Ask, path: str) -> None:
    asked = {"files": [{"path": path, "size": 1, "sample": "eA=="}]}
    answer = ask("POST", "/api/models/alice/a/preupload/main", json=asked)
    assert answer.status_code == 400 and "Invalid path" in answer.text


@pytest.mark.parametrize("size", [LARGEST_SMALL, LARGEST_SMALL + 1])
def test_large_files_sent_as_small_ones(hub: Hub, commit: Commit, size: int) -> None:
    answer = commit(file("big.txt", bytes(size)))
    if size > LARGEST_SMALL:
        refuses(hub, answer, 400, "files larger than 10 MiB")
    else:
        assert len(hub.files("alice/a")["big.txt"]) == size


@pytest.mark.parametrize(
    ("operations", "header", "said"),
    [
        ([("file", {"path": "a.txt", "content": "no base64!"})], {}, "not base64"),
        ([("file", {"path": "a.txt"})], {}, "not base64"),
        ([("movedFile", {"path": "a.txt"})], {}, "unknown operation 'movedFile'"),
        ([file("a.txt")], {"summary": " "}, '"summary" is required'),
        ([file("a"), file("a/b")], {}, "is inside a file"),
        ([file("README.md", b"---\nlicense: free\n---\n")], {}, '"license" must be one of'),
        ([file("README.md", b"---\na: [\n---\n")], {}, "YAML: "),
    ],
)
def test_invalid_commits(
    hub: Hub, commit: Commit, operations: list[Any], header: dict[str, str], said: str
) -> None:
    refuses(hub, commit(*operations, **header), 400, said)


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"key": "file", "value": {}}', '{"a": 1}'])
def test_invalid_bodies_of_commits(hub: Hub, commit: Commit, ask: Ask, text: str) -> None:
    answer = ask("POST", "/api/models/alice/a/commit/main", content=text)
    refuses(hub, answer, 400, "Invalid commit")


def test_commits_to_a_missing_branch(hub: Hub, api: HfApi, commit: Commit, ask: Ask) -> None:
    api.create_tag("alice/a", tag="v1")
    text = json.dumps({"key": "header", "value": {"summary": "x"}})
    for revision in ("v1", hub.repo("alice/a").commits[0].oid):
        answer = ask("POST", f"/api/models/alice/a/commit/{revision}", content=text)
        refuses(hub, answer, 400, "Commits go to a branch")
    answer = ask("POST", "/api/models/alice/a/commit/none", content=text)
    assert answer.headers["X-Error-Code"] == "RevisionNotFound"


def test_folders_hold_ten_thousand_files(hub: Hub, commit: Commit) -> None:
    answer = commit(*(file(f"many/{n}.txt", b"") for n in range(10_001)))
    refuses(hub, answer, 400, "More than 10000 files")


def test_requests_about_too_many_files(commit: Commit, ask: Ask) -> None:
    asked = {"files": [{"path": f"{n}", "size": 1, "sample": "eA=="} for n in range(257)]}
    assert ask("POST", "/api/models/alice/a/preupload/main", json=asked).status_code == 400
    asked["files"].pop()
    assert ask("POST", "/api/models/alice/a/preupload/main", json=asked).status_code == 200


# --- large files ---


def batch(ask: Ask, oid: str = OID, size: int = len(CONTENT), **asked: Any) -> Any:
    body = {"operation": "upload", "objects": [{"oid": oid, "size": size}], **asked}
    return ask("POST", "/alice/a.git/info/lfs/objects/batch", json=body)


def lfs_file(oid: str = OID, size: int = len(CONTENT)) -> tuple[str, dict[str, Any]]:
    return "lfsFile", {"path": "w.bin", "algo": "sha256", "oid": oid, "size": size}


def test_large_files_that_were_never_uploaded(hub: Hub, commit: Commit, ask: Ask) -> None:
    said = "an LFS pointer pointed to a file that does not exist"
    refuses(hub, commit(lfs_file()), 400, said)
    actions = batch(ask).json()["objects"][0]["actions"]
    refuses(hub, commit(lfs_file()), 400, said)
    told = {"oid": OID, "size": len(CONTENT)}
    verify = actions["verify"]["href"].removeprefix(hub.url)
    assert ask("POST", verify, json=told).status_code == 404
    assert get_session().put(actions["upload"]["href"], content=CONTENT).status_code == 200
    assert ask("POST", verify, json=told).status_code == 200
    assert ask("POST", verify, json=told | {"size": 1}).status_code == 404
    refuses(hub, commit(lfs_file(size=1)), 400, said)
    assert commit(lfs_file()).status_code == 200
    assert hub.files("alice/a")["w.bin"] == CONTENT
    assert "actions" not in batch(ask).json()["objects"][0]


def test_large_files_of_another_repository(hub: Hub, api: HfApi, commit: Commit, ask: Ask) -> None:
    api.create_repo("alice/b")
    api.upload_file(path_or_fileobj=CONTENT, path_in_repo="w.bin", repo_id="alice/b")
    assert OID in hub.repo("alice/b").objects
    refuses(hub, commit(lfs_file()), 400, "does not exist")


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", CONTENT[::-1], b""])
def test_contents_that_were_not_announced(
    hub: Hub, commit: Commit, ask: Ask, content: bytes
) -> None:
    href = batch(ask).json()["objects"][0]["actions"]["upload"]["href"]
    assert get_session().put(href, content=content).status_code == 400
    assert hub.sent[OID] == 0 and not hub.repo("alice/a").objects


def test_missing_and_wrong_parts(hub: Hub, commit: Commit, ask: Ask) -> None:
    content = bytes(PART) + b"end"
    oid = hashlib.sha256(content).hexdigest()
    transfers = {"transfers": ["basic", "multipart"]}
    how = batch(ask, oid, len(content), **transfers).json()["objects"][0]["actions"]["upload"]
    client, header = get_session(), how["header"]
    assert header["chunk_size"] == str(PART) and {"00001", "00002"} < header.keys()
    one = client.put(header["00001"], content=content[:PART]).headers["ETag"]
    parts = [{"partNumber": 1, "etag": one}]
    assert client.post(how["href"], json={"oid": oid, "parts": parts}).status_code == 400
    assert client.put(header["00002"] + "3", content=b"end").status_code == 404
    two = client.put(header["00002"], content=b"end").headers["ETag"]
    wrong = [*parts, {"partNumber": 2, "etag": one}]
    assert client.post(how["href"], json={"oid": oid, "parts": wrong}).status_code == 400
    assert not hub.repo("alice/a").objects
    parts.append({"partNumber": 2, "etag": two})
    assert client.post(how["href"], json={"oid": oid, "parts": parts}).status_code == 200
    assert hub.repo("alice/a").objects == {oid: len(content)}


@pytest.mark.parametrize(
    ("oid", "size", "asked", "status"),
    [
        ("../" + "a" * 61, 5, {}, 422),
        (OID, 0, {}, 422),
        (OID, "5", {}, 422),
        (OID, 5, {"operation": "download"}, 400),
        (OID, 5, {"hash_algo": "sha1"}, 400),
    ],
)
def test_invalid_batches(
    commit: Commit, ask: Ask, oid: str, size: Any, asked: dict[str, str], status: int
) -> None:
    assert batch(ask, oid, size, **asked).status_code == status


def test_the_storage_takes_what_it_gave_an_address_for(hub: Hub, commit: Commit, ask: Ask) -> None:
    href = batch(ask).json()["objects"][0]["actions"]["upload"]["href"]
    leak = {"Authorization": f"Bearer {hub.token}"}
    assert get_session().put(href, content=CONTENT, headers=leak).status_code == 400
    assert get_session().put(href + "x", content=CONTENT).status_code == 403


def test_bodies_of_unknown_length(hub: Hub, commit: Commit, ask: Ask) -> None:
    href = batch(ask).json()["objects"][0]["actions"]["upload"]["href"]
    pieces = (CONTENT[n : n + 99] for n in range(0, len(CONTENT), 99))
    assert get_session().put(href, content=pieces).status_code == 200
    assert hub.repo("alice/a").objects == {OID: len(CONTENT)}


def test_half_a_body_is_ignored(hub: Hub, commit: Commit, ask: Ask) -> None:
    """Its client is gone: there is no answer, and nothing is kept or logged."""
    href = batch(ask).json()["objects"][0]["actions"]["upload"]["href"]
    before = len(hub.log)
    head = f"PUT {urlsplit(href).path} HTTP/1.1\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", hub.port)) as client:
        client.sendall(head.encode() + CONTENT[:-1])
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert not hub.repo("alice/a").objects and len(hub.log) == before


# --- Xet ---


@pytest.fixture
def cas(hub: Hub, commit: Commit, ask: Ask) -> Callable[..., Any]:
    """A plain request to the CAS with a token that may write, or only read."""

    def cas(method: str, path: str, content: bytes = b"", may: str = "write", **sent: Any) -> Any:
        told = ask("GET", f"/api/models/alice/a/xet-{may}-token/main")
        assert told.json()["casUrl"] == told.headers["X-Xet-Cas-Url"] == f"{hub.url}/cas"
        token = told.json()["accessToken"]
        return ask(method, f"/cas/v1/{path}", token=token, content=content, **sent)

    return cas


def test_tokens_of_the_cas(hub: Hub, cas: Callable[..., Any], ask: Ask) -> None:
    assert cas("POST", "shards", may="read").status_code == 403
    assert ask("POST", "/cas/v1/shards").status_code == 401  # a token of the Hub is none
    for token, status in ((hub.read_token, 403), (hub.bob_token, 403), (None, 401)):
        path = "/api/models/alice/a/xet-write-token/main"
        assert ask("GET", path, token=token).status_code == status
    assert ask("GET", "/api/models/alice/a/xet-read-token/none").status_code == 404


def xorb(content: bytes) -> bytes:
    """One chunk, stored without packing."""
    size = len(content).to_bytes(3, "little")
    return b"\0" + size + b"\0" + size + content


def shard(
    content: bytes, sha256: str, chunks: int = 1, with_sha256: bool = True, terms: int = 1
) -> bytes:
    """A file whose terms are all the whole xorb 0."""
    name, flags = b"\1" * 32, (1 << 30) * with_sha256
    entry = struct.pack("<32sIIII", bytes(32), 0, len(content), 0, chunks) * terms
    digest = struct.pack("<4Q16x", *(int(sha256[n : n + 16], 16) for n in range(0, 64, 16)))
    head = struct.pack("<32sII8x", name, flags, terms)
    return bytes(48) + head + entry + digest * with_sha256 + END + bytes(16)


def test_a_file_of_chunks(hub: Hub, commit: Commit, cas: Callable[..., Any]) -> None:
    """The next test changes this request; this test shows that it is valid."""
    assert cas("POST", f"xorbs/default/{'0' * 64}", xorb(CONTENT)).json() == {"was_inserted": True}
    assert cas("POST", "shards", shard(CONTENT, OID)).status_code == 200
    assert commit(lfs_file()).status_code == 200
    assert hub.files("alice/a")["w.bin"] == CONTENT and hub.sent[OID] == 1
    name = "01" * 32
    assert cas("GET", f"reconstructions/{name}", may="read").json()["terms"][0]["range"]["end"] == 1


def test_files_of_chunks_of_another_repository(
    hub: Hub, api: HfApi, cas: Callable[..., Any], ask: Ask
) -> None:
    cas("POST", f"xorbs/default/{'0' * 64}", xorb(CONTENT))
    cas("POST", "shards", shard(CONTENT, OID))
    assert cas("GET", f"reconstructions/{'00' * 32}").status_code == 404
    api.create_repo("alice/b")
    token = ask("GET", "/api/models/alice/b/xet-read-token/main").json()["accessToken"]
    path = f"/cas/v1/reconstructions/{'01' * 32}"
    assert ask("GET", path, token=token).status_code == 404


@pytest.mark.parametrize(
    ("asked", "offset", "terms"),
    [(None, 0, 3), ("0-499", 0, 1), ("500-", 0, 2), ("499-500", 499, 2), ("1200-9999", 200, 1)],
)
def test_parts_of_a_file_of_chunks(
    hub: Hub, cas: Callable[..., Any], asked: str | None, offset: int, terms: int
) -> None:
    """Its three terms are the same 500 bytes, which are fetched once."""
    cas("POST", f"xorbs/default/{'0' * 64}", xorb(CONTENT))
    told = shard(CONTENT, hashlib.sha256(CONTENT * 3).hexdigest(), terms=3)
    assert cas("POST", "shards", told).status_code == 200
    headers = {"Range": f"bytes={asked}"} if asked else {}
    answer = cas("GET", f"reconstructions/{'01' * 32}", headers=headers).json()
    assert (answer["offset_into_first_range"], len(answer["terms"])) == (offset, terms)
    ((fetched,),) = answer["fetch_info"].values()
    assert fetched["url_range"] == {"start": 0, "end": 8 + len(CONTENT) - 1}
    assert get_session().get(fetched["url"]).content == xorb(CONTENT)
    beyond = {"Range": "bytes=1500-"}
    assert cas("GET", f"reconstructions/{'01' * 32}", headers=beyond).status_code == 416


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        bytes(100),
        shard(CONTENT, OID)[:-60],
        shard(CONTENT, OID, chunks=2),
        shard(CONTENT[1:], OID),
        shard(CONTENT, OID[::-1]),
        shard(CONTENT, OID, with_sha256=False),
    ],
    ids=["empty", "zeros", "cut", "chunks", "size", "sha256", "no-sha256"],
)
def test_invalid_shards(hub: Hub, cas: Callable[..., Any], wrong: bytes) -> None:
    cas("POST", f"xorbs/default/{'0' * 64}", xorb(CONTENT))
    assert cas("POST", "shards", wrong).status_code == 400
    assert not hub.repo("alice/a").objects


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\1" + xorb(CONTENT)[1:],
        xorb(CONTENT)[:-1],
        b"\0\1\0\0\1\1\0\0x",
        b"\0\1\0\0\3\1\0\0x",
        b"\0\1\0\0\0\2\0\0x",
    ],
    ids=["empty", "version", "cut", "lz4", "packing", "size"],
)
def test_invalid_xorbs(hub: Hub, cas: Callable[..., Any], wrong: bytes) -> None:
    assert cas("POST", f"xorbs/default/{'0' * 64}", wrong).status_code == 400
    assert cas("POST", "shards", shard(CONTENT, OID)).status_code == 400


# --- the rest ---


def test_one_of_many_commits_on_the_same_state_wins(hub: Hub, commit: Commit) -> None:
    parent = hub.repo("alice/a").commits[0].oid
    with ThreadPoolExecutor(8) as pool:
        tried = pool.map(lambda n: commit(file(f"{n}.txt"), parentCommit=parent), range(8))
        assert sorted(answer.status_code for answer in tried) == [200, *[412] * 7]
    assert len(hub.repo("alice/a").commits) == 2 and len(hub.files("alice/a")) == 2


def test_unknown_routes_are_remembered(hub: Hub, ask: Ask) -> None:
    assert ask("GET", "/api/papers").status_code == 404
    assert ask("PATCH", "/api/whoami-v2").status_code == 404
    assert hub.unknown == ["GET /api/papers", "PATCH /api/whoami-v2"]


def test_no_pull_requests(hub: Hub, api: HfApi, commit: Commit) -> None:
    with pytest.raises(ValueError, match="no pull requests"):
        adds = [CommitOperationAdd("a.txt", b"a")]
        api.create_commit("alice/a", adds, commit_message="a", create_pr=True)
