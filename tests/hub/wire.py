"""Requests, answers and refusals in the words of the Hub. Serves no route itself.

A route is a method, a pattern and a function. `{kind}` in a pattern is `models`, `datasets` or
`spaces`. `{prefix}` is the start of addresses of pages and files: nothing, `datasets/` or
`spaces/`. `{repo}` is `owner/name`. `{rest}` may contain slashes. Other words are one part of the
path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    from tests.hub.server import Hub

PATTERNS = {
    "kind": "models|datasets|spaces",
    "prefix": "(?:datasets/|spaces/)?",
    "repo": "[^/]+(?:/[^/]+)?",
    "rest": ".+",
}


@dataclass
class Answer:
    """A status, a body and headers. `Content-Length` is added later."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def in_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """The value as JSON."""
    named = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return Answer(status, json.dumps(value).encode(), named)


class Refused(Exception):  # noqa: N818 - reads as a sentence: raise Refused(404, ...)
    """Ends a request with a status and a message. Clients choose their exception by `code`."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> None:
        super().__init__(message)
        said = message.replace("\n", " ").encode("ascii", "replace").decode()
        named = {"X-Error-Message": said, **({"X-Error-Code": code} if code else {})}
        self.answer = in_json({"error": message, **body}, status, {**named, **(headers or {})})


@dataclass
class Request:
    """One request with its whole body. `params` are the words of the pattern."""

    method: str
    path: str  # as sent: percent-encoded, without the query
    query: dict[str, list[str]]
    headers: Message
    body: bytes
    params: dict[str, str] = field(default_factory=dict)

    @property
    def token(self) -> str | None:
        """The token in `Authorization: Bearer`, None without one."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if scheme.lower() == "bearer" else None

    @property
    def repo_type(self) -> str:
        """`model`, `dataset` or `space`, from the `kind` or the `prefix` in a path."""
        said = self.params.get("kind") or self.params.get("prefix") or "models"
        return said.rstrip("/").removesuffix("s")

    @cached_property
    def json(self) -> dict[str, Any]:
        """The body, which must be a JSON object."""
        try:
            value = json.loads(self.body)
        except ValueError as error:
            raise Refused(400, f"Invalid JSON: {error}") from None
        if not isinstance(value, dict):
            raise Refused(400, "Invalid JSON: expected an object")
        return value

    @cached_property
    def form(self) -> dict[str, list[str]]:
        """The body as a form."""
        is_form = self.headers.get("Content-Type", "").startswith("application/x-www-form")
        return parse_qs(self.body.decode()) if is_form else {}

    def asks(self, word: str) -> bool:
        """Whether a flag of the query or the form is set."""
        said = (self.query.get(word) or self.form.get(word) or [""])[0]
        return said.lower() in {"1", "true"}


Function = Callable[["Hub", Request], Answer]


@dataclass(frozen=True)
class Route:
    """A function for a method and a path. `Hub.delay` slows down routes with `upload`."""

    method: str
    pattern: str
    answer: Function
    upload: bool = False

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """The regular expression for an encoded path. An encoded slash separates no parts."""
        parts = re.split(r"\{(\w+)\}", self.pattern)
        words = [f"(?P<{word}>{PATTERNS.get(word, '[^/]+')})" for word in parts[1::2]]
        fixed = [re.escape(part) for part in parts[::2]]
        return re.compile("".join(a + b for a, b in zip(fixed, [*words, ""], strict=True)))

    def match(self, request: Request) -> bool:
        """Whether this route answers the request; sets the `params` of the request."""
        if self.method != request.method and (self.method, request.method) != ("GET", "HEAD"):
            return False
        if found := self.regex.fullmatch(request.path):
            request.params = {word: unquote(said) for word, said in found.groupdict().items()}
        return found is not None


def asked_range(request: Request, size: int) -> range | None:
    """The bytes of a content that `Range` names; None without a range."""
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if not asked or asked.groups() == ("", ""):
        return None
    first, last = asked.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last) + 1, size) if first and last else size
    return range(start, stop)


def ranged(request: Request, content: bytes, headers: Mapping[str, str]) -> Answer:
    """The content, or the requested range of it; 416 for an empty range."""
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    asked = asked_range(request, len(content))
    if asked is None:
        return Answer(200, content, headers)
    if not asked:
        return Answer(416, b"", {**headers, "Content-Range": f"bytes */{len(content)}"})
    span = f"bytes {asked.start}-{asked.stop - 1}/{len(content)}"
    return Answer(206, content[asked.start : asked.stop], {**headers, "Content-Range": span})
