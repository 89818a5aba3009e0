"""Xet: large files as chunks in a small content-addressed storage (CAS).

GET    /api/{kind}/{repo}/xet-write-token/{rev}    and -read-: address of the CAS and a token
POST   /cas/v1/xorbs/default/{xorb}                chunks
POST   /cas/v1/shards                              files as lists of chunks, which are checked
GET    /cas/v1/reconstructions/{file}              ?Range: the parts of xorbs to fetch
GET    /storage/xorbs/{xorb}?signature=            those parts
/cas/v2/..., /cas/v1/chunks/..., /cas/v1/xorb-grants/...    404: clients do not need it

A file that a shard describes is kept like any other large file, so that clients without Xet can
read it. The names of xorbs are not checked: they are BLAKE3 hashes, which Python does not compute.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.hub import access
from tests.hub.shards import Chunk, File, FormatError, Term, chunks, files
from tests.hub.store import Repo
from tests.hub.wire import Answer, Refused, Request, Route, asked_range, in_json, ranged

if TYPE_CHECKING:
    from tests.hub.server import Hub

LIFETIME = 3600  # lifetime of a token of the CAS in seconds


@dataclass(frozen=True)
class Grant:
    """The right of a token of the CAS: to read one repository, or also to write to it."""

    repo: Repo
    write: bool


@dataclass
class Cas:
    """The uploaded chunks and files. `hashes` are the names of files in Xet, by SHA-256."""

    grants: dict[str, Grant] = field(default_factory=dict)
    xorbs: dict[str, bytes] = field(default_factory=dict)
    chunks: dict[str, list[Chunk]] = field(default_factory=dict)
    files: dict[str, File] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    received: Counter[bytes] = field(default_factory=Counter)

    def pieces(self, file: File) -> list[bytes]:
        """The chunks of a file, in order."""
        ranges = (self.chunks[term.xorb][term.first : term.last] for term in file.terms)
        return [chunk.content for found in ranges for chunk in found]

    def times(self, file: File) -> int:
        """How often each byte of the file was received at least."""
        return min((self.received[_digest(piece)] for piece in self.pieces(file)), default=0)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def write_token(hub: Hub, request: Request) -> Answer:
    repo = access.writable(hub, request)
    access.commit_at(repo, request.params["rev"])
    access.has_room(hub, repo, 1)
    return _granted(hub, Grant(repo, write=True))


def read_token(hub: Hub, request: Request) -> Answer:
    repo = access.readable(hub, request)
    access.commit_at(repo, request.params["rev"])
    return _granted(hub, Grant(repo, write=False))


def _granted(hub: Hub, grant: Grant) -> Answer:
    """The token in JSON for hf_xet, and in headers for huggingface_hub."""
    token, ends = f"xet_{secrets.token_urlsafe(32)}", int(time.time()) + LIFETIME
    hub.cas.grants[token] = grant
    url = f"{hub.url}/cas"
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": token}
    headers["X-Xet-Token-Expiration"] = str(ends)
    return in_json({"casUrl": url, "accessToken": token, "exp": ends}, headers=headers)


def _grant(hub: Hub, request: Request, write: bool) -> Grant:
    """The right of the token of a request."""
    grant = hub.cas.grants.get(request.token or "")
    if grant is None:
        raise Refused(401, "Unknown or expired token")
    if write and not grant.write:
        raise Refused(403, "The token may only read")
    return grant


def put_xorb(hub: Hub, request: Request) -> Answer:
    _grant(hub, request, write=True)
    cas, name = hub.cas, request.params["xorb"]
    try:
        found = chunks(request.body)
    except (FormatError, OSError) as error:  # pyarrow raises OSError for a broken LZ4 frame
        raise Refused(400, f"Not a xorb: {error}") from None
    cas.received.update(_digest(chunk.content) for chunk in found)
    known = name in cas.xorbs
    if not known:
        cas.xorbs[name], cas.chunks[name] = request.body, found
    return in_json({"was_inserted": not known})


def put_shard(hub: Hub, request: Request) -> Answer:
    repo = _grant(hub, request, write=True).repo
    try:
        found = files(request.body)
    except FormatError as error:
        raise Refused(400, f"Not a shard: {error}") from None
    for file in found:
        content = _content(hub.cas, file)
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise Refused(400, f"The chunks are not the file {file.sha256}")
        hub.cas.files[file.name] = file
        hub.cas.hashes[file.sha256] = file.name
        hub.store.put(file.sha256, content)
        repo.objects[file.sha256] = len(content)
    return in_json({"result": 1})


def _content(cas: Cas, file: File) -> bytes:
    """A file from its chunks, which must all have been uploaded."""
    for term in file.terms:
        have = cas.chunks.get(term.xorb, [])
        size = sum(len(chunk.content) for chunk in have[term.first : term.last])
        if term.last > len(have) or size != term.size:
            raise Refused(400, f"Chunks {term.first} to {term.last} of {term.xorb} are not here")
    return b"".join(cas.pieces(file))


def reconstruction(hub: Hub, request: Request) -> Answer:
    repo = _grant(hub, request, write=False).repo
    file = hub.cas.files.get(request.params["file"])
    if file is None or file.sha256 not in repo.objects:
        raise Refused(404, "File not found")
    size = sum(term.size for term in file.terms)
    asked = asked_range(request, size)
    if asked is None:
        asked = range(size)
    elif not asked:
        raise Refused(416, f"The file has {size} bytes")
    terms: list[Term] = []
    skipped, at = 0, 0
    for term in file.terms:
        if at < asked.stop and at + term.size > asked.start:
            skipped = skipped if terms else asked.start - at
            terms.append(term)
        at += term.size
    told = {"offset_into_first_range": skipped, "terms": [_told(term) for term in terms]}
    fetched = {name: _fetched(hub, name, terms) for name in {term.xorb for term in terms}}
    return in_json({**told, "fetch_info": fetched})


def _told(term: Term) -> dict[str, Any]:
    chunk_range = {"start": term.first, "end": term.last}
    return {"hash": term.xorb, "unpacked_length": term.size, "range": chunk_range}


def _fetched(hub: Hub, name: str, terms: list[Term]) -> list[dict[str, Any]]:
    """The byte ranges of chunks in a xorb. Ranges do not overlap: clients use the first match."""
    spans: list[tuple[int, int]] = []
    for first, last in sorted((term.first, term.last) for term in terms if term.xorb == name):
        if spans and first <= spans[-1][1]:
            first, last = spans[-1][0], max(last, spans.pop()[1])
        spans.append((first, last))
    ends = [0, *(chunk.end for chunk in hub.cas.chunks[name])]
    return [
        {
            "range": {"start": first, "end": last},
            "url": hub.signed(f"/storage/xorbs/{name}"),
            "url_range": {"start": ends[first], "end": ends[last] - 1},
        }
        for first, last in spans
    ]


def xorb(hub: Hub, request: Request) -> Answer:
    hub.check_signature(request)
    return ranged(request, hub.cas.xorbs[request.params["xorb"]], {})


def not_served(hub: Hub, request: Request) -> Answer:
    raise Refused(404, "Not found")


ROUTES = (
    Route("GET", "/api/{kind}/{repo}/xet-write-token/{rev}", write_token, upload=True),
    Route("GET", "/api/{kind}/{repo}/xet-read-token/{rev}", read_token),
    Route("POST", "/cas/v1/xorbs/default/{xorb}", put_xorb, upload=True),
    Route("POST", "/cas/v1/shards", put_shard, upload=True),
    Route("GET", "/cas/v1/reconstructions/{file}", reconstruction),
    Route("GET", "/storage/xorbs/{xorb}", xorb),
    Route("POST", "/cas/v2/shards", not_served),
    Route("GET", "/cas/v2/reconstructions/{file}", not_served),
    Route("GET", "/cas/v1/chunks/default/{chunk}", not_served),
    Route("POST", "/cas/v1/xorb-grants/default/{xorb}", not_served),
)
