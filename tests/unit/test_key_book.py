"""Which API keys there are and who needs one, without a server."""

from __future__ import annotations

import msgspec
import pytest

from smmf_core.controller.keys import KeyBook, SavedKeys
from smmf_core.errors import ApiError, ControlError
from smmf_core.keys import digest
from smmf_core.store.records import KeyRecord

NOW = 1_000_000.0
ROWS = 4


def key(key_id: str, *roles: str, **values: float) -> KeyRecord:
    """Its text is its id."""
    found = list(roles) or ["inference"]
    return KeyRecord(key_id=key_id, digest=digest(key_id.encode()), roles=found, **values)


def book(*records: KeyRecord, configured: tuple[str, ...] = (), rows: int = ROWS) -> KeyBook:
    made = KeyBook(rows)
    made.configure(configured)
    made.learn(records)
    return made


def slots(keys: KeyBook) -> dict[str, int]:
    return {entry.id: entry.slot for entry in keys.entries()}


def refusal(keys: KeyBook, given: str, method: str = "GET", is_open: bool = False) -> str:
    """The code with which the admin port refuses; "": it does not."""
    try:
        keys.check_admin(given.encode(), method, NOW, is_open)
    except ApiError as error:
        return error.code
    return ""


def test_configured_keys_may_do_everything() -> None:
    keys = book(configured=("one", "two"))
    assert list(slots(keys)) == ["config-1", "config-2"]
    assert {tuple(entry.roles) for entry in keys.entries()} == {("inference", "read", "admin")}
    assert keys.entry_of(b"two") is not None
    assert keys.entry_of(b"three") is None
    keys.configure(["two"])
    assert keys.entry_of(b"one") is None


def test_a_revoked_key_is_none() -> None:
    keys = book(key("a"), key("b", revoked_at=1.0))
    assert list(slots(keys)) == ["a"]
    assert keys.revoke("a", NOW).revoked_at == NOW
    assert keys.entries() == []
    assert keys.revoke("a", NOW + 1).revoked_at == NOW
    assert [record.key_id for record in keys.records()] == ["a", "b"]
    with pytest.raises(ApiError, match="no key nobody"):
        keys.revoke("nobody", NOW)
    keys.configure(["text"])
    with pytest.raises(ControlError, match=r"stands in \[server\] api_keys"):
        keys.revoke("config-1", NOW)


def test_a_row_is_its_keys_for_life_and_is_given_on_last() -> None:
    keys = book(key("a"), key("b"))
    assert slots(keys) == {"a": 0, "b": 1}
    assert keys.fresh == {0, 1}
    keys.fresh.clear()
    keys.revoke("a", NOW)
    keys.add(key("c"))
    assert slots(keys) == {"b": 1, "c": 2}
    keys.add(key("d"))
    keys.fresh.clear()
    keys.add(key("e"))
    assert slots(keys) == {"b": 1, "c": 2, "d": 3, "e": 0}
    assert keys.fresh == {0}
    with pytest.raises(ControlError, match="4 keys already"):
        keys.add(key("f"))
    assert "f" not in slots(keys)


def test_the_next_controller_gives_each_key_its_row_again() -> None:
    first = book(key("a"), key("b"), key("c"))
    first.revoke("a", NOW)
    saved = msgspec.json.decode(msgspec.json.encode(first.saved()), type=SavedKeys)
    second = KeyBook(ROWS, saved)
    second.configure([])
    assert slots(second) == {"b": 1, "c": 2}
    assert second.fresh == set()
    second.add(key("d"))
    assert slots(second)["d"] == 3


def test_what_the_database_does_not_know_yet_is_not_forgotten() -> None:
    """It was away when a key was revoked and another made; then the Controller was killed."""
    first = book(key("a"), key("b"))
    first.revoke("a", NOW)
    first.add(key("c"))
    second = KeyBook(ROWS, first.saved())
    assert second.is_known
    missing = second.learn([key("a"), key("b", revoked_at=2.0)])
    assert sorted(record.key_id for record in missing) == ["a", "c"]
    assert list(slots(second)) == ["c"]


@pytest.mark.parametrize(
    ("given", "method", "code"),
    [
        ("", "GET", "invalid_api_key"),
        ("wrong", "GET", "invalid_api_key"),
        ("adm", "GET", ""),
        ("adm", "DELETE", ""),
        ("text", "POST", ""),
        ("reader", "GET", ""),
        ("reader", "HEAD", ""),
        ("reader", "POST", "permission_denied"),
        ("reader", "DELETE", "permission_denied"),
        ("asker", "GET", "permission_denied"),
        ("old", "GET", "invalid_api_key"),
        ("gone", "GET", "invalid_api_key"),
    ],
)
def test_roles_on_the_admin_port(given: str, method: str, code: str) -> None:
    keys = book(
        key("adm", "admin"),
        key("reader", "read"),
        key("asker"),
        key("old", "admin", expires_at=NOW),
        key("gone", "admin", revoked_at=1.0),
        configured=("text",),
        rows=10,
    )
    assert refusal(keys, given, method) == code


def test_the_first_admin_key_locks_the_admin_port() -> None:
    keys = book(key("reader", "read"), key("asker"))
    assert refusal(keys, "", "POST") == refusal(keys, "anything", "POST") == ""
    assert refusal(keys, "reader", "POST") == "permission_denied"
    keys.add(key("adm", "admin"))
    assert refusal(keys, "", "POST") == "invalid_api_key"
    keys.revoke("adm", NOW)
    assert refusal(keys, "", "POST") == ""
    assert refusal(keys, "", "GET", is_open=True) == "invalid_api_key"
    keys.add(key("old", "admin", expires_at=NOW))
    assert refusal(keys, "", "GET") == "invalid_api_key"


def test_before_the_keys_are_known_one_may_only_look() -> None:
    keys = KeyBook(ROWS)
    keys.configure([])
    assert refusal(keys, "", "GET") == ""
    assert refusal(keys, "", "POST") == "registry_unavailable"
    assert refusal(keys, "", "GET", is_open=True) == "invalid_api_key"
    keys.learn([])
    assert refusal(keys, "", "POST") == ""
