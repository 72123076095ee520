"""Who may ask what, and what of it is counted: the Router's copy of the keys, without HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from smmf_core.api import anthropic
from smmf_core.control_messages import KeyEntry, Keys, ModelEntry, UsageDelta
from smmf_core.errors import ApiError
from smmf_core.http.rate_lines import tell_left
from smmf_core.keys import digest, month_of
from smmf_core.messages import Usage
from smmf_core.native._limits import LimitTable
from smmf_core.router.call import Call, Connection, End
from smmf_core.router.keys import Key, KeyRing
from smmf_core.router.usage import Ledger

NOW = 1_800_000_000  # 2027-01-15 08:00:00 UTC
MODEL = ModelEntry(
    index=0, name="m", aliases=["fast", "org/m"], task="generate", backend="echo", state="ready",
    reason="", created=1, context_length=100, strategy="round_robin", max_queue=0,
    max_queue_tokens=0, defaults={}, capabilities=[], adapters=["law", "tax"],
)  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Iterator[LimitTable]:
    fd = os.open(tmp_path / "limits", os.O_RDWR | os.O_CREAT)
    yield LimitTable.create(fd)
    os.close(fd)


def entry(text: bytes = b"sk-1", slot: int = 0, **fields: Any) -> KeyEntry:
    fields.setdefault("roles", ["inference"])
    return KeyEntry(id=f"key{slot}", slot=slot, digest=digest(text), **fields)


def ring_of(table: LimitTable, *entries: KeyEntry, unknown: str = "") -> KeyRing:
    ring = KeyRing(1)
    ring.update(Keys(1, list(entries), bool(entries), unknown), table)
    return ring


def key_of(table: LimitTable, **fields: Any) -> Key:
    return ring_of(table, entry(**fields)).find(b"sk-1", NOW)


def refusal(of: Any, *args: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        of(*args)
    return caught.value


def call_of(key: Key | None, errors: Any = None) -> Call:
    call = Call(cast(Connection, None), b"id", b"", 0.0, errors)
    call.key, call.base_model, call.is_for_worker = key, "m", True
    return call


def lines_of(call: Call) -> dict[str, str]:
    lines = call.headers.decode().splitlines()
    return dict(cast(tuple[str, str], tuple(line.split(": ", 1))) for line in lines)


# --- who ---


def test_without_keys_none_is_needed(table: LimitTable) -> None:
    assert not KeyRing().is_needed
    assert not ring_of(table).is_needed
    assert ring_of(table, entry()).is_needed


def test_a_key_is_found_by_its_text(table: LimitTable) -> None:
    ring = ring_of(table, entry(b"sk-1", 0), entry(b"sk-2", 1))
    assert ring.find(b"sk-2", NOW).id == "key1"
    assert ring.find(b"sk-2", NOW).tenant == 2
    for presented, said in ((b"sk-3", "Incorrect"), (b"", "did not provide")):
        error = refusal(ring.find, presented, NOW)
        assert (error.status, error.code) == (401, "invalid_api_key")
        assert said in error.message
        assert b"www-authenticate: Bearer" in error.header_lines()
    assert refusal(ring_of(table, entry(b"", 0)).find, b"", NOW).status == 401  # nobody's key
    ring.update(Keys(2, [entry(b"sk-2", 1)], required=True), table)
    assert refusal(ring.find, b"sk-1", NOW).code == "invalid_api_key"


def test_a_key_expires(table: LimitTable) -> None:
    ring = ring_of(table, entry(expires_at=NOW + 0.5))
    assert ring.find(b"sk-1", NOW).id == "key0"
    error = refusal(ring.find, b"sk-1", NOW + 1)
    assert error.code == "invalid_api_key"
    assert "2027-01-15T08:00:00+00:00" in error.message


def test_while_keys_are_unknown_only_those_that_are_known_get_in(table: LimitTable) -> None:
    ring = ring_of(table, entry(), unknown="the database does not answer")
    assert ring.find(b"sk-1", NOW).id == "key0"
    error = refusal(ring.find, b"sk-3", NOW)
    assert (error.status, error.message) == (503, "the database does not answer")
    assert ring_of(table, unknown="no").is_needed


@pytest.mark.parametrize(
    ("roles", "may_get", "may_post"),
    [(["inference"], True, True), (["admin"], True, True), (["read"], True, False),
     (["read", "inference"], True, True), ([], False, False)],
)  # fmt: skip
def test_roles(table: LimitTable, roles: list[str], may_get: bool, may_post: bool) -> None:
    key = key_of(table, roles=roles)
    for method, may in (("GET", may_get), ("HEAD", may_get), ("POST", may_post)):
        if may:
            key.check_method(method)
        else:
            assert refusal(key.check_method, method).status == 403


@pytest.mark.parametrize(
    ("models", "allowed"),
    [
        ([], ["m", "fast", "org/m", "m:law", "m:tax"]),
        (["other", "m"], ["m", "fast", "org/m", "m:law", "m:tax"]),
        (["m:latest"], ["m", "fast", "org/m", "m:law", "m:tax"]),
        (["org/m"], ["m", "fast", "org/m", "m:law", "m:tax"]),
        (["m:law"], ["m:law"]),
        (["fast:tax"], ["m:tax"]),
        (["other"], []),
    ],
)
def test_models(table: LimitTable, models: list[str], allowed: list[str]) -> None:
    key = key_of(table, models=models)
    assert list(key.names(MODEL)) == allowed
    assert key.may_ask(MODEL) == ("m" in allowed)
    if "m:tax" not in allowed:
        error = refusal(key.check_model, MODEL, "tax")
        assert (error.status, error.code) == (403, "permission_denied")
        assert (error.param, "'m:tax'" in error.message) == ("model", True)


# --- limits ---


def test_what_is_taken_is_settled(table: LimitTable) -> None:
    key = key_of(table, requests_per_minute=2, tokens_per_minute=100, max_concurrency=1)
    admission = key.take("m", 60, NOW)
    assert table.state(0, NOW) == (1, 60, 1, 60, 60)
    admission.settle(25, NOW + 3)
    assert table.state(0, NOW + 3, month_of(NOW)) == (1, 25, 0, 57, 25)


def test_each_refusal_says_the_numbers(table: LimitTable) -> None:
    requests = key_of(table, requests_per_minute=1)
    requests.take("m", 1, NOW).settle(1, NOW)
    error = refusal(requests.take, "m", 1, NOW + 20)
    assert (error.status, error.code, error.retry_after_s) == (429, "rate_limit_exceeded", 40)
    assert "(RPM): Limit 1, Used 1, Requested 1. Please try again in 40s." in error.message
    table.forget(0)
    tokens = key_of(table, tokens_per_minute=100)
    tokens.take("m", 70, NOW)
    error = refusal(tokens.take, "m", 31, NOW)
    assert "(TPM): Limit 100, Used 70, Requested 31." in error.message
    assert error.headers() == [(b"retry-after", b"60")]
    error = refusal(tokens.take, "m", 101, NOW)  # it never will be less
    assert "Limit 100, Requested 101." in error.message
    assert error.headers() == [(b"x-should-retry", b"false")]
    table.forget(0)
    open_ = key_of(table, max_concurrency=1)
    open_.take("m", 1, NOW)
    error = refusal(open_.take, "m", 1, NOW)
    assert "concurrent requests: Limit 1, Used 1, Requested 1." in error.message
    assert error.retry_after_s == 1
    table.forget(0)
    table.add_month(0, month_of(NOW), 90)
    budget = key_of(table, monthly_tokens=100)
    error = refusal(budget.take, "m", 11, NOW)
    assert (error.status, error.code) == (429, "budget_exhausted")
    assert error.kind.type == "insufficient_quota"
    assert "Limit 100 tokens, Used 90, Requested 11. It begins anew on 2027-02-01" in error.message
    assert error.headers() == [(b"x-should-retry", b"false")]


def test_openais_clients_are_told_what_is_left(table: LimitTable) -> None:
    key = key_of(table, requests_per_minute=20, tokens_per_minute=100)
    call = call_of(key)
    key.take("m", 30, NOW)
    tell_left(call, NOW)
    tell_left(call, NOW)
    assert lines_of(call) == {
        "x-ratelimit-limit-requests": "20",
        "x-ratelimit-remaining-requests": "19",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "70",
        "x-ratelimit-reset-tokens": "1m0s",
    }
    assert len(call.headers.splitlines()) == 6
    later = call_of(key)
    tell_left(later, NOW + 59)
    assert lines_of(later)["x-ratelimit-reset-tokens"] == "1s"


def test_anthropics_clients_are_told_in_their_own_words(table: LimitTable) -> None:
    key = key_of(table, requests_per_minute=20)
    call = call_of(key, anthropic.ERRORS)
    key.take("m", 30, NOW)
    tell_left(call, NOW + 15)
    assert lines_of(call) == {
        "anthropic-ratelimit-requests-limit": "20",
        "anthropic-ratelimit-requests-remaining": "19",
        "anthropic-ratelimit-requests-reset": "2027-01-15T08:01:00Z",
    }


def test_a_key_without_such_limits_is_told_nothing(table: LimitTable) -> None:
    for call in (call_of(None), call_of(key_of(table, max_concurrency=4, monthly_tokens=9))):
        tell_left(call, NOW)
        assert call.headers == b""


# --- what is used ---


def test_an_end_settles_and_counts_once(table: LimitTable) -> None:
    ledger, key = Ledger(), key_of(table, tokens_per_minute=1000)
    call = call_of(key)
    call.admission = key.take("m", 500, NOW)
    for _ in range(2):
        ledger.ended(call, End(1.0, 200, "stop", Usage(10, 32, 4)), NOW)
    assert table.state(0, NOW)[1:3] == (42, 0)
    assert ledger.take() == [UsageDelta("key0", "m", 1, 0, 10, 4, 32)]
    assert ledger.take() == []


@pytest.mark.parametrize(("status", "errors"), [(200, 0), (499, 0), (400, 1), (429, 1), (503, 1)])
def test_what_is_an_error(status: int, errors: int) -> None:
    ledger = Ledger()
    ledger.ended(call_of(None), End(1.0, status, "", Usage(3, 1)), NOW)
    assert ledger.take() == [UsageDelta("", "m", 1, errors, 3, 0, 1)]


def test_what_no_worker_was_to_answer_is_not_counted() -> None:
    ledger, call = Ledger(), call_of(None)
    call.is_for_worker = False
    ledger.ended(call, End(1.0, 200, "", Usage(0, 0)), NOW)
    assert ledger.take() == []


def test_what_cannot_be_told_is_told_later() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.ended(call_of(None), End(1.0, 500, "", Usage(3, 2, 1)), NOW)
        ledger.put_back(ledger.take())
    assert ledger.take() == [UsageDelta("", "m", 3, 3, 9, 3, 6)]
