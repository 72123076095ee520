"""Calls of tools in an answer that comes in pieces: content, or a call's name and arguments.

Owns what is held back and what a call that is none becomes: content. Must not know how a family
writes its calls: that is formats.py's. Parsing is written as generators, which yield where they
need more text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from smmf_core.messages import ToolDelta
from smmf_core.worker.parse.json_scan import JsonScanner
from smmf_core.worker.parse.thoughts import overlap

T = TypeVar("T")
Wait = Generator[None, None, T]
Object = dict[str, Any]
_MEMBER = r'"(?:arguments|parameters)"'
_HEAD = re.compile(rf'\{{\s*"name"\s*:\s*"([^"\\\x00-\x1f]+)"\s*,\s*{_MEMBER}\s*:\s*(?=\{{)')
_HEAD_PARTS = (
    r"\{", r"\s*", '"', "n", "a", "m", "e", '"', r"\s*", ":", r"\s*", '"', r'[^"\\\x00-\x1f]*',
    '"', r"\s*", ",", r"\s*", '"', "[ap][a-z]*", '"', r"\s*", ":", r"\s*",
)  # fmt: skip
_MAX_NAME = 256
_NAME_END = re.compile(r"[^A-Za-z0-9_.:-]")


def _beginnings(parts: Iterable[str]) -> re.Pattern[str]:
    pattern = ""
    for part in reversed(list(parts)):
        pattern = f"(?:{part}{pattern})?"
    return re.compile(pattern)


_HEAD_BEGUN = _beginnings(_HEAD_PARTS)


def _may_be_head(text: str, start: int) -> bool:
    begun = _HEAD_BEGUN.match(text, start)
    return begun is not None and begun.end() == len(text)


class Opener(NamedTuple):
    """Where calls begin in the text that is at hand."""

    at: int
    text: str


class Format(Protocol):
    """How a family writes its calls."""

    def openers(self, names: list[str]) -> tuple[list[str], list[str]]:
        """(what begins calls anywhere, what does so only where a line begins)"""

    def calls(self, parser: CallParser, opener: str) -> Wait[bool]:
        """Read what follows an opener. False: it is no call, and nothing was given out."""


class CallParser:
    """Takes text, gives content (str) and calls (ToolDelta).

    White space before a call, or between one and the answer's beginning or end, belongs to the
    call's markup. `most`: how many calls are given; `is_full` says that it is so many.
    """

    def __init__(
        self,
        form: Format,
        tools: Mapping[str, Object],
        most: int | None,
        new_id: Callable[[int], str],
    ) -> None:
        """`tools`: the schema of each one's parameters, by its name."""
        names = list(tools)
        self._form = form
        self._tools = tools
        self._anywhere, self._at_lines = form.openers(names)
        self._most = most
        self._new_id = new_id
        self._text = ""
        self.at = 0
        self._is_line_start = True
        self.is_final = False  # no more text comes
        self.is_cut = False  # the answer's token limit ended it
        self._was_call = False
        self._has_content = False
        self._out: list[str | ToolDelta] = []
        self.count = 0  # of calls begun
        self.is_full = False
        self.holds = False  # what may become content
        self._run = self._main()
        next(self._run)

    def push(self, text: str) -> list[str | ToolDelta]:
        if text and not self.is_full:
            self._text += text
            next(self._run, None)
        out, self._out = self._out, []
        return out

    def finish(self, is_cut: bool) -> list[str | ToolDelta]:
        """At the end of the answer. Of one that its token limit cut, the beginning of a call is
        not given as content; of one that ended by itself, it is."""
        self.is_final = True
        self.is_cut = is_cut
        if not self.is_full:
            next(self._run, None)
        out, self._out = self._out, []
        return out

    # --- for formats ---

    @property
    def next_mark(self) -> str:
        """The next character that is at hand."""
        return self._text[self.at : self.at + 1]

    def knows(self, name: str) -> bool:
        return name in self._tools

    def parameters(self, name: str) -> Object:
        return self._tools.get(name) or {}

    @property
    def rest(self) -> str:
        """The text that is at hand."""
        return self._text[self.at :]

    def skip(self, characters: int) -> None:
        """Step over text that is never looked at again."""
        self._text, self.at = self._text[self.at + characters :], 0

    def until(self, mark: str) -> Wait[str]:
        """What is before the next `mark`, and step over both; "" where that is nothing or long."""
        while (end := self._text.find(mark, self.at)) < 0:
            if self.is_final or len(self._text) - self.at > _MAX_NAME:
                return ""
            yield
        return self._take(end, end + len(mark))

    def literal(self, word: str) -> Wait[bool]:
        """Step over `word`, if it comes."""
        while not self._text.startswith(word, self.at):
            rest = self._text[self.at : self.at + len(word)]
            if self.is_final or not word.startswith(rest):
                return False
            yield
        self.at += len(word)
        return True

    def optional(self, word: str) -> Wait[bool]:
        """Step over white space and `word`, or over nothing."""
        before = self.at
        yield from self.spaces()
        if (yield from self.literal(word)):
            return True
        self.at = before
        return False

    def spaces(self) -> Wait[None]:
        while True:
            while self.next_mark.isspace():
                self.at += 1
            if self.next_mark or self.is_final:
                return
            yield

    def name(self) -> Wait[str]:
        """The next word; "" where none ends."""
        while (end := _NAME_END.search(self._text, self.at)) is None:
            if self.is_final or len(self._text) - self.at > _MAX_NAME:
                return ""
            yield
        return self._take(end.start(), end.start())

    def begin(self, name: str) -> None:
        index, self.count = self.count, self.count + 1
        self._was_call = True
        self.holds = False
        self._out.append(ToolDelta(index, self._new_id(index), name, ""))

    def give(self, arguments: str) -> None:
        """The next piece of the call's arguments."""
        if arguments:
            self._out.append(ToolDelta(self.count - 1, "", "", arguments))

    def ended(self) -> Wait[None]:
        """A call is whole. After the last that is wanted nobody asks for more."""
        self.is_full = self.count == self._most
        if self.is_full:
            yield

    def arguments(self) -> Wait[bool]:
        """Give the object that begins here as the call's arguments. False: it is broken; what
        follows is content."""
        scanner = JsonScanner()
        while True:
            out, self.at = scanner.take(self._text, self.at)
            if out:
                self.give(out)
            self._text, self.at = self._text[self.at :], 0
            if scanner.is_done:
                yield from self.ended()
                return True
            if scanner.is_bad:
                return False
            if self.is_final:
                self.give(self._text)
                self.at = len(self._text)
                return False
            yield

    def json_call(self, must_know: bool = False) -> Wait[bool]:
        """One call as an object with a name and arguments. False: it is none, and nothing was
        given out. `must_know`: the name has to be one of the tools', and to come first."""
        scanner, start, at = JsonScanner(), self.at, self.at
        parts: list[str] = []
        while True:
            out, at = scanner.take(self._text, at)
            parts.append(out)
            if head := _HEAD.match(self._text, start):
                break
            is_lost = must_know and not _may_be_head(self._text, start)
            if scanner.is_done or scanner.is_bad or self.is_final or is_lost:
                if not scanner.is_done or must_know or not self._whole("".join(parts)):
                    return False
                self.at = at
                yield from self.ended()
                return True
            yield
        name = head.group(1)
        if must_know and not self.knows(name):
            return False
        self.at = head.end()
        self.begin(name)
        if (yield from self.arguments()):
            yield from self._close_object()
        return True

    def json_calls(self) -> Wait[bool]:
        """Calls as an array's items, behind its bracket. Whether there was one."""
        before = self.count
        while True:
            start = self.at
            yield from self.spaces()
            if not (yield from self.json_call()):
                self.at = start
                return self.count > before
            if (yield from self.optional("]")) or not (yield from self.optional(",")):
                return True

    # --- inside ---

    def _take(self, end: int, behind: int) -> str:
        """A name up to `end`, and go on `behind` it; "" for a long one, however it came."""
        if end - self.at > _MAX_NAME:
            return ""
        found = self._text[self.at : end]
        self.at = behind
        return found

    def _whole(self, text: str) -> bool:
        """A call whose members come in another order: at its end."""
        try:
            call = json.loads(text)
            name = call.get("name") if isinstance(call, dict) else None
            arguments = call.get("arguments", call.get("parameters")) if name else None
            if isinstance(arguments, str):
                arguments = json.loads(arguments)
            written = json.dumps(arguments or {}, ensure_ascii=False, allow_nan=False)
        except (ValueError, RecursionError):
            return False
        if not isinstance(name, str) or not isinstance(arguments, dict | None):
            return False
        self.begin(name)
        self.give(written)
        return True

    def _close_object(self) -> Wait[None]:
        """Step over what an object has behind its arguments; over nothing when that is broken."""
        scanner, at = JsonScanner(in_object=True), self.at
        while True:
            _, at = scanner.take(self._text, at)
            if scanner.is_done:
                self.at = at
            if scanner.is_done or scanner.is_bad or self.is_final:
                return
            yield

    def _main(self) -> Wait[None]:
        yield
        while (opener := (yield from self._content())) is not None:
            before, end = self.at, opener.at + len(opener.text)
            self.at = end
            self.holds = True
            is_call = yield from self._form.calls(self, opener.text)
            is_markup = is_call or opener.text in self._anywhere
            if self.is_final and self.is_cut and is_markup:
                return
            if is_call:
                self._is_line_start = True
                continue
            self._say(self._text[before:end])
            self.at = end

    def _content(self) -> Wait[Opener | None]:
        """Give content up to an opener. What is between `at` and it is white space."""
        while True:
            self._text, self.at = self._text[self.at :], 0
            opener = self._find()
            end = len(self._text)
            if opener is not None:
                end = len(self._text[: opener.at].rstrip())
            elif not self.is_final:
                end = len(self._text[: end - self._held()].rstrip())
            elif self._was_call and self._text.isspace():
                end = 0
            self._say(self._text[:end])
            self.at = end
            self.holds = end < len(self._text)
            if opener is not None or self.is_final:
                return opener
            yield

    def _say(self, text: str) -> None:
        if not text:
            return
        self._is_line_start = text.endswith("\n")
        is_first = self._was_call and not self._has_content
        self._out.append(text.lstrip() if is_first else text)
        self._has_content = True
        self._was_call = False

    def _find(self) -> Opener | None:
        text = self._text
        found = [Opener(at, mark) for mark in self._anywhere if (at := text.find(mark)) >= 0]
        for start in self._lines() if self._at_lines else ():
            found += [Opener(start, m) for m in self._at_lines if text.startswith(m, start)]
        return min(found, key=lambda opener: (opener.at, -len(opener.text)), default=None)

    def _lines(self) -> list[int]:
        """Where the text of a line begins."""
        starts = [m.end() for m in re.finditer(r"\n\s*", self._text)]
        first = len(self._text) - len(self._text.lstrip())
        return [first, *starts] if self._is_line_start else starts

    def _held(self) -> int:
        """How many characters at the end may begin an opener."""
        text = self._text
        held = max((overlap(text, mark) for mark in self._anywhere), default=0)
        lines = self._lines() if self._at_lines else []
        if lines:
            line = text[lines[-1] :]
            if any(mark.startswith(line) for mark in self._at_lines):
                held = max(held, len(line))
        return held
