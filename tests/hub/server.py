"""The Hub as a server on this machine: it reads requests, finds their routes and keeps a log.

GET    /api/telemetry/..., /api/agent-harnesses    404: clients do not need it

A request is answered under one lock, after its whole body has arrived. So no client sees half of a
change of another one, and a client that dies while it sends changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from tests.hub import cas, commits, lfs, reading, repositories
from tests.hub.access import Account, new_token
from tests.hub.faults import NO_ANSWER, Fault, Faults
from tests.hub.store import Blob, Repo, Store
from tests.hub.wire import Answer, Refused, Request, Route

ROUTES = (
    *repositories.ROUTES,
    *reading.ROUTES,
    *commits.ROUTES,
    *lfs.ROUTES,
    *cas.ROUTES,
    Route("GET", "/api/telemetry/{rest}", cas.not_served),
    Route("GET", "/api/agent-harnesses", cas.not_served),
)


@dataclass(frozen=True)
class Served:
    """One answered request. `token` is the name of the token."""

    method: str
    path: str
    status: int
    received: int
    token: str | None


class Hub:
    """A Hub with the users alice and bob. See `tests/hub/__init__.py` for its use in tests."""

    def __init__(self, folder: Path | None = None, port: int = 0) -> None:
        self.token, self.read_token, self.bob_token = new_token(), new_token(), new_token()
        self.accounts = {
            self.token: Account("alice", "alice-write"),
            self.read_token: Account("alice", "alice-read", "read"),
            self.bob_token: Account("bob", "bob-write"),
        }
        self.lock = threading.RLock()
        self.faults = Faults()
        self._secret = secrets.token_bytes(32)
        self._server = _Server(("127.0.0.1", port), _Connection)
        self._server.hub = self
        self.port = self._server.server_address[1]
        self.url, self.storage = f"http://127.0.0.1:{self.port}", f"http://localhost:{self.port}"
        self._folder = folder
        self._thread: threading.Thread | None = None
        self.reset()

    def reset(self) -> None:
        """Forget faults, the log, and all repositories that are not kept in a folder."""
        with self.lock:
            self.store = Store(self._folder)
            self.cas = cas.Cas()
            self.uploads: dict[str, lfs.Upload] = {}
            self.received: Counter[str] = Counter()
            self.log: list[Served] = []
            self.unknown: list[str] = []
            self.quota: int | None = None
            self.delay = 0.0
            self.faults.clear()

    def start(self) -> None:
        """Start to serve, in threads that end with this process."""
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        if self._thread:
            self._server.shutdown()
        self._server.server_close()

    def fail(
        self,
        method: str,
        pattern: str,
        status: int,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> None:
        """Answer the next requests whose path matches with this status; 0 means no answer."""
        said = body if body is not None else json.dumps({"error": "a fault"}).encode()
        self.faults.add(Fault(method, pattern, Answer(status, said, dict(headers or {})), times))

    def repo(self, repo_id: str, repo_type: str = "model") -> Repo:
        """A repository, also a private one."""
        return self.store.repos[repo_type, repo_id]

    def files(
        self, repo_id: str, repo_type: str = "model", revision: str = "main"
    ) -> dict[str, bytes]:
        """The files of a revision: path -> content."""
        commit = self.repo(repo_id, repo_type).find(revision)
        if commit is None:
            raise KeyError(revision)
        return {path: self.content(blob) for path, blob in commit.tree.items()}

    @property
    def sent(self) -> Counter[str]:
        """How often each content was received completely, by SHA-256 or, if small, git's SHA-1.

        Requests that a fault answered do not count.
        """
        with self.lock:
            xet = {file.sha256: self.cas.times(file) for file in self.cas.files.values()}
            return Counter(xet) + self.received

    def content(self, blob: Blob) -> bytes:
        """The bytes of a file."""
        return self.store.get(blob.oid)

    def page(self, repo_type: str, name: str) -> str:
        """The address of the page of a repository."""
        prefix = "" if repo_type == "model" else f"{repo_type}s/"
        return f"{self.url}/{prefix}{quote(name)}"

    def signed(self, path: str) -> str:
        """An address of the storage; it needs no token."""
        return f"{self.storage}{path}?signature={self._signature(path)}"

    def check_signature(self, request: Request) -> None:
        """Refuse addresses that the Hub did not sign, and requests that leak a token."""
        if "Authorization" in request.headers:
            raise Refused(400, "Only one auth mechanism allowed: a token was sent to the storage")
        said = request.query.get("signature", [""])[0]
        if not hmac.compare_digest(said, self._signature(request.path)):
            raise Refused(403, "Access denied")

    def _signature(self, path: str) -> str:
        return hmac.new(self._secret, path.encode(), hashlib.sha256).hexdigest()

    def answer(self, request: Request) -> Answer:
        """The answer to a request; it is logged."""
        answer = self.faults.take(request.method, request.path)
        if answer is None:
            try:
                answer = self._answer(request)
            except Refused as refused:
                answer = refused.answer
            except Exception:  # a bug of this Hub, or an unknown request
                traceback.print_exc()
                answer = Refused(500, "Internal Server Error").answer
        name = self.accounts[request.token].token_name if request.token in self.accounts else None
        size = len(request.body)
        self.log.append(Served(request.method, request.path, answer.status, size, name))
        return answer

    def _answer(self, request: Request) -> Answer:
        route = next((route for route in ROUTES if route.match(request)), None)
        if route is None:
            self.unknown.append(f"{request.method} {request.path}")
            raise Refused(404, "Sorry, we can't find the page you are looking for.")
        if route.upload:
            time.sleep(self.delay)
        with self.lock:
            answer = route.answer(self, request)
            if request.method not in {"GET", "HEAD"}:
                self.store.save()
        return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    hub: Hub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print errors, but not those of clients that were killed."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each answer waits for the client's delayed ACK
    wbufsize = -1  # head and body in one packet
    server: _Server

    def serve(self) -> None:
        body = self._body()
        if body is None:  # the client has closed the connection
            self.close_connection = True
            return
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        request = Request(self.command, url.path, query, self.headers, body)
        answer = self.server.hub.answer(request)
        if answer.status == NO_ANSWER:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self.wfile.flush()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815 - http.server wants it

    def _body(self) -> bytes | None:
        """The whole body, chunked or not; None if it ends early."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            size = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(size)
            return body if len(body) == size else None
        pieces = []
        while line := self.rfile.readline():
            size = int(line.split(b";")[0], 16)
            piece = self.rfile.read(size + 2)  # with the end of the line
            if len(piece) < size + 2:
                return None
            pieces.append(piece[:-2])
            if size == 0:
                return b"".join(pieces)
        return None

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing: requests are in `Hub.log`."""
