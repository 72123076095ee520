"""A tokenizer of bytes, for tests of grammars."""

from __future__ import annotations

END, OTHER_END, CALL = 256, 257, 258  # special tokens
VOCAB = 300  # of the logits: more than there are tokens


class Bytes:
    """A token per byte, then special ones."""

    vocab_size = 260
    eos_ids = frozenset({END, OTHER_END})

    def encode(self, text: str, add_special: bool) -> list[int]:
        return list(text.encode())

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < END else b""

    def is_special(self, token: int) -> bool:
        return token >= END

    def token_id(self, piece: str) -> int | None:
        return {"[TOOL_CALLS]": CALL}.get(piece)
