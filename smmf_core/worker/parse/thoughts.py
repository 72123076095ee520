"""A model's thoughts, apart from its answer.

Owns the marks around them and the white space beside these, which belongs to neither. Must not look
for thoughts anywhere but at the answer's beginning: later marks are text.
"""

from __future__ import annotations

from enum import Enum

MARKS = {"deepseek_r1": ("<think>", "</think>"), "qwen3": ("<think>", "</think>")}
"""By the name of the format: what stands before and behind the thoughts."""


class _State(Enum):
    START = 0  # an opening mark may come
    INSIDE = 1
    BEHIND = 2  # the answer has not begun
    ANSWER = 3


class Thoughts:
    """Splits text. A thought that never closes is a thought to the end."""

    __slots__ = ("_close", "_held", "_is_new", "_open", "_state", "has_any")

    def __init__(self, name: str, is_open: bool) -> None:
        """`is_open`: the prompt ends inside a thought."""
        self._open, self._close = MARKS[name]
        self._held = ""
        self._is_new = True  # no thought has been given out
        self._state = _State.INSIDE if is_open else _State.START
        self.has_any = is_open

    @property
    def is_over(self) -> bool:
        """Whether all that follows is the answer."""
        return self._state in (_State.BEHIND, _State.ANSWER)

    @property
    def holds(self) -> bool:
        """Whether text is held back that may become the answer."""
        return self._state == _State.START and bool(self._held)

    def push(self, text: str) -> tuple[str, str]:
        """(what is thought, what is answer)"""
        if self._state == _State.ANSWER:
            return "", text
        text, self._held = self._held + text, ""
        thought = ""
        if self._state == _State.START:
            text = self._begin(text)
        if self._state == _State.INSIDE:
            thought, text = self._think(text)
        if self._state == _State.BEHIND:
            text = text.lstrip()
            if text:
                self._state = _State.ANSWER
        return thought, text

    def finish(self) -> tuple[str, str]:
        """What is held back, at the end of the answer."""
        held, self._held = self._held, ""
        return (held, "") if self._state == _State.INSIDE else ("", held)

    def _begin(self, text: str) -> str:
        """What follows the opening mark; without one all is answer."""
        begun = text.lstrip()
        if begun.startswith(self._open):
            self._state, self.has_any = _State.INSIDE, True
            return begun.removeprefix(self._open)
        if self._open.startswith(begun):
            self._held = text
            return ""
        self._state = _State.ANSWER
        return text

    def _think(self, text: str) -> tuple[str, str]:
        if self._is_new:
            text = text.lstrip()
        at = text.find(self._close)
        if at >= 0:
            self._state = _State.BEHIND
            return text[:at].rstrip(), text[at + len(self._close) :]
        end = len(text) - overlap(text, self._close)
        end = len(text[:end].rstrip())
        self._held = text[end:]
        self._is_new = self._is_new and not end
        return text[:end], ""


def overlap(text: str, mark: str) -> int:
    """How many characters at the end of `text` may begin `mark`."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if mark.startswith(text[-size:]):
            return size
    return 0
