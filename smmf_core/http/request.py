"""One HTTP request and the way to answer it.

Owned by the application from `on_request` until its response has ended. Must not parse.
"""

from __future__ import annotations

import itertools
import os
import string
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from smmf_core.api import anthropic, ollama, responses
from smmf_core.api.dialect import ErrorForm
from smmf_core.errors import ApiError
from smmf_core.http import coding

if TYPE_CHECKING:
    from smmf_core.http.protocol import HttpProtocol

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
_STATUS_LINES[529] = b"HTTP/1.1 529 Overloaded\r\n"  # Anthropic's
_NO_BODY = frozenset({204, 304})
_ID_CHARACTERS = (string.ascii_letters + string.digits + "._-").encode()
_ID_MAX = 128
_JOINED_BYTES = 1 << 18
_ANTHROPIC_PATHS = (b"/messages", b"/messages/count_tokens")
_RESPONSES_PATHS = (b"/responses", b"/responses/input_tokens")
_OPENAI_TARGETS = frozenset({b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings"})
_ids = itertools.count(int.from_bytes(os.urandom(6)))


def error_form(target: bytes, headers: Mapping[bytes, bytes]) -> ErrorForm | None:
    """How the client of a path knows errors; None: as OpenAI's do.

    Anthropic's say who they are: they know one form only, on any path.
    """
    if target in _OPENAI_TARGETS and anthropic.models.HEADER not in headers:  # nearly always
        return None
    path = target.partition(b"?")[0]
    if path.startswith(b"/api/") and not path.startswith(b"/api/v1/"):
        return ollama.ERRORS
    if path.endswith(_RESPONSES_PATHS):
        return responses.ERRORS
    is_anthropic = path.endswith(_ANTHROPIC_PATHS) or anthropic.models.HEADER in headers
    return anthropic.ERRORS if is_anthropic else None


class Request:
    """A complete request. `headers`: lower-case names, repeated ones joined by a comma."""

    __slots__ = (
        "answer",
        "body",
        "connection",
        "headers",
        "is_streaming",
        "keep_alive",
        "method",
        "refusal",
        "target",
        "version",
    )

    def __init__(self, connection: HttpProtocol) -> None:
        self.connection = connection
        self.method = ""
        self.target = b""
        self.version = "1.1"
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.keep_alive = True
        self.is_streaming = False
        self.answer: Any = None  # the application's
        self.refusal: ApiError | None = None  # what the protocol found wrong with it

    @property
    def path(self) -> str:
        """Percent-decoded, without the query; of an absolute URL too (RFC 9112, section 3.2.2)."""
        target = self.target.partition(b"?")[0]
        if not target.startswith(b"/") and b"://" in target:
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        path = target.decode("latin-1")
        return unquote(path) if "%" in path else path

    @property
    def fileno(self) -> int:
        return self.connection.fileno

    @property
    def chunked(self) -> bool:
        """HTTP/1.0 has no chunks: there the end of the connection ends the body."""
        return self.version == "1.1"

    @property
    def is_paused(self) -> bool:
        return self.connection.is_paused

    def id(self) -> bytes:
        """The client's x-request-id if it is harmless in logs, else a new one each time."""
        given = self.headers.get(b"x-request-id", b"")
        if 0 < len(given) <= _ID_MAX and not given.translate(None, _ID_CHARACTERS):
            return given
        return b"req_%x" % next(_ids)

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """A whole response, in one write unless it is long. `headers`: lines, each with its end."""
        if status not in _NO_BODY:
            headers = b"content-length: %d\r\n%b" % (len(body), headers)
        head = self._head(status, headers)
        is_bare = self.method == "HEAD" or status in _NO_BODY
        if is_bare or len(body) <= _JOINED_BYTES:
            self.connection.send(self, head if is_bare else head + body)
        else:  # a copy would cost more than a second write
            self.connection.send(self, head)
            self.connection.send(self, body)
        self.connection.on_response_end(self)

    def respond_error(self, error: ApiError, lines: bytes) -> None:
        """An error that the HTTP side found: the envelope every other error has too."""
        request_id, form = self.id(), error_form(self.target, self.headers)
        headers = b"content-type: application/json\r\nx-request-id: %b\r\n%b" % (request_id, lines)
        if error.code == "unsupported_media_type":
            headers += b"accept-encoding: %b\r\n" % coding.ACCEPTED
        headers += error.header_lines()
        if form is None:
            self.respond(error.status, headers, error.body())
        else:
            headers += form.headers(request_id)
            self.respond(form.status(error), headers, form.body(error, request_id.decode()))

    def head(self, status: int, headers: bytes) -> bytes:
        """The head of a streaming response, for whoever sends the stream."""
        if self.chunked:
            if self.keep_alive and not self.connection.is_draining:
                headers += b"connection: keep-alive\r\n"  # as OpenAI's streams say it
            return self._head(status, headers + b"transfer-encoding: chunked\r\n")
        self.keep_alive = False
        return self._head(status, headers)

    def begin_stream(self) -> None:
        self.is_streaming = True

    def write_raw(self, data: bytes) -> None:
        """Bytes that could not be sent natively."""
        self.connection.send(self, data)

    def end_stream(self, close: bool) -> None:
        """The stream's last byte has been handed over."""
        if close:
            self.keep_alive = False
        self.connection.on_response_end(self)

    def abort(self) -> None:
        self.connection.abort()

    def _head(self, status: int, headers: bytes) -> bytes:
        if not self.keep_alive or self.connection.is_draining:
            self.keep_alive = False
            headers += b"connection: close\r\n"
        elif self.version == "1.0":
            headers += b"connection: keep-alive\r\n"
        return b"%b%b\r\n" % (_STATUS_LINES[status], headers)
