"""A new API key as it is asked for, as it is kept, and as operators see it afterwards.

Pure: now is a parameter. Owns the bounds of limits and the columns of a key; the key itself leaves
by `issue` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from smmf_core.control_messages import ROLES
from smmf_core.keys import digest, new_key
from smmf_core.store import when
from smmf_core.store.records import KeyRecord

MOST = 1_000_000_000  # per minute, and open at once
MOST_MONTHLY = 100_000_000_000_000
LIMITS = {
    "requests_per_minute": MOST,
    "tokens_per_minute": MOST,
    "max_concurrency": MOST,
    "monthly_tokens": MOST_MONTHLY,
}
DEFAULT_ROLES = (ROLES[0],)
Bounded = Annotated[int, msgspec.Meta(ge=1, le=MOST)]
Budget = Annotated[int, msgspec.Meta(ge=1, le=MOST_MONTHLY)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class KeyWanted(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`expires_at`: Unix seconds, a date, or a span from now. A limit that is null is none; a
    month is the calendar's, in UTC. `models`: names or aliases; none: all. `roles`: inference,
    read, admin."""

    name: Annotated[str, msgspec.Meta(max_length=100)] = ""
    roles: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_ROLES))
    models: Annotated[list[Name], msgspec.Meta(max_length=1000)] = []
    expires_at: float | str | None = None
    requests_per_minute: Bounded | None = None
    tokens_per_minute: Bounded | None = None
    max_concurrency: Bounded | None = None
    monthly_tokens: Budget | None = None


def issue(wanted: KeyWanted, now: float) -> tuple[KeyRecord, str]:
    """(what is kept, the key). Raises ValueError: the field, and what is expected."""
    _check_roles(wanted.roles)
    _check_shown("name", [wanted.name])
    _check_shown("models", wanted.models)
    expires_at = _expiry(wanted.expires_at, now)
    name, key = new_key()
    limits = {limit: getattr(wanted, limit) or 0 for limit in LIMITS}
    record = KeyRecord(
        key_id=name,
        digest=digest(key.encode()),
        name=wanted.name,
        roles=list(dict.fromkeys(wanted.roles)),
        models=list(dict.fromkeys(wanted.models)),
        expires_at=expires_at,
        issued_at=now,
        **limits,
    )
    return record, key


def row(record: KeyRecord, last_used: Mapping[str, str], now: float) -> dict[str, Any]:
    """As `smmf keys list` shows it. None: no limit, never."""
    limits = {limit: getattr(record, limit) or None for limit in LIMITS}
    return {
        "id": record.key_id,
        "name": record.name,
        "state": state_of(record, now),
        "roles": record.roles,
        "models": record.models,
        **limits,
        "expires_at": record.expires_at or None,
        "created_at": record.issued_at or None,
        "revoked_at": record.revoked_at or None,
        "last_used": last_used.get(record.key_id),
    }


def state_of(record: KeyRecord, now: float) -> str:
    if record.revoked_at:
        return "revoked"
    return "expired" if record.expires_at and now >= record.expires_at else "active"


def _check_roles(roles: list[str]) -> None:
    wrong = next((role for role in roles if role not in ROLES), None)
    if wrong is not None or not roles:
        got = "" if wrong is None else f", got '{wrong[:40]}'"
        raise ValueError(f"roles: expected some of {', '.join(ROLES)}{got}")


def _check_shown(field: str, texts: list[str]) -> None:
    """What a terminal would obey is not for a table of keys."""
    if not all(map(str.isprintable, texts)):
        raise ValueError(f"{field}: expected printable characters only")


def _expiry(given: float | str | None, now: float) -> float:
    """A whole second: Routers know no smaller ones, and none is to let it in longer."""
    if given is None:
        return 0.0
    try:
        moment = float(int(when.moment(str(given), now, is_ahead=True)))
    except ValueError as error:
        raise ValueError(f"expires_at: {error}") from None
    if moment <= now:
        raise ValueError("expires_at: expected a moment to come")
    return moment
