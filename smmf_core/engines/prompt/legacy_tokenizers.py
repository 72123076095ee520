"""Vocabularies in the files of families whose own tokenizer is Python code: sentencepiece models
and tiktoken ranks.

Owns the way from these files to `base.Tokenizer`, without a checkpoint's code; must not know
templates.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from smmf_core.engines.prompt.text import (
    HfTokenizer,
    byte_level_text,
    end_ids,
    read_json,
    sentencepiece_bytes,
    special_tokens,
)

_CHATGLM = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
_CHATGLM_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
_QWEN_SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{n}|>" for n in range(205))
]  # fmt: skip
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {"qwen": _WORDS % "", "chatglm": _WORDS % "{1,3}"}  # how text falls into words
_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+=* \d+")
_BOS_FAMILIES = ("internlm", "internlm2")
_ICE_SPECIAL = ("[gMASK]", "<sop>", "<eop>")
_ICE_BLANK = re.compile(r"<\|blank_(\d+)\|>")
_BLANKS = re.compile(" {2,80}")
_USER_PIECE = re.compile(r"<reserved_\d+>")  # Baichuan's speakers


class SentencePieceTokenizer:
    """A sentencepiece model with tokens added to it, as `base.Tokenizer`.

    Added tokens are found in the text first; what lies between them is encoded piece by piece,
    each with the space before it that the model's own settings ask for.
    """

    def __init__(
        self, model: Any, added: dict[str, list[int]], prefix: list[int], vocab_size: int = 0
    ) -> None:
        """`prefix`: the ids that begin a text."""
        self._model = model
        self._added = added
        self._prefix = prefix
        own = model.get_piece_size()
        added_ids = {id_ for ids in added.values() for id_ in ids}
        self.vocab_size = max(vocab_size, own, *(id_ + 1 for id_ in added_ids))
        self.eos_ids: frozenset[int] = frozenset()
        unwritten = {id_ for id_ in range(own) if model.is_control(id_) or model.is_unknown(id_)}
        self.special_ids = frozenset(unwritten | added_ids)
        self._bytes = [b""] * self.vocab_size
        for id_ in set(range(own)) - self.special_ids:
            self._bytes[id_] = sentencepiece_bytes(model.id_to_piece(id_), model.is_byte(id_))
        self._names = {ids[0]: name for name, ids in added.items() if len(ids) == 1}
        longest_first = sorted(added, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if added else None

    def encode(self, text: str, add_special: bool) -> list[int]:
        ids = list(self._prefix) if add_special else []
        for part in self._split.split(text) if self._split else [text]:
            if part in self._added:
                ids += self._added[part]
            elif part:
                ids += self._model.encode(part)
        return ids

    def token_id(self, piece: str) -> int | None:
        if len(self._added.get(piece, ())) == 1:
            return self._added[piece][0]
        id_: int = self._model.piece_to_id(piece)
        return None if self._model.is_unknown(id_) else id_

    def piece(self, token: int) -> str:
        if token in self._names or token >= self._model.get_piece_size():
            return self._names.get(token, "")
        return str(self._model.id_to_piece(token))

    def token_bytes(self, token: int) -> bytes:
        return self._bytes[token]

    def is_special(self, token: int) -> bool:
        return token in self.special_ids


class IceTokenizer(SentencePieceTokenizer):
    """ChatGLM 1's: line ends, tabs and runs of spaces are pieces with names; a text ends with what
    begins an answer."""

    def __init__(self, model: Any, vocab_size: int) -> None:
        ends = {piece: [model.piece_to_id(piece)] for piece in _ICE_SPECIAL}
        super().__init__(model, ends, [], vocab_size)
        self._suffix = ends["[gMASK]"] + ends["<sop>"]
        for id_ in range(model.get_piece_size()):
            if (written := _ice_text(model.id_to_piece(id_))) is not None:
                self._bytes[id_] = written.encode()

    def encode(self, text: str, add_special: bool) -> list[int]:
        named = text.replace("\n", "<n>").replace("\t", "<|tab|>")
        named = _BLANKS.sub(lambda blanks: f"<|blank_{len(blanks[0])}|>", named)
        return super().encode(named, False) + (self._suffix if add_special else [])


def _ice_text(piece: str) -> str | None:
    if match := _ICE_BLANK.fullmatch(piece):
        return " " * int(match[1])
    return {"<n>": "\n", "<|tab|>": "\t"}.get(piece)


def load_legacy_tokenizer(
    folder: Path, model_type: str, vocab_size: int
) -> HfTokenizer | SentencePieceTokenizer | None:
    """None for a family that is not one of these, or a folder without such a file."""
    if model_type not in ("baichuan", "chatglm", "internlm", "internlm2", "qwen"):
        return None
    paths = [*folder.glob("*.tiktoken"), folder / "tokenizer.model", folder / "ice_text.model"]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    data = path.read_bytes()
    if _RANK_LINE.match(data):
        return _from_ranks(folder, data, model_type, vocab_size)
    return _from_sentencepiece(folder, path, model_type, vocab_size)


def _from_sentencepiece(
    folder: Path, path: Path, model_type: str, vocab_size: int
) -> SentencePieceTokenizer:
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise ValueError(f"{path} needs the package sentencepiece.") from None
    try:
        model = SentencePieceProcessor(model_file=str(path))
    except Exception as error:  # RuntimeError, OSError, by version
        raise ValueError(f"{path} is not a sentencepiece model: {error}") from None
    if path.name == "ice_text.model":
        if read_json(folder / "tokenizer_config.json").get("num_image_tokens"):
            raise ValueError(f"{folder} is an early revision, which counts image tokens: no more.")
        ice = IceTokenizer(model, vocab_size)
        ice.eos_ids = end_ids(folder, ice.token_id)
        return ice
    own = model.get_piece_size()
    pieces = {model.id_to_piece(id_): id_ for id_ in range(own)}
    ends = [model.id_to_piece(id_) for id_ in (model.bos_id(), model.eos_id()) if id_ >= 0]
    split = {*ends, *special_tokens(folder).values(), *filter(_USER_PIECE.fullmatch, pieces)}
    added = {piece: [pieces[piece]] for piece in split if piece in pieces}
    added |= {piece: [id_] for piece, id_ in _added(folder).items()}
    prefix: list[int] = []
    if model_type == "chatglm":
        added |= {piece: [own + n] for n, piece in enumerate((*_CHATGLM, *_CHATGLM_ROLES))}
        prefix = added["[gMASK]"] + added["sop"]
        del added["sop"], added["eop"]  # as text they are parts of words
        added["[gMASK]sop"] = prefix
    elif model_type in _BOS_FAMILIES:
        prefix = [model.bos_id()]
    tokenizer = SentencePieceTokenizer(model, added, prefix, vocab_size)
    tokenizer.eos_ids = end_ids(folder, tokenizer.token_id) | {model.eos_id()} - {-1}
    return tokenizer


def _from_ranks(folder: Path, data: bytes, model_type: str, vocab_size: int) -> HfTokenizer:
    lines = (line.split() for line in data.splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    merges = [(byte_level_text(left), byte_level_text(right)) for left, right in _merges(ranks)]
    vocab = {byte_level_text(token): rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    if model_type == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(PATTERNS[model_type]), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    added = _added(folder)
    specials = sorted(added, key=added.__getitem__) or _QWEN_SPECIAL  # their ids follow the ranks
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in specials])
    wrong = [piece for piece, id_ in added.items() if tokenizer.token_to_id(piece) != id_]
    if wrong:
        raise ValueError(f"{folder}: token {wrong[0]} is not where tokenizer_config.json has it.")
    own_end = tokenizer.token_to_id("<|endoftext|>")
    ends = end_ids(folder, tokenizer.token_to_id)
    return HfTokenizer(tokenizer, ends | ({own_end} if own_end is not None else set()), vocab_size)


def _merges(ranks: dict[bytes, int]) -> Iterable[tuple[bytes, bytes]]:
    """The two parts that each token is merged from: those at which merging stands when only pairs
    of a lower rank have been merged."""
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
            best = min(pairs)
            if best >= rank:
                break
            at = pairs.index(best)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            yield parts[0], parts[1]


def _added(folder: Path) -> dict[str, int]:
    """Tokens that the folder's JSON files add to the vocabulary."""
    listed = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    added = {token["content"]: int(id_) for id_, token in listed.items()}
    return {**read_json(folder / "added_tokens.json"), **added}
