"""What is wrong with a field of a body or of a query, in the words of who sent it.

Owns the wording; which values are right is said where the fields are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from smmf_core.config.problems import in_words, nearest

_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]+)`")


def wrong_field(message: str, field: str = "", known: Iterable[str] = ()) -> str:
    """`replicas: expected an integer >= 1`, from msgspec's message and, if it is told apart from
    that, the field's name. `known`: names of all fields."""
    place = _PLACE.search(message)
    text = _PLACE.sub("", message)
    if missing := _MISSING.match(text):
        return f"{missing[1]} must be given"
    if unknown := _UNKNOWN.match(text):
        return f"there is no field '{unknown[1]}'{nearest(unknown[1], known)}"
    words = in_words(msgspec.ValidationError(text))
    name = (place[1] if place else "") or field
    return f"{name}: {words}" if name else words
