"""The tokenizer and the chat template that a GGUF file carries.

Owns the table of token bytes; must not import llama.cpp: the loaded vocabulary is given.
"""

from __future__ import annotations

from typing import Protocol

from smmf_core.engines.prompt.template import ChatTemplate

_TEMPLATE_TOKENS = ("bos", "eos", "sep", "pad", "mask")


class Vocabulary(Protocol):
    """What is asked of a loaded model's vocabulary (api.Model)."""

    vocab_size: int

    def tokenize(self, text: str, add_special: bool) -> list[int]: ...
    def piece(self, token: int, special: bool) -> bytes: ...
    def is_end(self, token: int) -> bool: ...
    def is_control(self, token: int) -> bool: ...
    def special_token(self, name: str) -> int: ...
    def token_text(self, token: int) -> str: ...
    def chat_template(self, name: str | None = None) -> str | None: ...


class GgufEncoder:
    """A GGUF vocabulary, as `base.Encoder`."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.vocab_size = vocabulary.vocab_size

    def encode(self, text: str, add_special: bool) -> list[int]:
        return self._vocabulary.tokenize(text, add_special)

    def decode(self, ids: list[int]) -> str:
        pieces = [self._vocabulary.piece(token, special=True) for token in ids]
        return b"".join(pieces).decode("utf-8", "replace")

    def piece(self, token: int) -> str:
        return self._vocabulary.token_text(token)


class GgufTokenizer(GgufEncoder):
    """A GGUF vocabulary, as `base.Tokenizer`.

    What ends an answer is llama.cpp's own finding: the tokens that the file names as ends (of
    text, of turn, of message), and those of well-known names.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        ids = range(self.vocab_size)
        self._bytes = [vocabulary.piece(token, special=False) for token in ids]
        self.eos_ids = frozenset(token for token in ids if vocabulary.is_end(token))
        self.special_ids = frozenset(token for token in ids if vocabulary.is_control(token))
        self.end_with(self.eos_ids)

    def end_with(self, ids: frozenset[int]) -> None:
        """These tokens end an answer, too: they have no text."""
        self.eos_ids |= ids
        self.special_ids |= ids
        for token in ids:
            self._bytes[token] = b""

    def token_id(self, piece: str) -> int | None:
        """The token that is exactly this text; None if there is none."""
        ids = self._vocabulary.tokenize(piece, add_special=False)
        is_one = len(ids) == 1 and self._vocabulary.piece(ids[0], special=True) == piece.encode()
        return ids[0] if is_one else None

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token]

    def is_special(self, token: int) -> bool:
        return token in self.special_ids


def read_chat_template(vocabulary: Vocabulary) -> ChatTemplate | None:
    """The file's own, None if it has none. Raises ValueError for one that does not compile."""
    named = {
        name: text
        for name, key in (("default", None), ("tool_use", "tool_use"))
        if (text := vocabulary.chat_template(key))
    }
    return ChatTemplate(named, template_tokens(vocabulary)) if "default" in named else None


def template_tokens(vocabulary: Vocabulary) -> dict[str, str]:
    """The special tokens that a template may name: `bos_token` ... -> text."""
    ids = {name: vocabulary.special_token(name) for name in _TEMPLATE_TOKENS}
    return {f"{n}_token": vocabulary.token_text(id_) for n, id_ in ids.items() if id_ >= 0}
