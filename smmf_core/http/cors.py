"""What browsers of other origins are told (the Fetch standard's CORS protocol); nothing by default.

Owns these header lines; must not know routes or keys: refusals carry the lines, too.
"""

from __future__ import annotations

from collections.abc import Iterable

from smmf_core.http.request import Request

_MAX_AGE_S = 600  # above it Chromium does not go
_ALLOWED = (
    b"access-control-allow-origin: %b\r\n"
    b"access-control-expose-headers: x-request-id, request-id, x-smmf-instance, retry-after, "
    b"x-should-retry, openai-processing-ms, "
    b"x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, "
    b"anthropic-ratelimit-requests-limit, anthropic-ratelimit-requests-remaining, "
    b"anthropic-ratelimit-requests-reset, anthropic-ratelimit-tokens-limit, "
    b"anthropic-ratelimit-tokens-remaining, anthropic-ratelimit-tokens-reset\r\n"
    b"vary: origin\r\n"
)
_PREFLIGHT = (
    b"access-control-allow-methods: GET, HEAD, POST, OPTIONS\r\n"
    b"access-control-allow-headers: %b\r\n"
    b"access-control-max-age: %d\r\n"
)


class Cors:
    """`origins` as configured: `scheme://host:port`, or `*` for any."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.encode() for origin in origins)

    def lines(self, request: Request) -> bytes:
        """Of any answer; none where no origin is allowed, or the request names none."""
        origin = request.headers.get(b"origin")
        if origin is None or not (origin in self._origins or b"*" in self._origins):
            return b""
        return _ALLOWED % origin

    def preflight(self, request: Request) -> bytes:
        """What a preflight asks for: SDKs send headers of many names, so those are reflected."""
        wanted = request.headers.get(b"access-control-request-headers", b"*")
        return _PREFLIGHT % (wanted, _MAX_AGE_S)
