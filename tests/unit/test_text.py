"""The tokenizer: bytes of every kind of vocabulary, and the ids that end a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.tiny import BOS, EOS, PAD, make_tokenizer, write_json
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from smmf_core.engines.prompt.text import HfTokenizer, load_tokenizer

BYTE_LEVEL = make_tokenizer()


def text_of(tokenizer: HfTokenizer, ids: list[int]) -> str:
    return b"".join(map(tokenizer.token_bytes, ids)).decode("utf-8", "replace")


def sentencepiece() -> Tokenizer:
    """As Llama 2's: spaces are lower blocks, unknown characters fall back to bytes."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab.update({f"<0x{byte:02X}>": 3 + byte for byte in range(256)})
    for piece in ["\u2581", "\u2581hello", "\u2581world", "l", "o", "\u00e9"]:
        vocab[piece] = len(vocab)
    raw = models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(raw)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


# --- byte level ---


@given(st.text())
def test_byte_level_bytes_are_the_text(text: str) -> None:
    tokenizer = HfTokenizer(BYTE_LEVEL, frozenset())
    ids = tokenizer.encode(text, add_special=True)
    assert text_of(tokenizer, ids) == BYTE_LEVEL.decode(ids, skip_special_tokens=True)
    plain = tokenizer.encode(text, add_special=False)
    if not any(name in text for name in (BOS, EOS, PAD)):
        assert text_of(tokenizer, plain) == text


@given(st.lists(st.integers(0, BYTE_LEVEL.get_vocab_size() - 1)))
def test_byte_level_bytes_of_any_ids(ids: list[int]) -> None:
    """Also of ids whose bytes are no text: U+FFFD in the same places."""
    tokenizer = HfTokenizer(BYTE_LEVEL, frozenset())
    assert text_of(tokenizer, ids) == BYTE_LEVEL.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "e\u0301a\u0308",
        "\u4f61\u597d\u5417",
        " a  b\n\t",
    ],
)
def test_byte_level_of_many_scripts(text: str) -> None:
    tokenizer = HfTokenizer(BYTE_LEVEL, frozenset())
    ids = tokenizer.encode(text, add_special=False)
    assert text_of(tokenizer, ids) == text
    if not text.isascii():
        assert any(len(tokenizer.token_bytes(token)) == 1 for token in ids)  # split characters


def test_byte_level_covers_all_bytes() -> None:
    tokenizer = HfTokenizer(BYTE_LEVEL, frozenset())
    single = {tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)}
    assert {bytes([byte]) for byte in range(256)} <= single


# --- special and added tokens ---


def test_special_tokens_have_no_bytes_and_added_plain_ones_do() -> None:
    tokenizer = HfTokenizer(BYTE_LEVEL, frozenset())
    bos, plain = BYTE_LEVEL.token_to_id(BOS), BYTE_LEVEL.token_to_id("[plain]")
    assert tokenizer.special_ids == {BYTE_LEVEL.token_to_id(name) for name in (BOS, EOS, PAD)}
    assert tokenizer.is_special(bos)
    assert tokenizer.token_bytes(bos) == b""
    assert not tokenizer.is_special(plain)
    assert tokenizer.token_bytes(plain) == b"[plain]"


def test_added_tokens_with_spaces_and_accents() -> None:
    raw = Tokenizer.from_str(BYTE_LEVEL.to_str())
    raw.add_tokens([AddedToken("<caf\u00e9 au lait>", special=False)])
    tokenizer = HfTokenizer(raw, frozenset())
    ids = tokenizer.encode("a<caf\u00e9 au lait>b", add_special=False)
    assert text_of(tokenizer, ids) == "a<caf\u00e9 au lait>b"


def test_encode_adds_special_tokens_only_when_asked() -> None:
    tokenizer = HfTokenizer(BYTE_LEVEL, frozenset())
    bos = BYTE_LEVEL.token_to_id(BOS)
    plain = tokenizer.encode("the fox", add_special=False)
    assert tokenizer.encode("the fox", add_special=True) == [bos, *plain]
    assert tokenizer.encode(BOS, add_special=False) == [bos]  # as chat templates need it


def test_rows_beyond_the_tokens_have_no_bytes() -> None:
    tokenizer = HfTokenizer(BYTE_LEVEL, frozenset(), vocab_size=1000)
    assert tokenizer.vocab_size == 1000
    assert tokenizer.token_bytes(999) == b""
    assert not tokenizer.is_special(999)


def test_truncation_and_padding_of_the_file_are_not_heeded() -> None:
    raw = Tokenizer.from_str(BYTE_LEVEL.to_str())
    raw.enable_truncation(4)
    raw.enable_padding(length=4)
    tokenizer = HfTokenizer(raw, frozenset())
    assert len(tokenizer.encode("x" * 50, add_special=False)) == 50
    assert len(tokenizer.encode("x", add_special=False)) == 1


# --- other vocabularies ---


def test_sentencepiece_keeps_the_leading_space() -> None:
    raw = sentencepiece()
    tokenizer = HfTokenizer(raw, frozenset())
    ids = [raw.token_to_id("\u2581hello"), raw.token_to_id("\u2581world")]
    assert text_of(tokenizer, ids) == " hello world"
    assert raw.decode(ids) == "hello world"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_sentencepiece_falls_back_to_bytes(text: str) -> None:
    raw = sentencepiece()
    tokenizer = HfTokenizer(raw, frozenset())
    ids = tokenizer.encode(text, add_special=False)
    if not any(name in text for name in ("<s>", "</s>", "\u2581")):
        assert text_of(tokenizer, ids) == " " + text


def test_metaspace() -> None:
    raw = Tokenizer(models.WordLevel({"\u2581a": 0, "\u2581b": 1, "c": 2}, unk_token="c"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    tokenizer = HfTokenizer(raw, frozenset())
    assert text_of(tokenizer, [0, 2, 1]) == " ac b"


def test_other_decoders_give_what_decode_gives() -> None:
    raw = Tokenizer(models.WordLevel({"a": 0, "b@@": 1}, unk_token="a"))
    raw.decoder = decoders.BPEDecoder(suffix="@@")
    tokenizer = HfTokenizer(raw, frozenset())
    for token in (0, 1):
        assert tokenizer.token_bytes(token).decode() == raw.decode([token])


# --- the files of a folder ---


def folder_with(folder: Path, **files: Any) -> Path:
    BYTE_LEVEL.save(str(folder / "tokenizer.json"))
    for name, content in files.items():
        write_json(folder / f"{name}.json", content)
    return folder


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        ({}, set()),
        ({"config": {"eos_token_id": 5}}, {5}),
        ({"config": {"eos_token_id": None}}, set()),
        ({"config": {"eos_token_id": 5}, "generation_config": {"eos_token_id": [6, 7]}}, {5, 6, 7}),
        ({"tokenizer_config": {"eos_token": EOS}}, {1}),
        ({"tokenizer_config": {"eos_token": {"content": EOS, "lstrip": False}}}, {1}),
        ({"tokenizer_config": {"eos_token": "no such token"}}, set()),
    ],
)
def test_end_ids(tmp_path: Path, files: dict[str, Any], ids: set[int]) -> None:
    assert load_tokenizer(folder_with(tmp_path, **files)).eos_ids == ids


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    folder_with(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is not valid JSON"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    with pytest.raises(ValueError, match="is not a tokenizer"):
        load_tokenizer(tmp_path)
