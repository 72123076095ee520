"""Grammars over the vocabularies of the families: byte level, sentencepiece with bytes to fall back
on (as `tokenizer.json`, and as its own file), tiktoken ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from engines_env import require

require("transformers")

from family_models import byte_level, pieces
from legacy_models import ranks, sentencepiece
from tiny import write_json

from smmf_core.engines.base import Sequence, Tokenizer
from smmf_core.engines.grammar.compiler import Grammars
from smmf_core.engines.prompt.legacy_tokenizers import load_legacy_tokenizer
from smmf_core.engines.prompt.text import HfTokenizer
from smmf_core.messages import Sampling, Submit

SCHEMA = {
    "type": "object",
    "properties": {
        "a long name": {"type": "string", "maxLength": 8},
        "\u4f60\u597d": {"enum": ["caf\u00e9", "\U0001f600", "over the lazy dog"]},
        "n": {"type": "integer", "minimum": 10, "maximum": 99},
    },
    "required": ["a long name", "\u4f60\u597d", "n"],
}


def legacy(model_type: str, write: Callable[[Path], None]) -> Callable[[Path], Tokenizer]:
    def load(folder: Path) -> Tokenizer:
        write_json(folder / "tokenizer_config.json", {})
        write(folder)
        tokenizer = load_legacy_tokenizer(folder, model_type, 0)
        assert tokenizer is not None
        return tokenizer

    return load


VOCABULARIES: dict[str, Callable[[Path], Tokenizer]] = {
    "byte level": lambda folder: HfTokenizer(byte_level(("<s>", "</s>")), frozenset({1})),
    "pieces": lambda folder: HfTokenizer(pieces(("<s>", "</s>")), frozenset({1})),
    "sentencepiece": legacy("baichuan", sentencepiece()),
    "ranks": legacy("qwen", ranks("qwen.tiktoken", ())),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_any_choice_of_allowed_tokens_is_an_instance(name: str, tmp_path: Path) -> None:
    tokenizer = VOCABULARIES[name](tmp_path)
    vocab_size = tokenizer.vocab_size + 7
    grammars = Grammars(tokenizer, vocab_size)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    asked = Submit(1, 0, "r", "m", True, 1, None, [[1]], Sampling(), response_format=form)
    generator = np.random.default_rng(4)
    for _ in range(20):
        bound = grammars.bind(Sequence(1, [1], 1, asked.sampling, 9, asked))
        assert bound is not None
        mask = np.zeros(bound.words, np.int32)
        text = b""
        while not bound.is_over:
            bound.fill(mask)
            bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
            token = int(generator.choice(np.flatnonzero(bits)))
            bound.accept(token)
            text += tokenizer.token_bytes(token)
        jsonschema.validate(json.loads(text), SCHEMA)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_a_text_without_choice_is_written_as_the_tokenizer_would(name: str, tmp_path: Path) -> None:
    tokenizer = VOCABULARIES[name](tmp_path)
    grammars = Grammars(tokenizer, tokenizer.vocab_size)
    text = "the quick brown fox jumps over the lazy dog"
    schema: Any = {"const": text}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    asked = Submit(1, 0, "r", "m", True, 1, None, [[1]], Sampling(), response_format=form)
    bound = grammars.bind(Sequence(1, [1], 1, asked.sampling, 9, asked))
    assert bound is not None
    mask = np.zeros(bound.words, np.int32)
    tokens: list[int] = []
    while not bound.is_over:
        bound.fill(mask)
        allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
        tokens.append(max(allowed.tolist(), key=lambda token: len(tokenizer.token_bytes(token))))
        bound.accept(tokens[-1])
    assert b"".join(map(tokenizer.token_bytes, tokens)) == json.dumps(text).encode()
    assert len(tokens) <= len(tokenizer.encode(json.dumps(text), False)) + 1
