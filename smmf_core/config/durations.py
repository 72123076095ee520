"""Spans of time as operators and clients write them: "5m", "1h30m", 300, "-1".

Owns the notation (Ollama's); must not know what it is used for.
"""

from __future__ import annotations

import math
import re

ON_DEMAND_S = 300.0  # Ollama's own: long enough for the next question of a conversation
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_TEXT = re.compile(rf"(-?)(?:(\d+(?:\.\d+)?)|((?:{_PART.pattern})+))")


def span_s(value: str | float) -> float:
    """Seconds; a negative span is one without an end (inf). Raises ValueError: what is expected."""
    seconds = _text_s(value.strip().lower()) if isinstance(value, str) else float(value)
    if math.isnan(seconds):
        raise ValueError("expected a number of seconds")
    return math.inf if seconds < 0 else seconds


def keep_alive_s(value: str | float, autostart: bool) -> float:
    """How long an idle model stays loaded: seconds, inf is for ever.

    "": for ever if the server's start loaded it, ON_DEMAND_S if a request did.
    """
    if value == "":
        return math.inf if autostart else ON_DEMAND_S
    return span_s(value)


def _text_s(text: str) -> float:
    found = _TEXT.fullmatch(text)
    if not found:
        raise ValueError('expected seconds or a span like "90s", "5m" or "1h30m"; "-1" is for ever')
    sign, plain, spans = found[1], found[2], found[3]
    if plain:
        seconds = float(plain)
    else:
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(spans))
    return -seconds if sign else seconds
