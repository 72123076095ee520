"""Tokenizers without a `tokenizer.json`: sentencepiece, tiktoken, and a checkpoint's own code.

Owns the way from transformers' AutoTokenizer to `base.Tokenizer`; must not render templates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smmf_core.engines.prompt.legacy_tokenizers import SentencePieceTokenizer, load_legacy_tokenizer
from smmf_core.engines.prompt.text import (
    HfTokenizer,
    byte_level_bytes,
    end_ids,
    read_json,
    sentencepiece_bytes,
)

_FILES = ("*.model", "*.tiktoken", "*.vocab", "vocab.*", "merges.txt", "tekken.json")
_SPACES = {"\u2581": sentencepiece_bytes, "\u0120": byte_level_bytes}  # what begins words


class SlowTokenizer:
    """A tokenizer of transformers that is Python, as `base.Tokenizer`.

    `token_bytes` is a table of what each token is by itself: bytes where the vocabulary holds
    bytes (tiktoken), else the piece by the kind of its vocabulary.
    """

    def __init__(self, tokenizer: Any, eos_ids: frozenset[int], vocab_size: int = 0) -> None:
        self._tokenizer = tokenizer
        self.eos_ids = eos_ids
        pieces = self._pieces = _pieces(tokenizer)
        self.vocab_size = max(vocab_size, len(pieces))
        added = tokenizer.added_tokens_decoder
        special = {id_ for id_, token in added.items() if token.special}
        self.special_ids = frozenset(special | set(tokenizer.all_special_ids))
        read = _piece_reader(tokenizer, pieces)
        self._ids = {piece: id_ for id_, piece in enumerate(pieces) if isinstance(piece, str)}
        self._bytes = [b""] * self.vocab_size
        for id_, piece in enumerate(pieces):
            if id_ in self.special_ids or piece is None:
                continue
            plain = id_ in added and isinstance(piece, str)
            self._bytes[id_] = str(piece).encode() if plain else read(piece)

    def encode(self, text: str, add_special: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=add_special))

    def token_id(self, piece: str) -> int | None:
        return self._ids.get(piece)

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids))

    def piece(self, token: int) -> str:
        """A vocabulary of bytes is shown as text."""
        piece = self._pieces[token] if token < len(self._pieces) else None
        return piece.decode("utf-8", "replace") if isinstance(piece, bytes) else piece or ""

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token]

    def is_special(self, token: int) -> bool:
        return token in self.special_ids


FolderTokenizer = HfTokenizer | SlowTokenizer | SentencePieceTokenizer


def load_slow_tokenizer(
    folder: Path, vocab_size: int = 0, trust_remote_code: bool = False, model_type: str = ""
) -> tuple[FolderTokenizer, dict[str, str]]:
    """The tokenizer of a folder without tokenizer.json, and its special tokens by their names.

    1. Families whose files are known need no code of the checkpoint. 2. What transformers makes of
    the folder, with the checkpoint's code if it is trusted. Raises FileNotFoundError when the
    folder has none, ValueError for one that does not load.
    """
    legacy = load_legacy_tokenizer(folder, model_type, vocab_size)
    if legacy is not None:
        return legacy, {}
    config = read_json(folder / "tokenizer_config.json")
    needs_code = "AutoTokenizer" in (config.get("auto_map") or {})
    if not needs_code and not any(any(folder.glob(pattern)) for pattern in _FILES):
        path = folder / "tokenizer.json"
        raise FileNotFoundError(f"{path} is missing: the model has no tokenizer.")
    if needs_code and not trust_remote_code:
        raise ValueError(
            f"The tokenizer of {folder} is Python code of the checkpoint: "
            "it runs only with `trust_remote_code = true` in [engine]."
        )
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise ValueError(
            f"{folder} has no tokenizer.json: its tokenizer needs the package transformers."
        ) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever the checkpoint's files or code raise
        raise ValueError(f"The tokenizer of {folder} does not load: {error}") from error
    names = {key: str(token) for key, token in tokenizer.special_tokens_map.items()}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        eos_ids = _ends(folder, tokenizer, backend.token_to_id)
        return HfTokenizer(backend, eos_ids, vocab_size), names
    eos_ids = _ends(folder, tokenizer, tokenizer.convert_tokens_to_ids)
    return SlowTokenizer(tokenizer, eos_ids, vocab_size), names


def _ends(folder: Path, tokenizer: Any, token_to_id: Any) -> frozenset[int]:
    own = tokenizer.eos_token_id
    return end_ids(folder, token_to_id) | (frozenset() if own is None else {own})


def _pieces(tokenizer: Any) -> list[str | bytes | None]:
    """All tokens as the vocabulary writes them; None where an id has none."""
    pieces: list[str | bytes | None] = []
    for id_ in range(len(tokenizer)):
        try:
            pieces.append(tokenizer.convert_ids_to_tokens(id_))
        except (IndexError, KeyError, ValueError):  # a hole in the vocabulary
            pieces.append(None)
    return pieces


def _piece_reader(tokenizer: Any, pieces: list[str | bytes | None]) -> Any:
    """Bytes of a piece, by what the vocabulary writes for a space; without such a sign, what the
    tokenizer makes of the piece alone."""
    signs = [sign for sign in _SPACES if any(isinstance(p, str) and sign in p for p in pieces)]
    from_text = _SPACES[signs[0]] if signs else None

    def read(piece: str | bytes) -> bytes:
        if isinstance(piece, bytes):
            return piece
        if from_text is not None:
            return from_text(piece)
        return str(tokenizer.convert_tokens_to_string([piece])).encode()

    return read
