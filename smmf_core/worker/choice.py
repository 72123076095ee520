"""One choice of a request while it is generated: tokens in, text and records out.

Owns the count, the text pipeline, the end of the choice and its logprobs; must not know engines.
"""

from __future__ import annotations

from struct import Struct

from smmf_core.engines.base import Logprobs, Sequence, Tokenizer
from smmf_core.messages import (
    CHOICE_END,
    DATA,
    LENGTH,
    STOP,
    TOKENS,
    Choice,
    Record,
    TokenBatch,
    TokenLogprob,
    encode,
)
from smmf_core.worker.text import TextStream

_ID = Struct("<i").pack
_PACKED = 65_536
_NONE: frozenset[int] = frozenset()
_IDS = [_ID(i) for i in range(_PACKED)]  # most vocabularies' ids, packed once


def pack_ids(ids: list[int]) -> bytes:
    """As TOKENS has them (csrc/FORMAT.md)."""
    return b"".join(map(_ID, ids))


class ChoiceState:
    """Turns a sequence's tokens into records of a stream, or into a Choice of an aggregated answer.

    `reason` is None until the choice has ended.
    """

    __slots__ = (
        "_attempt",
        "_bytes_of",
        "_ids",
        "_index",
        "_is_plain",
        "_key",
        "_limit",
        "_logprobs",
        "_parts",
        "_stop_ids",
        "_text",
        "_unsent",
        "is_whole",
        "reason",
        "sequence",
        "stream",
        "tokens",
    )
    reasoning_tokens = 0

    def __init__(self, sequence: Sequence, index: int, tokenizer: Tokenizer) -> None:
        submit, params = sequence.submit, sequence.params
        self.sequence = sequence
        self.stream = submit.stream
        self.tokens = 0
        self.reason: int | None = None
        self._key, self._attempt, self._index = submit.key, submit.attempt, index
        self._bytes_of = tokenizer.token_bytes
        self._limit = sequence.max_new_tokens
        self._text = TextStream(params.stop, params.include_stop)
        stop_ids = frozenset(params.stop_token_ids) if params.stop_token_ids else _NONE
        self._stop_ids = stop_ids if params.ignore_eos else stop_ids | tokenizer.eos_ids
        self._parts: list[str] = []
        self._ids: list[int] = []
        self._logprobs: list[TokenLogprob] | None = [] if params.logprobs is not None else None
        is_simple = self._logprobs is None and not params.stop
        self._is_plain = self.stream and is_simple
        self.is_whole = is_simple and not self.stream and not submit.emitted_ids
        self._unsent: list[TokenLogprob] = []  # logprobs of tokens whose text is held back

    def push(self, token: int, logprobs: Logprobs | None, ended: bool, out: list[Record]) -> None:
        """Take the next token; append the records it causes. Sets `reason` when it was the last."""
        self.tokens += 1
        is_end = token in self._stop_ids
        piece = b"" if is_end else self._bytes_of(token)
        if self._is_plain and piece.isascii() and not self._text.holds:
            # the hot path: nothing is held back, nothing to match
            ids = _IDS[token] if token < _PACKED else _ID(token)
            out.append((TOKENS, self._key, self._attempt, self._index, 1, ids + piece))
            if is_end or ended or self.tokens >= self._limit:
                self._end_if_due(is_end or ended, out)
            return
        if self._logprobs is not None and logprobs is not None and not is_end:
            self._unsent.append(self._describe(token, piece, logprobs))
        self._emit(self._text.push(piece), token, out)
        self._end_if_due(is_end or ended, out)

    def keep(self, token: int, ended: bool) -> bool:
        """Take the next token of a whole answer: nobody sees it before its end, it becomes text
        there. Returns whether it was the last."""
        ids = self._ids
        ids.append(token)
        self.tokens = count = len(ids)
        if ended or token in self._stop_ids:
            self.reason = STOP
        elif count >= self._limit:
            self.reason = LENGTH
        else:
            return False
        return True

    def replay(self, tokens: list[int]) -> None:
        """Go through tokens that another Worker has already sent: same state, nothing sent."""
        for token in tokens:
            self._text.push(self._bytes_of(token))
            self.tokens += 1

    def prompt_text(self, text: str, described: list[TokenLogprob], out: list[Record]) -> None:
        """Completions' `echo`: the prompt itself comes first, with its logprobs if asked for."""
        if self._logprobs is not None:
            self._unsent += described
        self._send(text, [], out)

    def end(self, reason: int, out: list[Record]) -> None:
        """End the choice: flush what is held back, then say why it ended."""
        self.reason = reason
        rest = "" if self._text.stopped else self._text.finish()
        if rest or self._unsent:
            self._send(rest, [], out)
        if self.stream:
            stop = self._text.stop.encode("utf-8", "replace")
            out.append((CHOICE_END, self._key, self._attempt, self._index, reason, stop))

    def result(self) -> Choice:
        """The finished choice of an aggregated answer."""
        assert self.reason is not None
        text = "".join(self._parts)
        if self.is_whole:
            is_end = self._ids and self._ids[-1] in self._stop_ids
            shown = self._ids[:-1] if is_end else self._ids
            text += b"".join(map(self._bytes_of, shown)).decode("utf-8", "replace")
        stop = self._text.stop
        return Choice(text, self._ids, self.reason, self._logprobs, stop=stop)

    def _end_if_due(self, is_end: bool, out: list[Record]) -> None:
        """Rules, in this order: 1 a stop string or stop token; 2 the length."""
        if is_end or self._text.stopped:
            self.end(STOP, out)
        elif self.tokens >= self._limit:
            self.end(LENGTH, out)

    def _emit(self, text: str, token: int, out: list[Record]) -> None:
        if self._logprobs is None or not self._text.holds:
            self._send(text, [token], out)
        elif text:
            self._send_covered(text, token, out)

    def _send_covered(self, text: str, token: int, out: list[Record]) -> None:
        """Send `text` with the logprobs of the tokens that lie wholly in it; the rest waits."""
        length = len(text.encode())
        covered = 0
        while covered < len(self._unsent) and length >= len(self._unsent[covered].token):
            length -= len(self._unsent[covered].token)
            covered += 1
        self._unsent, later = self._unsent[:covered], self._unsent[covered:]
        self._send(text, [token], out)
        self._unsent = later

    def _send(self, text: str, ids: list[int], out: list[Record]) -> None:
        if self._text.stopped:
            self._drop_stopped(text)
        described, self._unsent = self._unsent, []
        if not self.stream:
            self._parts.append(text)
            self._ids += ids
            if self._logprobs is not None:
                self._logprobs += described
        elif self._logprobs is not None:
            batch = encode(TokenBatch(text, ids, described))
            out.append((DATA, self._key, self._attempt, self._index, len(ids), batch))
        else:
            packed = pack_ids(ids) + text.encode("utf-8", "replace")
            out.append((TOKENS, self._key, self._attempt, self._index, len(ids), packed))

    def _drop_stopped(self, text: str) -> None:
        """Tokens of the stop string are not listed: keep those that lie in the text sent."""
        length = len(text.encode())
        kept = []
        for described in self._unsent:
            length -= len(described.token)
            if length < 0:
                break
            kept.append(described)
        self._unsent = kept

    def _describe(self, token: int, piece: bytes, logprobs: Logprobs) -> TokenLogprob:
        bytes_of = self._bytes_of
        chosen, top = logprobs
        return TokenLogprob(piece, chosen, [(bytes_of(t), p) for t, p in top])
