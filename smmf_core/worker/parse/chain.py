"""An answer's text on its way to the client: thoughts first, then content and calls of tools.

Owns the order of the parsers; must not know formats.
"""

from __future__ import annotations

from typing import NamedTuple

from smmf_core.messages import ToolDelta
from smmf_core.worker.parse.calls import CallParser
from smmf_core.worker.parse.thoughts import Thoughts

CONTENT, THOUGHT, CALL = range(3)


class Piece(NamedTuple):
    """Something for the client. A CALL has deltas, the others have text."""

    kind: int
    text: str
    deltas: list[ToolDelta]


class Chain:
    """One choice's. `push` and `finish` give what may be sent now, in order."""

    __slots__ = ("_calls", "_thoughts")

    def __init__(self, thoughts: Thoughts | None, calls: CallParser | None) -> None:
        self._thoughts = thoughts
        self._calls = calls

    @property
    def calls(self) -> int:
        """How many have begun."""
        return self._calls.count if self._calls is not None else 0

    @property
    def is_full(self) -> bool:
        """Whether all calls that are wanted are there."""
        return self._calls is not None and self._calls.is_full

    @property
    def is_thinking(self) -> bool:
        """Whether it is in a thought, that has not closed."""
        return self._thoughts is not None and self._thoughts.has_any and not self._thoughts.is_over

    @property
    def holds(self) -> bool:
        """Whether text is held back that may become content."""
        if self._thoughts is not None and self._thoughts.holds:
            return True
        return self._calls is not None and self._calls.holds

    def push(self, text: str) -> list[Piece]:
        if self._thoughts is None:
            return self._read(text)
        thought, rest = self._thoughts.push(text)
        return [*_thought(thought), *self._read(rest)]

    def finish(self, is_cut: bool) -> list[Piece]:
        """At the end of the answer. `is_cut`: by its token limit."""
        pieces: list[Piece] = []
        if self._thoughts is not None:
            thought, rest = self._thoughts.finish()
            pieces = [*_thought(thought), *self._read(rest)]
        if self._calls is not None:
            pieces += _pieces(self._calls.finish(is_cut))
        return pieces

    def _read(self, text: str) -> list[Piece]:
        if not text:
            return []
        if self._calls is None:
            return [Piece(CONTENT, text, [])]
        return _pieces(self._calls.push(text))


def _thought(text: str) -> list[Piece]:
    return [Piece(THOUGHT, text, [])] if text else []


def _pieces(found: list[str | ToolDelta]) -> list[Piece]:
    """Neighbours of one kind together, where they may be."""
    pieces: list[Piece] = []
    for item in found:
        if isinstance(item, str):
            if pieces and pieces[-1].kind == CONTENT:
                pieces[-1] = Piece(CONTENT, pieces[-1].text + item, [])
            else:
                pieces.append(Piece(CONTENT, item, []))
        elif pieces and pieces[-1].kind == CALL:
            _add(pieces[-1].deltas, item)
        else:
            pieces.append(Piece(CALL, "", [item]))
    return pieces


def _add(deltas: list[ToolDelta], delta: ToolDelta) -> None:
    """Arguments go into the last one if they continue arguments."""
    last = deltas[-1]
    if not delta.id and not last.id and last.index == delta.index:
        deltas[-1] = ToolDelta(delta.index, "", "", last.arguments + delta.arguments)
    else:
        deltas.append(delta)
