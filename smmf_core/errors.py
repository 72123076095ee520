"""Every error a client can see: its code, HTTP status, OpenAI type, and whether to retry.

Owns the vocabulary; must not know where an error came from or how it is sent.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Kind(NamedTuple):
    """What is fixed for all errors of one code."""

    status: int
    type: str
    retry: bool  # a second try of the same request may succeed


_INVALID = "invalid_request_error"
_SERVER = "server_error"

KINDS: dict[str, Kind] = {
    "invalid_json": Kind(400, _INVALID, False),
    "missing_required_parameter": Kind(400, _INVALID, False),
    "invalid_type": Kind(400, _INVALID, False),
    "invalid_value": Kind(400, _INVALID, False),
    "decimal_above_max_value": Kind(400, _INVALID, False),
    "decimal_below_min_value": Kind(400, _INVALID, False),
    "integer_above_max_value": Kind(400, _INVALID, False),
    "integer_below_min_value": Kind(400, _INVALID, False),
    "array_above_max_length": Kind(400, _INVALID, False),
    "empty_array": Kind(400, _INVALID, False),
    "unsupported_parameter": Kind(400, _INVALID, False),
    "unsupported_value": Kind(400, _INVALID, False),
    "context_length_exceeded": Kind(400, _INVALID, False),
    "previous_response_not_found": Kind(400, _INVALID, False),
    "poison_request": Kind(400, _INVALID, False),
    "bad_request": Kind(400, _INVALID, False),
    "invalid_api_key": Kind(401, _INVALID, False),
    "permission_denied": Kind(403, _INVALID, False),
    "model_not_found": Kind(404, _INVALID, False),
    "instance_not_found": Kind(404, _INVALID, False),
    "key_not_found": Kind(404, _INVALID, False),
    "response_not_found": Kind(404, _INVALID, False),
    "unknown_url": Kind(404, _INVALID, False),
    "method_not_supported": Kind(405, _INVALID, False),
    "request_timeout": Kind(408, _INVALID, True),
    "conflict": Kind(409, _INVALID, False),
    "request_too_large": Kind(413, _INVALID, False),
    "uri_too_long": Kind(414, _INVALID, False),
    "unsupported_media_type": Kind(415, _INVALID, False),
    "expectation_failed": Kind(417, _INVALID, False),
    "queue_full": Kind(429, "rate_limit_error", True),
    "rate_limit_exceeded": Kind(429, "rate_limit_error", True),
    "budget_exhausted": Kind(429, "insufficient_quota", False),
    "headers_too_large": Kind(431, _INVALID, False),
    "internal_error": Kind(500, _SERVER, True),
    "not_implemented": Kind(501, _SERVER, False),
    "worker_lost": Kind(502, _SERVER, True),
    "upstream_error": Kind(502, _SERVER, True),
    "model_loading": Kind(503, _SERVER, True),
    "model_unavailable": Kind(503, _SERVER, True),
    "queue_timeout": Kind(503, _SERVER, True),
    "deadline_unmeetable": Kind(503, _SERVER, False),
    "registry_unavailable": Kind(503, _SERVER, True),
    "server_draining": Kind(503, _SERVER, True),
    "inference_timeout": Kind(504, _SERVER, True),
    "http_version_not_supported": Kind(505, _SERVER, False),
}

_RETRIED = frozenset({408, 409, 429})  # by the official SDKs, beside all of 500 and above
_NAMELESS = frozenset({"invalid_json"})  # OpenAI's answer to it has no code

RETRY_AFTER_MAX_S = 60  # the Node SDK sleeps whatever it is told; the Python SDK gives up above 120


class ApiError(Exception):
    """An error with everything its answer needs.

    `code` is a key of KINDS. `param` names the request's field, as `messages[0].content`.
    `retry_after_s` becomes a `Retry-After` header, rounded up, at most 60. `may_retry` False: this
    one will fail again, though others of its code may not.
    """

    def __init__(
        self,
        code: str,
        message: str,
        param: str | None = None,
        retry_after_s: float | None = None,
        may_retry: bool = True,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.may_retry = may_retry

    @property
    def kind(self) -> Kind:
        return KINDS[self.code]

    @property
    def status(self) -> int:
        return KINDS[self.code].status

    @property
    def told(self) -> str:
        """The message, with the parameter in it: for envelopes that have no field for that."""
        param = self.param
        is_named = not param or f"'{param}'" in self.message or f"{param}: " in self.message
        return self.message if is_named else f"{param}: {self.message}"

    def body(self) -> bytes:
        """OpenAI's error envelope as JSON (openai-openapi `ErrorResponse`: all four keys)."""
        return envelope(self.code, self.message, self.param)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What goes with the envelope: `Retry-After`, `x-should-retry`, `WWW-Authenticate`."""
        headers: list[tuple[bytes, bytes]] = []
        kind = self.kind
        if self.retry_after_s is not None:
            seconds = min(RETRY_AFTER_MAX_S, max(1, -int(-self.retry_after_s // 1)))
            headers.append((b"retry-after", b"%d" % seconds))
        may_retry = kind.retry and self.may_retry
        if not may_retry and (kind.status >= 500 or kind.status in _RETRIED):
            headers.append((b"x-should-retry", b"false"))
        if kind.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers

    def header_lines(self) -> bytes:
        """`headers` as they stand in an HTTP head."""
        return b"".join([b"%b: %b\r\n" % header for header in self.headers()])


class ConfigError(Exception):
    """A wrong configuration. The message names file, line and key."""


class ControlError(Exception):
    """A command that the Controller cannot carry out; the message is for the operator."""


class CannotStart(ControlError):
    """A process that no further try would bring up; the message says what helps."""


def envelope(code: str, message: str, param: str | None) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}` as JSON bytes."""
    shown = None if code in _NAMELESS else code
    error = {"message": message, "type": KINDS[code].type, "param": param, "code": shown}
    return msgspec.json.encode({"error": error})
