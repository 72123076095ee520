"""Numbers on the command line: what is none, or makes no sense, is wrong use.

Owns the types of argparse; must not know a flag.
"""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable


def count(text: str) -> int:
    """A whole number, or none at all: 0."""
    if not (text.isascii() and text.isdecimal()):
        raise ArgumentTypeError(f"'{text}' is not a whole number from 0 on")
    return int(text)


def positive(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise ArgumentTypeError(f"'{text}' is not a whole number from 1 on")
    return int(text)


def seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise ArgumentTypeError(f"'{text}' is not a number of seconds")
    return found


def bounded(least: int, most: int) -> Callable[[str], int]:
    """A whole number in a range."""

    def whole(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise ArgumentTypeError(f"'{text}' is not a whole number from {least} to {most}")
        return int(text)

    return whole
