"""One choice whose answer is read for thoughts and calls of tools.

Owns the records that these become; what they look like in text is parse/'s.
"""

from __future__ import annotations

from collections.abc import Mapping

from smmf_core.engines.base import Logprobs, Sequence, Tokenizer
from smmf_core.messages import (
    CHOICE_END,
    LENGTH,
    REASONING,
    STOP,
    TOKENS,
    TOOL,
    TOOL_CALLS,
    Choice,
    Record,
    ToolCall,
    ToolDelta,
    encode,
)
from smmf_core.worker.choice import ChoiceState, pack_ids
from smmf_core.worker.parse import CALL, CONTENT, Chain, Piece
from smmf_core.worker.reading import is_named


class ReadChoice(ChoiceState):
    """A ChoiceState with a Chain behind its text. Each token counts in one record."""

    __slots__ = ("_chain", "_is_named", "_marks", "_thoughts", "_tool_calls", "reasoning_tokens")

    def __init__(
        self,
        sequence: Sequence,
        index: int,
        tokenizer: Tokenizer,
        chain: Chain,
        marks: Mapping[int, bytes],
    ) -> None:
        super().__init__(sequence, index, tokenizer)
        self._chain = chain
        self._marks = marks
        self._is_named = is_named(sequence.submit.tool_choice)
        self._is_plain = self.is_whole = False
        self._thoughts: list[str] = []
        self._tool_calls: list[ToolCall] = []
        self.reasoning_tokens = 0

    def push(self, token: int, logprobs: Logprobs | None, ended: bool, out: list[Record]) -> None:
        self.tokens += 1
        is_end = token in self._stop_ids
        piece = b"" if is_end else self._bytes(token)
        if self._logprobs is not None and logprobs is not None and not is_end:
            self._unsent.append(self._describe(token, piece, logprobs))
        was_thinking = self._chain.is_thinking
        pieces = self._chain.push(self._text.push(piece))
        if was_thinking or self._chain.is_thinking:
            self.reasoning_tokens = self.tokens
        self._give(pieces, [token], out)
        if self._chain.is_full:
            self.end(STOP, out)
        else:
            self._end_if_due(is_end or ended, out)

    def replay(self, tokens: list[int]) -> None:
        for token in tokens:
            was_thinking = self._chain.is_thinking
            self._chain.push(self._text.push(self._bytes(token)))
            self.tokens += 1
            if was_thinking or self._chain.is_thinking:
                self.reasoning_tokens = self.tokens

    def end(self, reason: int, out: list[Record]) -> None:
        rest = "" if self._text.stopped else self._text.finish()
        pieces = [*self._chain.push(rest), *self._chain.finish(is_cut=reason == LENGTH)]
        if pieces:
            self._give(pieces, [], out)
        if reason == STOP and self._chain.calls and not self._is_named:
            reason = TOOL_CALLS
        self.reason = reason
        if self.stream:
            stop = self._text.stop.encode("utf-8", "replace")
            out.append((CHOICE_END, self._key, self._attempt, self._index, reason, stop))

    def result(self) -> Choice:
        found = super().result()
        found.reasoning = "".join(self._thoughts)
        found.tool_calls = self._tool_calls
        return found

    def _bytes(self, token: int) -> bytes:
        return self._marks.get(token) or self._bytes_of(token)

    def _give(self, pieces: list[Piece], ids: list[int], out: list[Record]) -> None:
        """The records of what one token let through; the token goes with the first."""
        for kind, text, deltas in pieces:
            if kind == CONTENT:
                self._give_content(text, ids, out)
            elif not self.stream:
                self._keep(kind, text, deltas)
                self._ids += ids
            elif kind == CALL:
                self._record(TOOL, ids, encode(deltas), out)
            else:
                payload = pack_ids(ids) + text.encode("utf-8", "replace")
                self._record(REASONING, ids, payload, out)
            ids = []
        if not self._chain.holds:
            self._unsent = []  # tokens of thoughts and calls are not listed
        if ids and self.stream:
            self._record(TOKENS, ids, pack_ids(ids), out)
        elif ids:
            self._ids += ids

    def _give_content(self, text: str, ids: list[int], out: list[Record]) -> None:
        """With the logprobs of the tokens that lie wholly in it."""
        if self._logprobs is None:
            self._send(text, ids, out)
            return
        wanted = text.encode("utf-8", "replace")
        all_ = b"".join([described.token for described in self._unsent])
        start = max(0, all_.find(wanted))
        at, later = 0, []
        covered = []
        for described in self._unsent:
            end = at + len(described.token)
            if at >= start and end <= start + len(wanted):
                covered.append(described)
            elif end > start + len(wanted):
                later.append(described)
            at = end
        self._unsent = covered
        self._send(text, ids, out)
        self._unsent = later

    def _keep(self, kind: int, text: str, deltas: list[ToolDelta]) -> None:
        if kind != CALL:
            self._thoughts.append(text)
            return
        for delta in deltas:
            if delta.id:
                at = sum(map(len, self._parts))
                self._tool_calls.append(ToolCall(delta.id, delta.name, "", at))
            self._tool_calls[-1].arguments += delta.arguments

    def _record(self, kind: int, ids: list[int], payload: bytes, out: list[Record]) -> None:
        out.append((kind, self._key, self._attempt, self._index, len(ids), payload))
