"""The llama.cpp engine alone: exact text, prefix reuse, chunked prompts, adapters, settings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driver import Run, make_sequence, open_engine
from gguf_models import make_config, make_gguf, make_lora, make_mamba, open_llama
from tiny import make_model, write_json, write_weights

from configs.demo.export.to_gguf import export
from smmf_core.config import bundled
from smmf_core.engines.llama_cpp import api
from smmf_core.engines.llama_cpp.engine import LlamaCppEngine, create
from smmf_core.engines.llama_cpp.gguf_file import read_gguf
from smmf_core.engines.llama_cpp.load import choose_context, physical_cores, thread_settings
from smmf_core.engines.prompt.text import load_tokenizer, read_json

TOKENS = 24
SAMPLED = {"temperature": 0.9, "top_p": 0.95, "frequency_penalty": 0.3, "repetition_penalty": 1.1}
TEXTS = [
    "the quick brown fox",
    " caf\u00e9 \u4f60\u597d \U0001f600 e\u0301",
    "tabs\tand\nlines;  def f(x): return x + 12345",
    "<|eos|>special [plain] tokens<|pad|>",
    "",
    "it's we'll I'd DON'T\r\n\r\n  end  ",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    make_gguf(folder)
    return folder


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    return folder / "tiny.gguf"


@pytest.fixture
def engine(path: Path) -> Iterator[LlamaCppEngine]:
    engine = open_llama(path, n_ctx=512)
    yield engine
    engine.close()


def prompt(number: int, length: int = 0) -> list[int]:
    length = length or (1, 7, 31, 64, 65, 130, 200, 300)[number % 8]
    random = np.random.default_rng(number)
    return [0, *random.integers(3, 300, length - 1).tolist()]


def sequence(number: int, emitted: list[int] | None = None) -> object:
    return make_sequence(number, prompt(number), TOKENS, emitted or (), seed=number, **SAMPLED)


def answers(engine: LlamaCppEngine, numbers: list[int]) -> dict[int, list[int]]:
    run = Run(engine)
    run.join(*[sequence(number) for number in numbers])
    run.finish()
    return {number: run.tokens(number) for number in numbers}


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[int, list[int]]:
    """What the reference engine answers on the same weights."""
    return answers(open_engine(folder), list(range(16)))


# --- text ---


@pytest.mark.parametrize("text", TEXTS)
def test_tokenizes_like_the_folder_it_came_from(
    engine: LlamaCppEngine, folder: Path, text: str
) -> None:
    own, known = engine.spec.tokenizer, load_tokenizer(folder)
    for add_special in (True, False):
        assert own.encode(text, add_special) == known.encode(text, add_special)


def test_pieces_are_those_of_the_folder(engine: LlamaCppEngine, folder: Path) -> None:
    own, known = engine.spec.tokenizer, load_tokenizer(folder)
    assert own.vocab_size == known.vocab_size
    assert own.eos_ids == known.eos_ids == {1}
    for token in range(own.vocab_size):
        assert own.token_bytes(token) == known.token_bytes(token)
        assert own.is_special(token) == known.is_special(token)


def test_greedy_text_of_the_demo_model_is_that_of_the_reference(tmp_path: Path) -> None:
    ours = open_llama(export(bundled("demo"), tmp_path / "demo.gguf", "f32"))
    reference = open_engine(bundled("demo"))
    texts = ("Who are you?", "Tell me a story.", "What is a river?", "Count from 3 to 9.")
    prompts = [
        reference.spec.tokenizer.encode(f"<|user|>{t}<|end|><|assistant|>", True) for t in texts
    ]
    found = []
    for engine in (ours, reference):
        run = Run(engine)
        run.join(*[make_sequence(n, ids, 64, temperature=0.0) for n, ids in enumerate(prompts)])
        run.finish()
        found.append([run.tokens(number) for number in range(len(prompts))])
    assert found[0] == found[1]
    ours.close()


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_smaller_exports_load_and_stay_near(tmp_path: Path, kind: str) -> None:
    exact = open_llama(export(bundled("demo"), tmp_path / "f32.gguf", "f32"))
    small = open_llama(export(bundled("demo"), tmp_path / f"{kind}.gguf", kind))
    assert (tmp_path / f"{kind}.gguf").stat().st_size < 0.6 * (tmp_path / "f32.gguf").stat().st_size
    logprobs = []
    for engine in (exact, small):
        run = Run(engine)
        run.join(make_sequence(1, prompt(2), 1, prompt_logprobs=0))
        run.finish()
        described = run.outputs[1][0].prompt_logprobs
        assert described is not None
        logprobs.append([chosen for chosen, _ in described])
        engine.close()
    assert np.mean(np.abs(np.subtract(*logprobs))) < 0.1


# --- batches ---


@pytest.mark.parametrize("size", [1, 3, 8, 16])
def test_same_answers_in_any_batch(
    engine: LlamaCppEngine, expected: dict[int, list[int]], size: int
) -> None:
    """Also with more sequences than slots: those wait."""
    assert answers(engine, list(range(size))) == {n: expected[n] for n in range(size)}


@pytest.mark.parametrize("order", range(3))
def test_same_answers_in_any_order_of_joins(
    engine: LlamaCppEngine, expected: dict[int, list[int]], order: int
) -> None:
    random = np.random.default_rng(order)
    run = Run(engine)
    for number in random.permutation(16).tolist():
        run.join(sequence(number))
        for _ in range(int(random.integers(0, 4))):
            run.step()
    run.finish()
    assert {number: run.tokens(number) for number in range(16)} == expected


def test_prompts_are_computed_in_parts_beside_running_answers(
    path: Path, expected: dict[int, list[int]]
) -> None:
    engine = open_llama(path, n_ctx=512, n_batch=50, n_ubatch=16)
    run = Run(engine)
    run.join(sequence(1))
    run.step()
    run.join(sequence(7), sequence(5))  # 300 and 130 tokens
    steps = 0
    while not run.outputs[7]:
        run.step()
        steps += 1
        assert len(run.outputs[1]) == 1 + steps  # the running one goes on
    assert steps == math.ceil(300 / 49)
    run.finish()
    assert {number: run.tokens(number) for number in (1, 5, 7)} == {
        n: expected[n] for n in (1, 5, 7)
    }
    engine.close()


@pytest.mark.parametrize("cut", [1, 5, TOKENS - 1])
def test_goes_on_from_tokens_of_another_worker(
    engine: LlamaCppEngine, expected: dict[int, list[int]], cut: int
) -> None:
    run = Run(engine)
    run.join(*[sequence(number, expected[number][:cut]) for number in range(8)])
    run.finish()
    for number in range(8):
        assert run.tokens(number) == expected[number][cut:]


def test_leaving_changes_nothing_for_the_others(
    engine: LlamaCppEngine, expected: dict[int, list[int]]
) -> None:
    run = Run(engine)
    run.join(sequence(1), sequence(7), sequence(3))
    run.step()
    run.leave(7)
    run.step()
    run.leave(1)
    run.finish()
    assert run.tokens(3) == expected[3]
    engine.remove([sequence(7)])  # a second time: nothing happens
    assert engine.ready_at(1.0) == math.inf


def test_gaps_between_running_slots_are_filled(path: Path, folder: Path) -> None:
    """Nobody sees it: not the answers, nor what is cached in a slot that fills a gap."""
    alone = Run(open_engine(folder))
    numbers = (0, 2, 5, 7)
    ids = {n: [0, *range(n + 5, n + (25 if n in numbers else 75))] for n in range(8)}
    alone.join(*[make_sequence(n, ids[n], 60, temperature=0.0) for n in numbers])
    alone.finish()
    engine = open_llama(path, n_ctx=100)
    run = Run(engine)
    run.join(*[make_sequence(n, ids[n], 60, temperature=0.0) for n in range(8)])
    run.step()
    for number in (1, 3, 4, 6):
        run.leave(number)
    run.step()
    assert sum(slot.filled > 0 for slot in engine._slots.slots) == 4
    run.finish()  # longer than a slot can fill a gap at a stretch
    for number in numbers:
        assert run.tokens(number) == alone.tokens(number)
    assert cached(engine, 9, [*ids[3], 1]) == len(ids[3])
    engine.close()


def test_a_waiting_sequence_may_leave(engine: LlamaCppEngine) -> None:
    run = Run(engine)
    run.join(*[sequence(number) for number in range(10)])
    run.step()
    run.leave(9)
    run.finish()
    assert run.outputs[9] == []
    assert len(run.tokens(8)) == TOKENS


def test_prompt_logprobs_over_several_steps(path: Path, folder: Path) -> None:
    engines = [open_llama(path, n_ctx=512, n_batch=64), open_engine(folder)]
    found = []
    for engine in engines:
        run = Run(engine)
        run.join(make_sequence(1, prompt(6), 3, [9], prompt_logprobs=2, logprobs=2), sequence(2))
        run.finish()
        first, second = run.outputs[1]
        assert second.prompt_logprobs is None
        found.append([*first.prompt_logprobs, first.logprobs, second.logprobs])
    assert len(found[0]) == len(prompt(6)) + 1
    for (own, best), (known, known_best) in zip(*found, strict=True):
        assert own == pytest.approx(known, abs=1e-4)
        assert [token for token, _ in best] == [token for token, _ in known_best]
    engines[0].close()


# --- the cache ---


def cached(engine: LlamaCppEngine, number: int, ids: list[int], tokens: int = 2) -> int:
    run = Run(engine)
    one = make_sequence(number, ids, tokens, temperature=0.0)
    run.join(one)
    run.finish()
    return one.cached_tokens


def test_a_prompt_that_goes_on_finds_its_beginning(engine: LlamaCppEngine) -> None:
    ids = prompt(6)
    assert cached(engine, 1, ids) == 0
    assert cached(engine, 2, [*ids, 7, 8, 9]) == len(ids)
    assert cached(engine, 3, ids[:50]) == 49  # its last token is computed: its logits are wanted
    assert engine.metrics()["cached_tokens"] == len(ids) + 49


def test_the_answer_is_part_of_what_is_found(engine: LlamaCppEngine) -> None:
    run = Run(engine)
    run.join(make_sequence(1, prompt(3), 10, temperature=0.0))
    run.finish()
    grown = [*prompt(3), *run.tokens(1), 5, 6]
    assert cached(engine, 2, grown) == len(prompt(3)) + 9  # the last token was never computed


def test_text_is_the_same_with_a_cached_beginning(
    engine: LlamaCppEngine, expected: dict[int, list[int]]
) -> None:
    for _ in range(2):
        assert answers(engine, [5, 6, 7]) == {n: expected[n] for n in (5, 6, 7)}
    assert engine.metrics()["cached_tokens"] > 0


@pytest.mark.parametrize("unified", [False, True])
def test_a_running_prompt_is_copied(path: Path, folder: Path, unified: bool) -> None:
    engine = open_llama(path, n_ctx=2048 if unified else 512, kv_unified=unified)
    shared = prompt(7)
    sequences = [make_sequence(n, [*shared, n], 12, temperature=0.0) for n in range(4)]
    alone = Run(open_engine(folder))
    alone.join(*[make_sequence(n, [*shared, n], 12, temperature=0.0) for n in range(4)])
    alone.finish()
    run = Run(engine)
    run.join(*sequences)  # three wait until the first has computed the common beginning
    run.finish()
    assert [one.cached_tokens for one in sequences] == [0, 300, 300, 300]
    assert engine.metrics()["prompt_tokens"] < 2 * len(shared)
    for number in range(4):
        assert run.tokens(number) == alone.tokens(number)
    engine.close()


def test_choices_of_one_request_count_their_prompt_once(engine: LlamaCppEngine) -> None:
    first = make_sequence(1, prompt(7), 4, temperature=1.0, seed=1)
    others = [make_sequence(n, prompt(7), 4, temperature=1.0, seed=n) for n in (2, 3)]
    for one in others:
        one.submit = first.submit
    run = Run(engine)
    run.join(first, *others)
    run.finish()
    assert [one.cached_tokens for one in (first, *others)] == [0, 0, 0]
    assert len({tuple(run.tokens(number)) for number in (1, 2, 3)}) == 3


def test_a_cached_conversation_outlives_one_that_begins_alike(engine: LlamaCppEngine) -> None:
    system = prompt(5)
    one, other = [*system, 5, *prompt(20, 80)], [*system, 6, *prompt(21, 80)]
    assert cached(engine, 1, one) == 0
    assert cached(engine, 2, other) == len(system)
    assert cached(engine, 3, [*one, 4]) == len(one)
    assert cached(engine, 4, [*other, 4]) == len(other)


@pytest.mark.parametrize("unified", [False, True])
def test_a_memory_that_cannot_be_cut_is_computed_anew(tmp_path: Path, unified: bool) -> None:
    path = make_mamba(tmp_path)
    alone = open_llama(path, slots=1)
    known = [answers(alone, [number]) for number in range(6)]
    engine = open_llama(path, slots=3, n_batch=40, kv_unified=unified)
    for _ in range(2):
        assert answers(engine, list(range(6))) == {n: known[n][n] for n in range(6)}
    run = Run(engine)
    run.join(sequence(3))
    run.step()
    run.step()
    run.join(make_sequence(9, [*prompt(3), 5], 4, temperature=0.0))  # begins like a running one
    run.finish()
    assert run.tokens(3) == known[3][3]
    first = Run(alone)
    first.join(make_sequence(9, [*prompt(3), 5], 4, temperature=0.0))
    first.finish()
    assert run.tokens(9) == first.tokens(9)
    alone.close()
    engine.close()


# --- adapters ---


def test_adapters_answer_like_merged_weights(folder: Path, path: Path, tmp_path: Path) -> None:
    engine = open_llama(path, n_ctx=512)
    known = {"": answers(open_engine(folder), [2, 3])}
    adapters = {}
    for seed, name in enumerate(("red", "blue")):
        merged = make_lora(folder, tmp_path / f"{name}.gguf", seed)
        make_model(tmp_path / name)
        write_weights(tmp_path / name / "model.safetensors", merged, "float32")
        known[name] = answers(open_engine(tmp_path / name), [2, 3])
        adapters[name] = str(tmp_path / f"{name}.gguf")
    assert known["red"] != known["blue"] != known[""]
    engine.set_adapters(adapters)
    run = Run(engine)
    numbers = {name: (10 * n + 2, 10 * n + 3) for n, name in enumerate(known)}
    for name, pair in numbers.items():
        for number in pair:
            one = make_sequence(number, prompt(number % 10), TOKENS, seed=number % 10, **SAMPLED)
            one.submit.adapter = name
            run.join(one)
    run.finish()
    for name, pair in numbers.items():
        assert {number % 10: run.tokens(number) for number in pair} == known[name]
    engine.close()


def test_an_adapter_goes_when_nothing_uses_it(folder: Path, path: Path, tmp_path: Path) -> None:
    engine = open_llama(path, n_ctx=512)
    make_lora(folder, tmp_path / "red.gguf", 0)
    engine.set_adapters({"red": str(tmp_path / "red.gguf")})
    one = make_sequence(1, prompt(2), 8, temperature=0.0)
    one.submit.adapter = "red"
    run = Run(engine)
    run.join(one)
    run.step()
    engine.set_adapters({})
    run.step()
    assert len(run.tokens(1)) == 2  # it still runs
    run.finish()
    late = make_sequence(2, prompt(2), 8)
    late.submit.adapter = "red"
    run.join(late)
    run.finish()
    assert "no adapter 'red'" in str(run.outputs[2][0].error)
    assert cached(engine, 3, prompt(2)) == 0  # computed with the adapter: of no use
    engine.close()


# --- settings ---


def test_spec(engine: LlamaCppEngine) -> None:
    spec = engine.spec
    assert (spec.context_length, spec.device) == (512, "cpu")
    assert spec.chat_template is not None
    assert {"completion", "chat", "logprobs", "structured_output", "adapters"} <= {
        *spec.capabilities
    }


def test_a_context_may_be_any_length(path: Path) -> None:
    engine = open_llama(path, n_ctx=100)
    assert engine.spec.context_length == 100
    run = Run(engine)
    run.join(make_sequence(1, prompt(0, 90), 10, ignore_eos=True))
    run.finish()
    assert len(run.tokens(1)) == 10
    engine.close()


@pytest.mark.parametrize(
    "options",
    [
        {"flash_attn": True, "type_k": "q8_0", "type_v": "q8_0"},
        {"dtype": "auto", "type_v": "q4_0"},
        {"dtype": "auto"},
        {"dtype": "bfloat16", "flash_attn": False},
        {"kv_unified": True},
    ],
)
def test_other_caches_answer(tmp_path: Path, options: dict[str, Any]) -> None:
    path = make_gguf(tmp_path, head_dim=32)  # a block of a quantised cache
    engine = create(make_config(path, slots=4, n_ctx=1024, **options))
    engine.load(lambda done: None)
    found = answers(engine, [0, 1, 2, 3])
    assert all(len(tokens) == TOKENS for tokens in found.values())
    engine.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type_v": "q4_0"}, "needs flash_attn"),
        ({"n_ctx": -1}, "n_ctx"),
        ({"max_model_len": 64}, "max_model_len"),
        ({"type_k": "q9"}, "q9"),
    ],
)
def test_wrong_settings(path: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        create(make_config(path, **options))


def test_threads(path: Path) -> None:
    file = read_gguf(path)
    config = make_config(path)
    engine = create(config)
    assert thread_settings(config, engine._options, file) == {"n_threads": 1, "n_threads_batch": 1}
    file.tensor_bytes = 1 << 30
    assert thread_settings(config, engine._options, file)["n_threads"] == physical_cores()
    config.deployment.replicas = 1000
    assert thread_settings(config, engine._options, file)["n_threads"] == 1


def test_the_context_shrinks_to_the_memory_there_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = read_gguf(path)
    file.values["llama.context_length"] = 131_072
    options = create(make_config(path))._options
    token = 3 * 2 * (16 + 16) * 4  # layers, key/value heads, their widths, float32
    where = "smmf_core.engines.llama_cpp.load.free_bytes"
    monkeypatch.setattr(where, lambda: 8 * 10_000 * token + file.tensor_bytes)
    assert choose_context(file, options, 8, False) == 4864  # half of 10,000, in steps of 256
    options.n_ctx = 9000
    assert choose_context(file, options, 8, False) == 9000
    options.n_ctx = 11_000
    with pytest.raises(MemoryError, match="lower n_ctx or max_batch_size"):
        choose_context(file, options, 8, False)


def test_the_context_shrinks_to_what_llama_cpp_can_allocate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_gguf(tmp_path, max_position_embeddings=16_384)
    start = api.C.llama_init_from_model

    def refuse(model: object, params: Any) -> object:
        return None if params.n_ctx > 2 * 5000 else start(model, params)

    monkeypatch.setattr(api.C, "llama_init_from_model", refuse)
    engine = open_llama(path, slots=2)
    assert engine.spec.context_length == 4096
    engine.close()
    with pytest.raises(ValueError, match="cannot make a context"):
        open_llama(path, slots=2, n_ctx=8192)  # asked for: not less


# --- the export ---


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("config.json", {"model_type": "gpt2"}, "holds a gpt2 model, not a Llama"),
        ("config.json", {"rope_scaling": {"rope_type": "llama3"}}, "Scaled rotary embeddings"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Sequence"}}, "split as GPT-2's"),
    ],
)
def test_what_is_not_exported(
    tmp_path: Path, file: str, changes: dict[str, Any], words: str
) -> None:
    make_model(tmp_path)
    write_json(tmp_path / file, read_json(tmp_path / file) | changes)
    with pytest.raises(ValueError, match=words):
        export(tmp_path, tmp_path / "x.gguf", "f32")


def test_an_attention_with_biases_is_exported(tmp_path: Path) -> None:
    engine = open_llama(make_gguf(tmp_path, bias=True), n_ctx=512)
    assert answers(engine, [2, 3]) == answers(open_engine(tmp_path), [2, 3])
    engine.close()
