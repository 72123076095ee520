"""From token bytes to text that may be sent: UTF-8 hold-back and stop strings.

One TextStream per choice. Owns what is held back; must not know tokens' probabilities or records.
"""

from __future__ import annotations

import codecs

_new_decoder = codecs.getincrementaldecoder("utf-8")


class TextStream:
    """Turns pieces of bytes into text.

    `push` returns what may be sent now. Held back: an incomplete UTF-8 sequence, and any end that
    may still become a stop string. Once `stopped`, the stop string and what follows are gone
    (or the stop string is kept, with `include_stop`).
    """

    __slots__ = ("_decoder", "_held", "_include_stop", "_longest", "_stops", "stop", "stopped")

    def __init__(self, stops: list[str], include_stop: bool) -> None:
        self._stops = stops
        self._include_stop = include_stop
        self._longest = max(map(len, stops), default=0)
        self._decoder: codecs.IncrementalDecoder | None = None
        self._held = ""
        self.stopped = False
        self.stop = ""  # which string stopped it

    @property
    def holds(self) -> bool:
        """Whether something is held back."""
        decoder = self._decoder
        return bool(self._held) or (decoder is not None and bool(decoder.getstate()[0]))

    def push(self, piece: bytes) -> str:
        if self._decoder is None:
            if piece.isascii():
                text = piece.decode("ascii")
            else:
                self._decoder = _new_decoder("replace")
                text = self._decoder.decode(piece)
        else:
            text = self._decoder.decode(piece)
        return self._match(text) if self._stops else text

    def finish(self) -> str:
        """What is still held back, at the end of the answer; half a character becomes U+FFFD."""
        tail = self._decoder.decode(b"", True) if self._decoder is not None else ""
        if not self._stops:
            return tail
        text = self._match(tail)
        held, self._held = self._held, ""
        return text + held

    def _match(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        self._held = ""
        at, stop = _earliest(text, self._stops)
        if at >= 0:
            self.stopped, self.stop = True, stop
            return text[: at + len(stop)] if self._include_stop else text[:at]
        keep = _possible_stop(text, self._stops, self._longest)
        if keep:
            self._held = text[len(text) - keep :]
            return text[: len(text) - keep]
        return text


def _earliest(text: str, stops: list[str]) -> tuple[int, str]:
    """The stop string that is complete first in `text`; (-1, "") when none is.

    "First" is by its end, as if the text came character by character; of two that end together
    the longer one wins, which leaves less text.
    """
    best = (-1, "")
    best_end = len(text) + 1
    for stop in stops:
        at = text.find(stop)
        if at < 0:
            continue
        end = at + len(stop)
        if end < best_end or (end == best_end and len(stop) > len(best[1])):
            best, best_end = (at, stop), end
    return best


def _possible_stop(text: str, stops: list[str], longest: int) -> int:
    """How many characters at the end of `text` could begin a stop string."""
    for size in range(min(longest - 1, len(text)), 0, -1):
        end = text[-size:]
        if any(stop.startswith(end) for stop in stops):
            return size
    return 0
