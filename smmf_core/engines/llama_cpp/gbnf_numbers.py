"""Integers between bounds, as GBNF.

Owns the splitting of a range into digits; must not know schemas.
"""

from __future__ import annotations

_MOST_DIGITS = 18  # of an open range: what fits into 64 bits


def integer_range(low: int | None, high: int | None) -> str:
    """A rule body for the integers from `low` to `high`, both included; None: no bound.

    Raises ValueError for an empty range.
    """
    least = 1 - 10**_MOST_DIGITS if low is None else low
    most = 10**_MOST_DIGITS - 1 if high is None else high
    if least > most:
        raise ValueError(f"No integer lies between {low} and {high}.")
    parts: list[str] = []
    if least < 0:
        negative = _naturals(max(1, -most), -least)
        parts.append(f'"-" ( {negative} )')
    if most >= 0:
        parts.append(_naturals(max(0, least), most))
    return " | ".join(parts)


def _naturals(low: int, high: int) -> str:
    """Without leading zeros: by the number of digits."""
    parts = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        first = max(low, 10 ** (digits - 1) if digits > 1 else 0)
        parts.append(_same_length(str(first), str(min(high, 10**digits - 1))))
    return " | ".join(parts)


def _same_length(low: str, high: str) -> str:
    """Numbers of equally many digits: the first digit bounds what the others may be."""
    if low == high:
        return f'"{low}"'
    size = len(low) - 1
    if size == 0:
        return f"[{low}-{high}]"
    least, most = "0" * size, "9" * size
    if low[0] == high[0]:
        return f'"{low[0]}" ( {_same_length(low[1:], high[1:])} )'
    parts = []
    first, last = int(low[0]), int(high[0])
    if low[1:] != least:
        parts.append(f'"{first}" ( {_same_length(low[1:], most)} )')
        first += 1
    if high[1:] != most:
        last -= 1
    if first <= last:
        parts.append(f"[{first}-{last}] [0-9]{{{size}}}")
    if high[1:] != most:
        parts.append(f'"{high[0]}" ( {_same_length(least, high[1:])} )')
    return " | ".join(parts)
