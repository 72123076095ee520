"""Tokenizers that are not a tokenizer.json: their bytes are the text, their ids the library's."""

from __future__ import annotations

import shutil
from pathlib import Path

import engines_env
import pytest

engines_env.require("transformers")

from chatglm1 import write_chatglm1
from family_models import byte_level
from legacy_models import LEGACY, sentencepiece, write_remote
from sentencepiece import SentencePieceProcessor
from tiny import write_json
from tokenizers import Regex, pre_tokenizers
from transformers import dynamic_module_utils

from smmf_core.engines.prompt import legacy_tokenizers
from smmf_core.engines.prompt.slow_tokenizer import (
    FolderTokenizer,
    SlowTokenizer,
    load_slow_tokenizer,
)
from smmf_core.engines.prompt.text import HfTokenizer

TEXTS = (
    "the quick brown fox",
    " two  spaces\tand\n\nlines ",
    "\u4f60\u597d \U0001f600 e\u0301 na\u00efve",
    "people say 12345 <s> [gMASK]",
    "",
)
LEGACY_BY_NAME = {legacy.checkpoint: legacy for legacy in LEGACY}


def text_of(tokenizer: FolderTokenizer, ids: list[int]) -> str:
    return b"".join(map(tokenizer.token_bytes, ids)).decode()


def load(folder: Path, model_type: str = "", trusts: bool = False) -> FolderTokenizer:
    return load_slow_tokenizer(folder, 420, trusts, model_type)[0]


def test_a_sentencepiece_model_becomes_a_fast_tokenizer(tmp_path: Path) -> None:
    sentencepiece()(tmp_path)
    write_json(tmp_path / "config.json", {"model_type": "llama"})
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"})
    tokenizer, names = load_slow_tokenizer(tmp_path, 420)
    assert isinstance(tokenizer, HfTokenizer)
    assert (names["bos_token"], names["eos_token"]) == ("<s>", "</s>")
    assert tokenizer.eos_ids == {2}
    assert text_of(tokenizer, tokenizer.encode("the quick \u4f60", False)) == " the quick \u4f60"


def test_a_checkpoints_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = write_remote(tmp_path)
    with pytest.raises(ValueError, match="trust_remote_code = true"):
        load(folder)
    tokenizer = load(folder, trusts=True)
    assert isinstance(tokenizer, SlowTokenizer)
    for text in TEXTS[:3]:
        assert text_of(tokenizer, tokenizer.encode(text, False)) == text
    speaker = tokenizer.token_id("<reserved_106>")
    assert tokenizer.encode("the<reserved_106>the", False) == [256, speaker, 256]
    assert tokenizer.is_special(speaker)
    assert tokenizer.token_bytes(speaker) == b""
    assert tokenizer.token_bytes(0xE4) == b"\xe4"  # a part of a character


@pytest.mark.parametrize("checkpoint", ["internlm-chat-7b", "Baichuan2-7B-Chat", "chatglm2-6b"])
def test_sentencepiece_files_need_no_code(checkpoint: str, tmp_path: Path) -> None:
    legacy = LEGACY_BY_NAME[checkpoint]
    legacy.write_tokenizer(tmp_path)
    tokenizer = load(tmp_path, legacy.keys["model_type"])
    library = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text in TEXTS[:3]:
        ids = tokenizer.encode(text, False)
        assert ids == library.encode(text)
        assert text_of(tokenizer, ids) == (f" {text}" if text else "")
    assert tokenizer.vocab_size == 420
    assert 2 in tokenizer.eos_ids


def test_tokens_of_chatglm(tmp_path: Path) -> None:
    legacy = LEGACY_BY_NAME["chatglm3-6b-32k"]
    legacy.write_tokenizer(tmp_path)
    tokenizer = load(tmp_path, "chatglm")
    own = SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model")).get_piece_size()
    prefix = [own + 1, own + 3]
    assert tokenizer.encode("Hi", True)[:2] == tokenizer.encode("[gMASK]sop<|user|>", False)[:2]
    assert tokenizer.encode("[gMASK]sop<|user|>", False) == [*prefix, own + 6]
    assert not {own + 3, own + 4} & set(tokenizer.encode("sop people", False))  # words, here


@pytest.mark.parametrize("checkpoint", ["Qwen-7B-Chat", "glm-4-9b-chat"])
def test_tiktoken_ranks_need_no_code(checkpoint: str, tmp_path: Path) -> None:
    """As the byte-level BPE whose vocabulary the ranks are, with the family's words."""
    legacy = LEGACY_BY_NAME[checkpoint]
    legacy.write_tokenizer(tmp_path)
    kind = legacy.keys["model_type"]
    tokenizer = load(tmp_path, kind)
    original = byte_level(())
    words = pre_tokenizers.Split(Regex(legacy_tokenizers.PATTERNS[kind]), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    original.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    for text in TEXTS[:2]:
        assert tokenizer.encode(text, True) == original.encode(text).ids
        assert text_of(tokenizer, tokenizer.encode(text, False)) == text
    (special,) = tokenizer.encode("<|endoftext|>", False)
    assert special in tokenizer.eos_ids
    assert tokenizer.token_bytes(special) == b""


def test_spaces_of_chatglm_1_have_names(tmp_path: Path) -> None:
    folder = write_chatglm1(tmp_path)
    tokenizer = load(folder, "chatglm")
    text = "the\n\n\tfox  and   dog"
    ids = tokenizer.encode(text, True)
    named = [tokenizer.token_id(p) for p in ("<n>", "<|tab|>", "<|blank_2|>", "<|blank_3|>")]
    assert [id_ for id_ in ids if id_ in named] == [named[0], *named]
    assert text_of(tokenizer, ids) == f" {text}"
    assert ids[-2:] == [tokenizer.token_id("[gMASK]"), tokenizer.token_id("<sop>")]
    write_json(folder / "tokenizer_config.json", {"num_image_tokens": 20000})
    with pytest.raises(ValueError, match="image tokens"):
        load(folder, "chatglm")


def test_specials_that_are_elsewhere(tmp_path: Path) -> None:
    LEGACY_BY_NAME["Qwen-7B-Chat"].write_tokenizer(tmp_path)
    added = {"added_tokens_decoder": {"400": {"content": "<|im_end|>"}}}
    write_json(tmp_path / "tokenizer_config.json", added)
    with pytest.raises(ValueError, match=r"<\|im_end\|> is not where"):
        load(tmp_path, "qwen")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\x0anothing")
    write_json(tmp_path / "config.json", {"model_type": "llama"})
    with pytest.raises(ValueError, match="not a sentencepiece model"):
        load(tmp_path, "internlm")
    with pytest.raises(ValueError, match="does not load"):
        load(tmp_path, "llama")
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        load(tmp_path, "llama")
