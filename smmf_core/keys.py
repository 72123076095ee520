"""API keys as text: how a new one is made, what is kept of it, and which month its budget is in.

Owns the form of a key; must not know who has one, nor what it may do.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime

PREFIX = "sk-smmf-"
SECRET_BYTES = 32
ID_BYTES = 5  # eight characters of base32
_MONTHS = 12


def new_key() -> tuple[str, str]:
    """(id, key): `sk-smmf-<id>-<secret>`. The key is to be shown once and kept by nobody."""
    name = base64.b32encode(secrets.token_bytes(ID_BYTES)).decode().lower()
    return name, f"{PREFIX}{name}-{secrets.token_urlsafe(SECRET_BYTES)}"


def digest(key: bytes) -> bytes:
    """SHA-256, 32 bytes. A new key's 256 random bits need no salt, and no slow hash."""
    return hashlib.sha256(key).digest()


def wrong_keys(keys: Iterable[str]) -> str:
    """What is wrong with keys of an operator's own, in words; "": nothing. An empty one would be
    anybody's, and no header brings spaces around a key, or control characters."""
    is_wrong = any(not key or key != key.strip() or not key.isprintable() for key in keys)
    return "a key is not empty, without spaces around it and control characters" if is_wrong else ""


def day_of(now_s: float) -> str:
    """The day of a Unix time in UTC, as 2026-01-31."""
    return _moment(now_s).date().isoformat()


def month_of(now_s: float) -> int:
    """The calendar month of a Unix time in UTC, counted from the year 0."""
    moment = _moment(now_s)
    return moment.year * _MONTHS + moment.month - 1


def first_day_of_month(now_s: float) -> str:
    """Of the month that a Unix time is in, as 2026-01-01."""
    return _moment(now_s).date().replace(day=1).isoformat()


def first_day_after(now_s: float) -> str:
    """Of the month after the one that a Unix time is in, as 2026-02-01."""
    year, month = divmod(month_of(now_s) + 1, _MONTHS)
    return f"{year:04}-{month + 1:02}-01"


def _moment(now_s: float) -> datetime:
    return datetime.fromtimestamp(now_s, UTC)
