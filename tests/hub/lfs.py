"""Large files without Xet, uploaded as git-lfs does: in one piece or in parts.

POST   /{prefix}{repo}.git/info/lfs/objects/batch  for each file its upload address, or nothing
PUT    /storage/uploads/{upload}                   the whole file
PUT    /storage/uploads/{upload}/{part}            one part of it; the answer is its ETag
POST   /api/complete_multipart/{upload}            the ETags of all parts, in order
POST   /{prefix}{repo}.git/info/lfs/verify         whether a file of this size exists

The storage is of another origin (see `reading.py`). It needs only the name of an upload. A token of
the Hub must never reach it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.hub import access
from tests.hub.store import Repo
from tests.hub.wire import Answer, Refused, Request, Route, in_json

if TYPE_CHECKING:
    from tests.hub.server import Hub

PART = 5 * 1024 * 1024  # larger files are uploaded in parts of this size


@dataclass
class Upload:
    """An announced upload: its repository, and the parts received so far."""

    repo: Repo
    oid: str
    size: int
    parts: dict[int, bytes] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of parts."""
        return -(-self.size // PART)


def batch(hub: Hub, request: Request) -> Answer:
    repo = access.writable(hub, request)
    asked = request.json
    if asked.get("operation") != "upload" or asked.get("hash_algo", "sha256") != "sha256":
        raise Refused(400, 'only the operation "upload" with sha256 is served')
    files = {file.get("oid"): file.get("size") for file in asked.get("objects", [])}
    for oid, size in files.items():
        if not re.fullmatch(r"[0-9a-f]{64}", str(oid)) or not isinstance(size, int) or size < 1:
            raise Refused(422, f"Invalid object: oid {oid!r}, size {size!r}")
    access.has_room(hub, repo, sum(files[oid] for oid in files.keys() - repo.objects.keys()))
    many = "multipart" in asked.get("transfers", ["basic"])
    told = [_object(hub, repo, oid, size, many) for oid, size in files.items()]
    return in_json({"transfer": "multipart" if many else "basic", "objects": told})


def _object(hub: Hub, repo: Repo, oid: str, size: int, many: bool) -> dict[str, Any]:
    """The actions to upload one file; none if it exists."""
    if oid in repo.objects:
        return {"oid": oid, "size": size}
    name = secrets.token_urlsafe(24)
    upload = hub.uploads[name] = Upload(repo, oid, size)
    href = f"{hub.storage}/storage/uploads/{name}"
    how: dict[str, Any] = {"href": href}
    if many and size > PART:
        parts = {f"{n:05}": f"{href}/{n}" for n in range(1, upload.count + 1)}
        how = {"href": f"{hub.url}/api/complete_multipart/{name}"}
        how["header"] = {"chunk_size": str(PART), **parts}
    verify = {"href": f"{hub.page(repo.repo_type, repo.name)}.git/info/lfs/verify"}
    return {"oid": oid, "size": size, "actions": {"upload": how, "verify": verify}}


def _named(hub: Hub, request: Request) -> Upload:
    """The upload of the path."""
    if "Authorization" in request.headers and request.path.startswith("/storage"):
        raise Refused(400, "Only one auth mechanism allowed: a token was sent to the storage")
    if request.params["upload"] not in hub.uploads:
        raise Refused(403, "Request has expired or its signature does not match")
    return hub.uploads[request.params["upload"]]


def whole(hub: Hub, request: Request) -> Answer:
    _keep(hub, _named(hub, request), request.body)
    return Answer()


def one_part(hub: Hub, request: Request) -> Answer:
    upload, number = _named(hub, request), request.params["part"]
    if not number.isdecimal() or not 1 <= int(number) <= upload.count:
        raise Refused(404, f"No part {number}")
    upload.parts[int(number)] = request.body
    return Answer(headers={"ETag": _etag(request.body)})


def complete(hub: Hub, request: Request) -> Answer:
    upload = _named(hub, request)
    wanted = [{"partNumber": n, "etag": _etag(part)} for n, part in sorted(upload.parts.items())]
    if len(wanted) != upload.count or request.json.get("parts") != wanted:
        raise Refused(400, f"Parts are missing or differ: {len(wanted)} of {upload.count} are here")
    _keep(hub, upload, b"".join(upload.parts[n] for n in sorted(upload.parts)))
    return in_json({})


def _etag(part: bytes) -> str:
    return f'"{hashlib.md5(part).hexdigest()}"'


def _keep(hub: Hub, upload: Upload, content: bytes) -> None:
    """Keep a complete file, if it is the announced one."""
    if len(content) != upload.size or hashlib.sha256(content).hexdigest() != upload.oid:
        raise Refused(400, f"The content differs from what was announced: {upload.oid}")
    hub.received[upload.oid] += 1
    hub.store.put(upload.oid, content)
    upload.repo.objects[upload.oid] = upload.size


def verify(hub: Hub, request: Request) -> Answer:
    repo = access.writable(hub, request)
    if repo.objects.get(request.json.get("oid", "")) != request.json.get("size", ""):
        raise Refused(404, "The object does not exist, or has another size")
    return in_json({})


ROUTES = (
    Route("POST", "/{prefix}{repo}.git/info/lfs/objects/batch", batch, upload=True),
    Route("POST", "/{prefix}{repo}.git/info/lfs/verify", verify, upload=True),
    Route("POST", "/api/complete_multipart/{upload}", complete, upload=True),
    Route("PUT", "/storage/uploads/{upload}", whole, upload=True),
    Route("PUT", "/storage/uploads/{upload}/{part}", one_part, upload=True),
)
