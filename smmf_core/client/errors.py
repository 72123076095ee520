"""What a call of the client library may raise.

Owns the classes and which of the server's errors is which; must not know sockets.
"""

from __future__ import annotations

from typing import Any

import msgspec


class ClientError(Exception):
    """Base of everything that this library raises of its own."""


class ConnectionLost(ClientError):
    """No server is there, or it went away before the answer's end: another try may succeed."""


class Timeout(ClientError):
    """The answer, or the next part of a stream, did not come in time. It was cancelled."""


class Cancelled(ClientError):
    """The stream was cancelled, or its client closed, while it was being read."""


class Protocol(ClientError):
    """Client and server do not understand each other: of other versions, or a wrong server key, or
    it is no smmf server at all."""


class RequestError(ClientError):
    """The server said no. `code` is one of errors.KINDS, `param` names the request's field."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.request_id = request_id


class BadRequest(RequestError):
    """Something is wrong with the request: `param` names it where it is one field."""


class Unauthorized(RequestError):
    """No key, a wrong one, or one that may not do this."""


class NotFound(RequestError):
    """There is no such model."""


class RateLimited(RequestError):
    """Too much at once: `retry_after_s` tells when to come again."""


class ServerFailed(RequestError):
    """The server could not: a model that is not up, a Worker lost, a time-out of its own."""


class _Said(msgspec.Struct):
    message: str = ""
    code: str | None = None
    param: str | None = None


class _Envelope(msgspec.Struct):
    error: _Said


_decode = msgspec.json.Decoder(_Envelope).decode
_BY_STATUS: dict[int, type[RequestError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    429: RateLimited,
}


def refused(status: int, body: bytes, headers: dict[str, str] | None = None) -> RequestError:
    """The exception for an error envelope. `status` 0: it came in a stream; the code tells."""
    headers = headers or {}
    try:
        said = _decode(body).error
    except msgspec.MsgspecError:
        said = _Said(body[:200].decode("utf-8", "replace"))
    code = said.code or "internal_error"
    status = status or _status_of(code)
    kind = _BY_STATUS.get(status) or (BadRequest if status < 500 else ServerFailed)
    wait: Any = headers.get("retry-after")
    retry_after_s = float(wait) if wait is not None else None
    request_id = headers.get("x-request-id", "")
    return kind(status, code, said.message, said.param, retry_after_s, request_id)


def _status_of(code: str) -> int:
    from smmf_core.errors import KINDS

    return KINDS[code].status if code in KINDS else 500
