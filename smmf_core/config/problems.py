"""What is wrong with a configuration: one line per problem, all of a file together.

Owns the wording; must not decide what is right.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import msgspec

from smmf_core.errors import ConfigError

_TYPE_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}
_EXPECTED = re.compile(r"Expected `([^`]+)`(.*)")
_GOT = re.compile(r", got `([^`]+)`")
_IN_ITEM = re.compile(r" - at `\$(.*)`$")
_IN_SECTION = re.compile(r" - at `\$\.(\w+)\.(\w+)")


class Problem(msgspec.Struct, frozen=True):
    """One thing to correct. `kind`: syntax, unknown, type, value, missing, later or file."""

    file: str
    line: int  # from 1; 0: the file as a whole
    key: str  # "[deployment] replicas"
    kind: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigProblems(ConfigError):
    """Everything wrong with the configuration, one problem a line."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def key_name(path: tuple[str, ...]) -> str:
    """("deployment", "replicas") -> "[deployment] replicas", ("deployment",) -> "[deployment]"."""
    if len(path) == 1:
        return f"[{path[0]}]"
    return f"[{'.'.join(path[:-1])}] {path[-1]}".removeprefix("[] ")


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?", or nothing when no known name is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def key_in_words(error: msgspec.ValidationError) -> str:
    """in_words with the section and key in front, for the error of a whole configuration."""
    place = _IN_SECTION.search(str(error))
    if not place:
        return in_words(error)
    text, inside = str(error)[: place.start()], str(error)[place.end() : -1]
    bare = msgspec.ValidationError(f"{text} - at `${inside}`" if inside else text)
    return f"{key_name((place[1], place[2]))}: {in_words(bare)}"


def in_words(error: msgspec.ValidationError) -> str:
    """msgspec's message in the words of a configuration's author."""
    text = str(error)
    item = _IN_ITEM.search(text)
    where = f" (in item {item.group(1)})" if item else ""
    text = _IN_ITEM.sub("", text)
    expected = _EXPECTED.match(text)
    if not expected:
        return f"{text[:1].lower()}{text[1:]}{where}"
    wanted = " or ".join(_TYPE_WORDS.get(t, t) for t in expected[1].split(" | ") if t != "null")
    rest = _GOT.sub(lambda got: f", got {_TYPE_WORDS.get(got[1], got[1])}", expected[2])
    return f"expected {wanted}{rest}{where}"
