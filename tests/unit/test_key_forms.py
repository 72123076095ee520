"""New keys, and moments as operators write them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from smmf_core.keys import day_of, digest, first_day_of_month, month_of, new_key, wrong_keys
from smmf_core.store.asked import columns
from smmf_core.store.issue import KeyWanted, issue, row
from smmf_core.store.when import DAY_S, day, moment

NOW = 1_769_860_800.0  # 2026-01-31 12:00 UTC


def test_a_key_is_random_and_known_by_its_digest() -> None:
    made = [new_key() for _ in range(100)]
    assert len({key for _, key in made}) == len({name for name, _ in made}) == 100
    for name, key in made:
        assert key.startswith(f"sk-smmf-{name}-")
        assert len(name) == 8
        assert name.isalnum()
        assert name == name.lower()
        assert len(key) == len("sk-smmf-12345678-") + 43  # 32 bytes in base64
    record, key = issue(KeyWanted(), NOW)
    assert record.digest == digest(key.encode())
    assert len(record.digest) == 32
    assert key not in repr(record)
    assert key not in repr(row(record, {}, NOW))


@pytest.mark.parametrize("key", ["", " ", " mine", "mine\n", "mi\tne"])
def test_keys_that_no_header_brings(key: str) -> None:
    assert wrong_keys(["schl\u00fcssel", key]).startswith("a key is not empty")
    assert wrong_keys(["schl\u00fcssel"]) == wrong_keys([]) == ""


def test_days_and_months_are_utcs() -> None:
    assert (day_of(NOW), first_day_of_month(NOW)) == ("2026-01-31", "2026-01-01")
    assert day_of(NOW + 43_199) == "2026-01-31"
    assert day_of(NOW + 43_200) == "2026-02-01"
    assert month_of(NOW + 43_200) == month_of(NOW) + 1
    assert month_of(NOW) == 2026 * 12


@pytest.mark.parametrize(
    ("text", "ahead", "back"),
    [
        ("30d", NOW + 30 * DAY_S, NOW - 30 * DAY_S),
        ("12h", NOW + 43_200, NOW - 43_200),
        ("1.5m", NOW + 90, NOW - 90),
        ("2w", NOW + 14 * DAY_S, NOW - 14 * DAY_S),
        ("2026-02-01", NOW + 43_200, NOW + 43_200),
        ("2026-02-01T00:00:00+01:00", NOW + 39_600, NOW + 39_600),
        ("1769860801", NOW + 1, NOW + 1),
    ],
)
def test_moments(text: str, ahead: float, back: float) -> None:
    assert moment(text, NOW, is_ahead=True) == ahead
    assert moment(text, NOW, is_ahead=False) == back


@pytest.mark.parametrize(
    "text", ["soon", "-1d", "2026-13-01", "1e9", "nan", "999999999y", "9" * 13, "30 d", "30"]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="expected a span such as 30d"):
        moment(text, NOW, is_ahead=True)


def test_days_of_a_question() -> None:
    assert day("", NOW) == ""
    assert day("30d", NOW) == "2026-01-01"
    assert day("2026-01-05", NOW) == "2026-01-05"
    assert columns("key, day") == ("key_id", "day")
    for wrong in ("", "key,colour"):
        with pytest.raises(ValueError, match="by: expected some of key, model, day"):
            columns(wrong)


def test_what_is_asked_for_is_kept() -> None:
    wanted = KeyWanted(
        name="x", roles=["read", "read"], models=["a", "b", "a"], expires_at="1d", max_concurrency=2
    )
    record, _ = issue(wanted, NOW)
    assert (record.roles, record.models) == (["read"], ["a", "b"])
    assert record.expires_at == NOW + DAY_S
    assert issue(KeyWanted(expires_at=NOW + 1.9), NOW)[0].expires_at == NOW + 1
    shown = row(record, {record.key_id: "2026-01-30"}, NOW)
    assert (shown["state"], shown["last_used"]) == ("active", "2026-01-30")
    assert (shown["max_concurrency"], shown["requests_per_minute"]) == (2, None)
    assert row(record, {}, NOW + DAY_S)["state"] == "expired"
    record.revoked_at = NOW
    assert row(record, {}, NOW + DAY_S)["state"] == "revoked"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"roles": ["boss"]}, "roles: expected some of inference, read, admin, got 'boss'"),
        ({"roles": []}, "roles: expected some of"),
        ({"expires_at": NOW}, "expires_at: expected a moment to come"),
        ({"expires_at": "never"}, "expires_at: expected a span"),
        ({"requests_per_minute": 0}, ">= 1"),
        ({"requests_per_minute": 10**9 + 1}, "<= 1000000000"),
        ({"monthly_tokens": 10**15}, "<= 100000000000000"),
        ({"max_concurrency": 1.5}, "Expected `int | null`"),
        ({"models": [""]}, "length >= 1"),
        ({"name": "x" * 101}, "length <= 100"),
        ({"name": "two\nlines"}, "name: expected printable characters only"),
        ({"models": ["echo", "\x1b[31m"]}, "models: expected printable characters only"),
        ({"key": "mine"}, "unknown field `key`"),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        issue(msgspec.convert(values, KeyWanted), NOW)
