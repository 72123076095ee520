"""The header lines that tell a client what is left of its key's limits.

Owns their names and forms, OpenAI's and Anthropic's; must not count.
"""

from __future__ import annotations

from datetime import UTC, datetime

from smmf_core.api import anthropic
from smmf_core.router.call import Call
from smmf_core.router.keys import Left

_WINDOW_S = 60
_RESETS = [b"%ds" % s if s < _WINDOW_S else b"1m0s" for s in range(_WINDOW_S + 1)]
_OPENAI = (
    b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b\r\n"
)
_ANTHROPIC = (
    b"anthropic-ratelimit-%b-limit: %d\r\nanthropic-ratelimit-%b-remaining: %d\r\n"
    b"anthropic-ratelimit-%b-reset: %b\r\n"
)


def tell_left(call: Call, now_s: int) -> None:
    """Add the lines to those of the call's answer; once, as it stands at its admission."""
    key = call.key
    if key is None or not key.has_rates or call.has_rate_lines:
        return
    call.has_rate_lines = True
    requests, tokens = key.left(now_s)
    line = _anthropic if call.errors is anthropic.ERRORS else _openai
    if requests is not None:
        call.headers += line(b"requests", requests, now_s)
    if tokens is not None:
        call.headers += line(b"tokens", tokens, now_s)


def _openai(what: bytes, left: Left, now_s: int) -> bytes:
    return _OPENAI % (what, left.limit, what, left.remaining, what, _RESETS[left.reset_s])


def _anthropic(what: bytes, left: Left, now_s: int) -> bytes:
    reset = datetime.fromtimestamp(now_s + left.reset_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _ANTHROPIC % (what, left.limit, what, left.remaining, what, reset.encode())
