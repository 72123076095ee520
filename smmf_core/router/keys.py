"""Who asks: the API keys as the Controller told them, what each may do, and what it has left.

Pure: time is a parameter. Owns this Router's copy of the keys; what they have used is in the table
of limits, which all Routers share. Must not know HTTP or queues.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from smmf_core.control_messages import KeyEntry, Keys, ModelEntry
from smmf_core.errors import ApiError
from smmf_core.keys import digest, first_day_after, month_of
from smmf_core.native._limits import LimitTable
from smmf_core.router.fleet import other_form

_OPEN_RETRY_S = 1.0  # how soon one of a key's requests may have ended
_BY_REQUESTS, _BY_TOKENS, _BY_OPEN = 1, 2, 3  # of LimitTable.take; else by the month's tokens


class Left(msgspec.Struct, gc=False):
    """What is left of one limit of a minute."""

    limit: int
    remaining: int
    reset_s: int  # until the window is over; 0: nothing of it is used


class Admission:
    """What one open request has taken of its key's limits; `settle` ends it."""

    __slots__ = ("_at_s", "_month", "_reserved", "_router", "_slot", "_table")

    def __init__(
        self, table: LimitTable, slot: int, router: int, at_s: int, month: int, reserved: int
    ) -> None:
        self._table = table
        self._slot = slot
        self._router = router
        self._at_s = at_s
        self._month = month
        self._reserved = reserved

    def settle(self, used: int, now_s: int) -> None:
        """It is over, and has used so many tokens. Once."""
        self._table.settle(
            self._slot, now_s, self._at_s, self._reserved, used, self._month, self._router
        )


class Key:
    """One key. `table`: where it is counted."""

    def __init__(self, entry: KeyEntry, table: LimitTable, router: int) -> None:
        self.id = entry.id
        self.tenant = entry.slot + 1  # 0 is who has no key
        self.digest = entry.digest
        self.expires_at = entry.expires_at
        self.has_rates = bool(entry.requests_per_minute or entry.tokens_per_minute)
        self._entry = entry
        self._may_post = "inference" in entry.roles or "admin" in entry.roles
        self._may_get = self._may_post or "read" in entry.roles
        self._models = frozenset((*entry.models, *map(other_form, entry.models)))
        self._table = table
        self._router = router

    def check_method(self, method: str) -> None:
        """Whether one of its roles has a right to it on the inference port. Raises ApiError 403."""
        if not (self._may_get if method in ("GET", "HEAD") else self._may_post):
            text = f"The API key {self.id} has no role that may {method} here."
            raise ApiError("permission_denied", text)

    def may_ask(self, model: ModelEntry, adapter: str = "") -> bool:
        """A model is named by its name or an alias; then its adapters are, too."""
        if not self._models or self._has(model.name, *model.aliases):
            return True
        names = (model.name, *model.aliases)
        return bool(adapter) and self._has(*(f"{name}:{adapter}" for name in names))

    def names(self, model: ModelEntry) -> Iterator[str]:
        """What it may ask for of a model: names, aliases, adapters."""
        if self.may_ask(model):
            yield model.name
            yield from model.aliases
        for adapter in model.adapters:
            if self.may_ask(model, adapter):
                yield f"{model.name}:{adapter}"

    def check_model(self, model: ModelEntry, adapter: str) -> None:
        """Raises ApiError 403."""
        if not self.may_ask(model, adapter):
            asked = f"{model.name}:{adapter}" if adapter else model.name
            text = f"The API key {self.id} may not use the model '{asked}'."
            raise ApiError("permission_denied", text, "model")

    def take(self, model: str, tokens: int, now_s: int) -> Admission:
        """Take one request with so many tokens. Raises ApiError 429 with the limit that it meets,
        and then nothing is taken."""
        entry, table, month = self._entry, self._table, month_of(now_s)
        met = table.take(
            entry.slot, now_s, entry.requests_per_minute, entry.tokens_per_minute,
            entry.max_concurrency, entry.monthly_tokens, month, tokens, self._router,
        )  # fmt: skip
        if met:
            raise self._refusal(met, model, tokens, now_s)
        return Admission(table, entry.slot, self._router, now_s, month, tokens)

    def left(self, now_s: int) -> tuple[Left | None, Left | None]:
        """Of the requests and of the tokens of a minute; None where there is no limit."""
        requests, requests_reset_s, tokens, tokens_reset_s = self._table.windows(
            self._entry.slot, now_s
        )
        return (
            _left(self._entry.requests_per_minute, requests, requests_reset_s),
            _left(self._entry.tokens_per_minute, tokens, tokens_reset_s),
        )

    def _has(self, *names: str) -> bool:
        return not self._models.isdisjoint(names)

    def _refusal(self, met: int, model: str, tokens: int, now_s: int) -> ApiError:
        """In the words of OpenAI's own."""
        entry, (requests, minute) = self._entry, self.left(now_s)
        _, _, used_open, _, spent = self._table.state(entry.slot, now_s, month_of(now_s))
        of = f"for API key {self.id} in model {model}"
        if met == _BY_REQUESTS and requests is not None:
            return _rate_limited(of, "requests per min (RPM)", requests, 1)
        if met == _BY_TOKENS and minute is not None:
            if tokens > minute.limit:
                text = (
                    f"Request too large {of} on tokens per min (TPM): Limit {minute.limit}, "
                    f"Requested {tokens}. Its input or its max_tokens must be reduced."
                )
                return ApiError("rate_limit_exceeded", text, may_retry=False)
            return _rate_limited(of, "tokens per min (TPM)", minute, tokens)
        if met == _BY_OPEN:
            text = (
                f"Rate limit reached {of} on concurrent requests: Limit {entry.max_concurrency}, "
                f"Used {used_open}, Requested 1. Please try again when one has ended."
            )
            return ApiError("rate_limit_exceeded", text, retry_after_s=_OPEN_RETRY_S)
        text = (
            f"The monthly budget of API key {self.id} does not suffice: Limit "
            f"{entry.monthly_tokens} tokens, Used {spent}, Requested {tokens}. It begins anew on "
            f"{first_day_after(now_s)} (UTC)."
        )
        return ApiError("budget_exhausted", text)


class KeyRing:
    """All keys. Until the first `update` there are none, and none is needed."""

    def __init__(self, router: int = 0) -> None:
        self._router = router
        self._keys: dict[bytes, Key] = {}
        self._unknown = ""
        self.is_needed = False  # by anyone who asks

    def update(self, keys: Keys, table: LimitTable) -> None:
        """Take over a new version. Requests that are open go on with the key that they had."""
        self._keys = {e.digest: Key(e, table, self._router) for e in keys.entries}
        self._unknown = keys.unknown
        self.is_needed = keys.required or bool(keys.unknown)

    def find(self, presented: bytes, now_s: int) -> Key:
        """Whose key that is. Raises ApiError: 1 nobody's, 503 while not all keys are known, else
        401; 2 it has expired. The lookup is by hash: how long it takes tells nothing of a key."""
        given = digest(presented)
        key = self._keys.get(given) if presented else None
        if key is None or not hmac.compare_digest(key.digest, given):  # 1
            if self._unknown:
                raise ApiError("registry_unavailable", self._unknown, retry_after_s=1)
            what = "Incorrect API key provided." if presented else "You did not provide an API key."
            raise ApiError("invalid_api_key", what)
        if key.expires_at and now_s >= key.expires_at:  # 2
            when = datetime.fromtimestamp(key.expires_at, UTC).isoformat(timespec="seconds")
            raise ApiError("invalid_api_key", f"The API key {key.id} expired at {when}.")
        return key


def _left(limit: int, used: int, reset_s: int) -> Left | None:
    return Left(limit, max(0, limit - used), reset_s) if limit else None


def _rate_limited(of: str, what: str, left: Left, wanted: int) -> ApiError:
    text = (
        f"Rate limit reached {of} on {what}: Limit {left.limit}, Used "
        f"{left.limit - left.remaining}, Requested {wanted}. Please try again in {left.reset_s}s."
    )
    return ApiError("rate_limit_exceeded", text, retry_after_s=max(1, left.reset_s))
