"""The reference engine alone: exact in any batch, and clear about folders it cannot run."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from driver import Run, make_sequence, open_engine
from tiny import make_model, random_tensors, write_json, write_weights

from smmf_core.config import Model, ModelConfig
from smmf_core.engines.prompt.text import read_json
from smmf_core.engines.reference.checkpoint import read_weights
from smmf_core.engines.reference.engine import PREFILL_TOKENS, ReferenceEngine, create
from smmf_core.engines.reference.model import Cache, Chunk

TOKENS = 24
SAMPLED = {"temperature": 0.9, "top_p": 0.95, "frequency_penalty": 0.3, "repetition_penalty": 1.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> ReferenceEngine:
    return open_engine(folder)


def prompt(number: int) -> list[int]:
    """Prompts of many lengths: shorter and longer than a tile, a block and a prefill step."""
    length = (1, 7, 8, 63, 64, 65, 130, PREFILL_TOKENS + 30)[number % 8]
    random = np.random.default_rng(number)
    return [0, *random.integers(3, 300, length - 1).tolist()]


def sequence(number: int, emitted: list[int] | None = None, tokens: int = TOKENS) -> object:
    return make_sequence(
        number, prompt(number), tokens, emitted or (), seed=1000 + number, logprobs=3, **SAMPLED
    )


@pytest.fixture(scope="module")
def alone(engine: ReferenceEngine) -> dict[int, list[tuple[int, object]]]:
    """What each of 20 sequences yields when it runs alone: tokens with logprobs, to the bit."""
    answers = {}
    for number in range(20):
        run = Run(engine)
        run.join(sequence(number))
        run.finish()
        answers[number] = answer(run, number)
    return answers


def answer(run: Run, number: int) -> list[tuple[int, object]]:
    return [(output.token, output.logprobs) for output in run.outputs[number]]


def test_samples_something(alone: dict[int, list[tuple[int, object]]]) -> None:
    texts = {tuple(token for token, _ in answer) for answer in alone.values()}
    assert len(texts) == len(alone)
    assert all(len(set(text)) > 5 for text in texts)


@pytest.mark.parametrize("size", [2, 3, 8, 9, 17, 20])
def test_same_bits_in_any_batch(
    engine: ReferenceEngine, alone: dict[int, list[tuple[int, object]]], size: int
) -> None:
    run = Run(engine)
    run.join(*[sequence(number) for number in range(size)])
    run.finish()
    for number in range(size):
        assert answer(run, number) == alone[number]


@pytest.mark.parametrize("order", range(6))
def test_same_bits_in_any_order_of_joins(
    engine: ReferenceEngine, alone: dict[int, list[tuple[int, object]]], order: int
) -> None:
    random = np.random.default_rng(order)
    numbers = random.permutation(20).tolist()
    run = Run(engine)
    for number in numbers:
        run.join(sequence(number))
        for _ in range(int(random.integers(0, 4))):
            run.step()
    run.finish()
    for number in numbers:
        assert answer(run, number) == alone[number]


@pytest.mark.parametrize("cut", [1, 2, 5, 11, TOKENS - 1])
def test_same_bits_when_continued_from_a_prefix(
    engine: ReferenceEngine, alone: dict[int, list[tuple[int, object]]], cut: int
) -> None:
    run = Run(engine)
    for number in range(16):
        emitted = [token for token, _ in alone[number][:cut]]
        run.join(sequence(number, emitted))
        if number % 3 == 0:
            run.step()
    run.finish()
    for number in range(16):
        assert answer(run, number) == alone[number][cut:]


def test_prefill_and_decode_give_the_same_cache(engine: ReferenceEngine) -> None:
    model = engine._model
    tokens = prompt(7)
    whole, single, mixed = (Cache(model.config) for _ in range(3))
    (at_once,) = model.forward([Chunk(whole, tokens, len(tokens))])
    rows = [model.forward([Chunk(single, [token], 1)])[0] for token in tokens]
    for start in range(0, len(tokens), 37):
        model.forward([Chunk(mixed, tokens[start : start + 37], 0)])
    assert at_once.tobytes() == np.concatenate(rows).tobytes()
    for other in (single, mixed):
        blocks = -(-len(tokens) // 64)
        assert whole.keys[:, :blocks].tobytes() == other.keys[:, :blocks].tobytes()
        assert whole.values[:, :blocks].tobytes() == other.values[:, :blocks].tobytes()


def test_leaving_changes_nothing_for_the_others(
    engine: ReferenceEngine, alone: dict[int, list[tuple[int, object]]]
) -> None:
    run = Run(engine)
    run.join(sequence(1), sequence(7), sequence(3))
    run.step()
    run.leave(7)  # its prefill needs a second step
    run.step()
    run.leave(1)
    run.finish()
    assert answer(run, 3) == alone[3]
    assert run.outputs[7] == []
    engine.remove([sequence(7)])  # a second time: nothing happens


def test_prefill_of_one_step_is_bounded(engine: ReferenceEngine) -> None:
    run = Run(engine)
    run.join(sequence(4))
    run.step()
    long = make_sequence(50, prompt(7)[:250] * 2, 1)
    run.join(long, sequence(5))
    steps = 0
    while not run.outputs[50]:
        run.step()
        steps += 1
        assert len(run.outputs[4]) == 1 + steps  # the running one goes on
    assert steps == 2
    run.finish()


def test_ready_only_while_something_runs(engine: ReferenceEngine) -> None:
    assert engine.ready_at(5.0) == math.inf
    run = Run(engine)
    run.join(sequence(1))
    assert engine.ready_at(5.0) == 5.0
    run.finish()
    assert engine.ready_at(5.0) == math.inf


def test_greedy_takes_the_most_likely_token(engine: ReferenceEngine) -> None:
    run = Run(engine)
    run.join(make_sequence(1, prompt(2), 8, temperature=0.0, logprobs=1))
    run.finish()
    for output in run.outputs[1]:
        assert output.logprobs is not None
        logprob, top = output.logprobs
        assert top == [(output.token, logprob)]


def test_prompt_logprobs_over_several_prefill_steps(engine: ReferenceEngine) -> None:
    ids = prompt(7)
    run = Run(engine)
    run.join(make_sequence(1, ids, 2, [9], prompt_logprobs=2), sequence(2))
    run.finish()
    (first,) = run.outputs[1]
    assert first.prompt_logprobs is not None
    assert len(first.prompt_logprobs) == len(ids) - 1
    cache = Cache(engine._model.config)
    (logits,) = engine._model.forward([Chunk(cache, ids, len(ids))])
    for row, token, (logprob, top) in zip(logits, ids[1:], first.prompt_logprobs, strict=False):
        wide = row.astype(np.float64)
        assert logprob == pytest.approx(wide[token] - np.log(np.exp(wide).sum()), abs=1e-6)
        assert [t for t, _ in top] == np.argsort(-row, kind="stable")[:2].tolist()
    assert all(output.prompt_logprobs is None for output in run.outputs[2])


def test_a_sequence_that_fails_does_not_take_others_along(
    engine: ReferenceEngine, alone: dict[int, list[tuple[int, object]]]
) -> None:
    everything = dict.fromkeys(range(engine._model.config.vocab_size), -100.0)
    run = Run(engine)
    run.join(sequence(3), make_sequence(30, prompt(3), 4, logit_bias=everything), sequence(5))
    run.finish()
    (failed,) = run.outputs[30]
    assert "leave no token" in str(failed.error)
    assert answer(run, 3) == alone[3]
    assert answer(run, 5) == alone[5]


def test_logits_that_are_not_numbers_fail_only_their_sequence(folder: Path) -> None:
    engine = open_engine(folder)
    engine._model._weights.embedding[77] = np.nan
    run = Run(engine)
    run.join(make_sequence(1, [0, 77, 5], 4), make_sequence(2, [0, 5], 4, logit_bias={77: -100.0}))
    run.finish()
    assert "not finite" in str(run.outputs[1][0].error)
    assert len(run.tokens(2)) == 4
    assert run.outputs[2][0].error is None


# --- loading ---


def test_settings_of_the_config(folder: Path) -> None:
    model = Model(name="tiny", backend="reference", path=str(folder))
    engine = create(ModelConfig(model=model, engine={"max_model_len": 64}))
    engine.load(lambda done: None)
    assert engine.spec.context_length == 64
    for wrong in ({"n_ctx": 64}, {"max_model_len": -1}, {"max_model_len": "64"}):
        with pytest.raises(ValueError, match=r"\[engine\]: .*(n_ctx|max_model_len)"):
            create(ModelConfig(model=model, engine=wrong))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_reads_half_precision(tmp_path: Path, dtype: str) -> None:
    make_model(tmp_path, dtype=dtype)
    tensors = read_weights(tmp_path, lambda done: None)
    config = read_json(tmp_path / "config.json")
    for name, tensor in random_tensors(config, 0, False).items():
        assert tensors[name].dtype == np.float32
        np.testing.assert_allclose(tensors[name], tensor, rtol=2**-7, atol=1e-4)


def test_reads_shards_and_reports_progress(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    tensors = random_tensors(read_json(folder / "config.json"), 0, False)
    names = sorted(tensors)
    files = {name: f"model-0000{n % 3}.safetensors" for n, name in enumerate(names)}
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": files})
    for file in set(files.values()):
        part = {name: tensors[name] for name in names if files[name] == file}
        write_weights(tmp_path / file, part, "float32")
    whole, sharded = open_engine(folder), open_engine(tmp_path)
    outputs = []
    for engine in (whole, sharded):
        run = Run(engine)
        run.join(sequence(1))
        run.finish()
        outputs.append(answer(run, 1))
    assert outputs[0] == outputs[1]
    seen: list[float] = []
    read_weights(tmp_path, seen.append)
    assert seen == [1 / 3, 2 / 3, 1.0]


def test_context_length(folder: Path, tmp_path: Path) -> None:
    assert open_engine(folder).spec.context_length == 512
    assert open_engine(folder, max_model_len=100).spec.context_length == 100
    stretched = {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    assert open_engine(make_model(tmp_path, **stretched)).spec.context_length == 1024


def test_spec(engine: ReferenceEngine) -> None:
    assert engine.spec.supports_prefix
    assert engine.spec.chat_template is not None
    assert engine.spec.tokenizer.eos_ids == {1}
    assert engine.spec.tokenizer.vocab_size == engine._model.config.vocab_size


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("config.json", "config.json is missing"),
        ("tokenizer.json", "the model has no tokenizer"),
        ("model.safetensors", "the model has no weights"),
    ],
)
def test_missing_files(folder: Path, tmp_path: Path, damage: str, words: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / damage).unlink()
    with pytest.raises(FileNotFoundError, match=words):
        open_engine(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b"{", "is not valid JSON"),
        ("config.json", b"[]", "does not hold a JSON object"),
        ("tokenizer.json", b"{}", "is not a tokenizer"),
        ("model.safetensors", b"\x10\0\0\0\0\0\0\0{}", "is damaged"),
    ],
)
def test_damaged_files(folder: Path, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        open_engine(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel; it runs LlamaForCausalLM"),
        ({"intermediate_size": 64}, r"mlp.gate_proj.weight has shape \[96, 48\].*\[64, 48\]"),
        ({"num_hidden_layers": 4}, "no tensor model.layers.3"),
        ({"hidden_act": "gelu"}, "hidden_act gelu"),
        ({"sliding_window": 128}, "sliding-window"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type yarn"),
        ({"num_key_value_heads": 4}, "6 attention heads cannot share 4"),
        ({"vocab_size": 100}, "The tokenizer has 320 tokens, the model 100"),
    ],
)
def test_models_that_do_not_fit(
    folder: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = read_json(folder / "config.json")
    write_json(tmp_path / "config.json", {**config, **changes})
    with pytest.raises(ValueError, match=words):
        open_engine(tmp_path)


def test_a_missing_size_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    config = read_json(folder / "config.json")
    del config["hidden_size"]
    write_json(tmp_path / "config.json", config)
    with pytest.raises(ValueError, match=r"config.json has no hidden_size"):
        open_engine(tmp_path)
