"""Moments and days as operators write them: "30d", "12h", "2026-01-31", Unix seconds.

Pure: now is a parameter. Owns the notation; must not know what a moment is for.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from smmf_core.keys import day_of

DAY_S = 86_400.0
LAST = 253_402_300_799.0  # the end of the year 9999, the last that a calendar has
FORMS = "a span such as 30d or 12h, or a date such as 2026-01-31"
_UNITS_S = {"m": 60.0, "h": 3600.0, "d": DAY_S, "w": 7 * DAY_S, "y": 365 * DAY_S}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([mhdwy])")
_NUMBER = re.compile(r"\d{9,12}(\.\d{1,9})?")  # since 1973; a shorter one lacks its unit


def moment(text: str, now: float, is_ahead: bool) -> float:
    """Unix seconds. A span is counted from now: ahead, or back; a date begins at 00:00 UTC.

    Raises ValueError: what is expected.
    """
    given = text.strip()
    found = _read(given, now, is_ahead)
    if found is None or not 0 <= found <= LAST:
        raise ValueError(f"expected {FORMS}, got '{given[:40]}'")
    return found


def day(text: str, now: float) -> str:
    """The day that a moment is in; "" for "". Raises ValueError."""
    return day_of(moment(text, now, is_ahead=False)) if text else ""


def _read(given: str, now: float, is_ahead: bool) -> float | None:
    if span := _SPAN.fullmatch(given):
        seconds = float(span[1]) * _UNITS_S[span[2]]
        return now + seconds if is_ahead else max(0.0, now - seconds)
    if _NUMBER.fullmatch(given):
        return float(given)
    try:
        found = datetime.fromisoformat(given)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
