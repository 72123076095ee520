"""The tokenizer of a Hugging Face model folder: text to ids, ids to bytes, ids that end a text.

Owns the table of token bytes; must not decode UTF-8 or decide what may be sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE_PIECE = "\u2581"  # sentencepiece writes a space as this lower block
_CONFIG = "tokenizer_config.json"
_SPECIAL_TOKENS = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
)  # fmt: skip


class HfTokenizer:
    """A `tokenizer.json`, as `base.Tokenizer`.

    `token_bytes` is a table of each token's own bytes: the bytes of several tokens, one after the
    other, are the text. A piece keeps its leading space wherever it stands, also as the first of
    an answer: an answer goes on from its prompt. (`decode` of sentencepiece tokenizers drops the
    space before the first word of a whole text.)
    """

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, eos_ids: frozenset[int], vocab_size: int = 0
    ) -> None:
        """`vocab_size`: rows of the model's embedding, where they are more than the tokens."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        added = tokenizer.get_added_tokens_decoder()
        pieces = {id_: piece for piece, id_ in tokenizer.get_vocab(with_added_tokens=True).items()}
        self._tokenizer = tokenizer
        self.vocab_size = max(vocab_size, max(pieces, default=-1) + 1)
        self.eos_ids = eos_ids
        self.special_ids = frozenset(id_ for id_, token in added.items() if token.special)
        self._bytes = [b""] * self.vocab_size
        read_piece = _PieceReader(tokenizer)
        for id_, piece in pieces.items():
            if id_ in added:
                self._bytes[id_] = b"" if id_ in self.special_ids else piece.encode()
            else:
                self._bytes[id_] = read_piece(piece, id_)

    def encode(self, text: str, add_special: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=add_special).ids)

    def token_id(self, piece: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(piece)
        return found

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))

    def piece(self, token: int) -> str:
        return self._tokenizer.id_to_token(token) or ""

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token]

    def is_special(self, token: int) -> bool:
        return token in self.special_ids


def load_tokenizer(folder: Path, vocab_size: int = 0) -> HfTokenizer:
    """Read `tokenizer.json` and the end-of-text ids of a model folder.

    Raises OSError for a missing file, ValueError for one that cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the model has no tokenizer.")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises plain Exception
        raise ValueError(f"{path} is not a tokenizer: {error}") from None
    return HfTokenizer(tokenizer, end_ids(folder, tokenizer.token_to_id), vocab_size)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model folder; {} when there is no such file. Raises ValueError."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object.")
    return value


def special_token(value: Any) -> str | None:
    """A special token of tokenizer_config.json: a string, or an object with its `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def special_tokens(folder: Path) -> dict[str, str]:
    """`bos_token` and so on, of special_tokens_map.json and tokenizer_config.json, which wins."""
    files = (read_json(folder / name) for name in ("special_tokens_map.json", _CONFIG))
    given = {key: value for file in files for key, value in file.items()}
    tokens = {key: special_token(given.get(key)) for key in _SPECIAL_TOKENS}
    return {key: token for key, token in tokens.items() if token is not None}


def end_ids(folder: Path, token_to_id: Callable[[str], int | None]) -> frozenset[int]:
    """The ids that end a text: those of all files together (a file names one or a list)."""
    ids: list[int | None] = []
    for name in ("generation_config.json", "config.json"):
        value = read_json(folder / name).get("eos_token_id")
        ids.extend(value if isinstance(value, list) else (value,))
    token = special_tokens(folder).get("eos_token")
    if token is not None:
        ids.append(token_to_id(token))
    return frozenset(id_ for id_ in ids if id_ is not None)


class _PieceReader:
    """A piece of the vocabulary -> its bytes, by the kind of the tokenizer's decoder.

    1. ByteLevel: every character stands for one byte. 2. Metaspace or sentencepiece: a lower
    block is a space, and `<0xNN>` a byte if there is a ByteFallback. 3. Else: what the
    tokenizer makes of that piece alone.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        decoders = _decoders(json.loads(tokenizer.to_str()).get("decoder"))
        kinds = {decoder["type"] for decoder in decoders}
        self._tokenizer = tokenizer
        self._is_byte_level = "ByteLevel" in kinds
        self._has_byte_fallback = "ByteFallback" in kinds
        self._is_metaspace = "Metaspace" in kinds or any(
            decoder["type"] == "Replace" and decoder["pattern"].get("String") == _SPACE_PIECE
            for decoder in decoders
        )

    def __call__(self, piece: str, token: int) -> bytes:
        if self._is_byte_level:
            return byte_level_bytes(piece)
        if self._is_metaspace or self._has_byte_fallback:
            return sentencepiece_bytes(piece, self._has_byte_fallback)
        return self._tokenizer.decode([token]).encode()


def _decoders(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    if decoder["type"] == "Sequence":
        return [part for child in decoder["decoders"] for part in _decoders(child)]
    return [decoder]


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: printable Latin-1 bytes are themselves, the others, in order,
    are the characters from U+0100 on (Radford et al. 2019, `bytes_to_unicode`)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + place): byte for place, byte in enumerate(others)})
    return alphabet


_ALPHABET = _byte_level_alphabet()
_LETTERS = {byte: letter for letter, byte in _ALPHABET.items()}


def sentencepiece_bytes(piece: str, has_byte_fallback: bool = True) -> bytes:
    """The bytes of a sentencepiece piece: a lower block is a space, `<0xNN>` may be a byte."""
    match = _BYTE_PIECE.fullmatch(piece) if has_byte_fallback else None
    if match:
        return bytes.fromhex(match[1])
    return piece.replace(_SPACE_PIECE, " ").encode()


def byte_level_bytes(piece: str) -> bytes:
    """The bytes of a piece of GPT-2's alphabet; of another piece, its text."""
    try:
        return bytes(_ALPHABET[character] for character in piece)
    except KeyError:  # not made of byte characters: plain text
        return piece.encode()


def byte_level_text(token: bytes) -> str:
    """Bytes in GPT-2's alphabet."""
    return "".join(map(_LETTERS.__getitem__, token))
