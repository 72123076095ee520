"""A model's vocabulary as llguidance wants it: the bytes of every token, and what ends an answer.

Owns that translation, made once per model; must not know grammars. It works for every tokenizer
that tells its tokens' bytes (base.Tokenizer): byte level, sentencepiece, tiktoken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smmf_core.engines.base import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_SENTINEL = "\x02"  # put before a text, so that no space is


def make_vocabulary(tokenizer: Tokenizer, vocab_size: int) -> LLTokenizer:
    """`vocab_size`: the width of the model's logits; what lies behind the tokenizer's is never
    chosen. Raises ImportError."""
    import llguidance

    words = _Words(tokenizer, vocab_size)
    wrapped = llguidance.TokenizerWrapper(words)
    ends = sorted(end for end in tokenizer.eos_ids if 0 <= end < vocab_size)
    slices = llguidance.LLTokenizer.json_slices()
    return llguidance.LLTokenizer(
        wrapped, n_vocab=len(words.tokens), eos_token=ends or [words.eos_token_id], slices=slices
    )


class _Words:
    """What llguidance's TokenizerWrapper reads. Special tokens have no text: they get names that no
    text can have, and grammars name them by id. A model without an end of text is given one
    behind its vocabulary, which no logit has."""

    bos_token_id: int | None = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        known = min(tokenizer.vocab_size, vocab_size)
        special = {token for token in range(known) if tokenizer.is_special(token)}
        special.update(end for end in tokenizer.eos_ids if 0 <= end < known)
        self.tokens = [
            b"<|%d|>" % token if token in special else tokenizer.token_bytes(token)
            for token in range(known)
        ]
        self.tokens += [b""] * (vocab_size - known)
        self.eos_token_id = min(special.intersection(tokenizer.eos_ids), default=vocab_size)
        if self.eos_token_id == vocab_size:
            special.add(vocab_size)
            self.tokens.append(b"<|end|>")
        self.special_token_ids = sorted(special)
        self._tokenizer = tokenizer
        self._by_bytes: dict[bytes, int] = {}
        self._longest = 0

    def __call__(self, text: bytes | str) -> list[int]:
        """The tokens that a model would write for a forced text: the tokenizer's own if their bytes
        are that text, else the longest that fit, one after the other."""
        data = text.encode() if isinstance(text, str) else text
        try:
            shown = data.decode()
        except UnicodeDecodeError:
            return self._greedy(data)
        for prefix in ("", _SENTINEL):
            ids = self._tokenizer.encode(prefix + shown, add_special=False)
            ids = self._after(ids, len(prefix)) if prefix else ids
            if b"".join([self.tokens[id_] for id_ in ids]) == data:
                return ids
        return self._greedy(data)

    def _after(self, ids: list[int], count: int) -> list[int]:
        """What is left when the sentinel's own tokens are taken off."""
        for place, id_ in enumerate(ids, 1):
            if self.tokens[id_].endswith(_SENTINEL.encode()):
                return ids[place:]
        return ids[count:]

    def _greedy(self, data: bytes) -> list[int]:
        if not self._by_bytes:
            special = set(self.special_token_ids)
            words = [(w, id_) for id_, w in enumerate(self.tokens) if w and id_ not in special]
            self._by_bytes = dict(reversed(words))
            self._longest = max(map(len, self._by_bytes), default=0)
        ids: list[int] = []
        at = 0
        while at < len(data):
            for size in range(min(self._longest, len(data) - at), 0, -1):
                id_ = self._by_bytes.get(data[at : at + size])
                if id_ is not None:
                    ids.append(id_)
                    at += size
                    break
            else:
                break  # a byte that no token has: the rest cannot be written
        return ids


def special_id(tokenizer: Any, piece: str) -> int | None:
    """The id of a special token by its name; None for what is written as text."""
    find = getattr(tokenizer, "token_id", None)
    token: int | None = find(piece) if find is not None else None
    return token if token is not None and tokenizer.is_special(token) else None
