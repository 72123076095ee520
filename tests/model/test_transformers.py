"""The transformers engine: its texts are `generate`'s, whoever else is in the batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import engines_env
import pytest

engines_env.require("transformers")

import torch
from driver import Run, make_sequence
from hf_tiny import (
    CASES,
    STATE_IN_LAYERS,
    greedy,
    make_hf_model,
    open_hf_engine,
    prompts,
    write_hf_model,
)

from smmf_core.engines.transformers.cache import Budget, KvStore
from smmf_core.engines.transformers.engine import TransformersEngine
from smmf_core.engines.transformers.prefix import PrefixCache, shared

TOKENS = 24


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def model() -> Any:
    return make_hf_model("llama")


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hf_model(tmp_path_factory.mktemp("llama"), model)


@pytest.fixture
def engine(folder: Path) -> TransformersEngine:
    return open_hf_engine(folder)


def plain(number: int, prompt: list[int], tokens: int = TOKENS, **more: Any) -> Any:
    return make_sequence(number, prompt, tokens, temperature=0, **more)


# --- the same texts as the library ---


@pytest.mark.parametrize("prefill_tokens", [512, 16])
@pytest.mark.parametrize("case", [case for case in CASES if case != STATE_IN_LAYERS])
def test_greedy_text_is_generates_text(tmp_path: Path, case: str, prefill_tokens: int) -> None:
    """Prompts of all lengths, joining in the middle, some leaving early, some in chunks."""
    model = make_hf_model(case)
    attention = "eager" if "eager" in case else ""
    folder = write_hf_model(tmp_path, model)
    engine = open_hf_engine(folder, attention, prefill_tokens=prefill_tokens)
    asked = prompts(5, 40, 17, 90, 3, 60, 33, 8)
    run = Run(engine)
    for number, prompt in enumerate(asked):
        run.join(plain(number, prompt), plain(100 + number, prompt[::-1], 3 + number))
        if number % 3 == 0:
            for _ in range(5):
                run.step()
    run.finish()
    texts = [greedy(model, prompt, TOKENS) for prompt in asked]
    assert [run.tokens(number) for number in range(len(asked))] == texts
    assert len({tuple(text) for text in texts}) == len(asked)
    assert sum(len(set(text)) for text in texts) > 4 * len(texts)  # they are not one token


def test_sampled_text_does_not_depend_on_the_batch(engine: TransformersEngine) -> None:
    settings = {"temperature": 0.9, "top_p": 0.9, "frequency_penalty": 0.4, "logprobs": 2}

    def sampled(number: int) -> Any:
        return make_sequence(number, prompts(20 + number)[0], TOKENS, seed=number, **settings)

    alone = []
    for number in range(5):
        run = Run(engine)
        run.join(sampled(number))
        run.finish()
        alone.append(run.tokens(number))
    run = Run(engine)
    for number in range(5):
        run.join(sampled(number))
        run.step()
    run.finish()
    assert [run.tokens(number) for number in range(5)] == alone
    assert len({tuple(text) for text in alone}) == 5


def test_goes_on_from_tokens_generated_elsewhere(engine: TransformersEngine, model: Any) -> None:
    (prompt,) = prompts(30)
    text = greedy(model, prompt, TOKENS)
    run = Run(engine)
    run.join(plain(1, prompt, emitted=text[:7]), plain(2, prompt))
    run.finish()
    assert run.tokens(1) == text[7:]
    assert run.tokens(2) == text


def test_reaches_the_end_of_the_context(engine: TransformersEngine, model: Any) -> None:
    assert engine.spec.context_length == 512
    (prompt,) = prompts(480)
    run = Run(engine)
    run.join(plain(1, prompt, 32), plain(2, prompts(4)[0], 300))
    run.finish()
    assert run.tokens(1) == greedy(model, prompt, 32)


def test_a_model_that_keeps_its_state_in_its_layers_is_refused(tmp_path: Path) -> None:
    folder = write_hf_model(tmp_path, make_hf_model(STATE_IN_LAYERS))
    with pytest.raises(ValueError, match="keeps its state in no cache"):
        open_hf_engine(folder)


# --- the loop ---


def test_prompts_are_computed_in_chunks_while_answers_go_on(folder: Path) -> None:
    engine = open_hf_engine(folder, prefill_tokens=50)
    run = Run(engine)
    run.join(plain(1, prompts(10)[0], 30))
    run.step()
    run.join(plain(2, prompts(160)[0], 5))
    steps = 0
    while not run.outputs[2]:
        run.step()
        steps += 1
        assert len(run.outputs[1]) == 1 + steps
    assert steps == 4
    run.finish()


def test_short_prompts_are_computed_together(engine: TransformersEngine) -> None:
    run = Run(engine)
    run.join(*[plain(number, prompt) for number, prompt in enumerate(prompts(9, 12, 11, 10))])
    run.step()
    assert [len(run.outputs[number]) for number in range(4)] == [1, 1, 1, 1]
    run.finish()


def test_cancelled_within_one_step(engine: TransformersEngine, model: Any) -> None:
    asked = prompts(10, 40, 20, 200)
    run = Run(engine)
    run.join(*[plain(number, prompt) for number, prompt in enumerate(asked)])
    run.step()
    run.leave(3)  # still waiting
    run.leave(1)
    run.join(plain(4, prompts(300)[0]))
    run.step()
    run.leave(4)
    run.finish()
    assert run.tokens(0) == greedy(model, asked[0], TOKENS)
    assert run.tokens(2) == greedy(model, asked[2], TOKENS)
    engine.remove([plain(2, asked[2])])  # a second time: nothing happens
    assert engine.ready_at(5.0) == math.inf
    assert engine.metrics()["kv_cache_tokens"] == engine.metrics()["prefix_cache_tokens"]


def test_choices_of_one_prompt_are_prefilled_once(engine: TransformersEngine) -> None:
    (prompt,) = prompts(50)
    run = Run(engine)
    choices = [make_sequence(n, prompt, TOKENS, temperature=1.0, seed=n) for n in range(4)]
    for choice in choices:
        choice.submit = choices[0].submit
    run.join(*choices)
    assert engine.metrics()["waiting_rows"] == 1
    run.step()
    assert engine.metrics()["running_rows"] == 4
    run.finish()
    assert len({tuple(run.tokens(n)) for n in range(4)}) == 4
    assert [choice.cached_tokens for choice in choices] == [0, 0, 0, 0]
    alone = Run(engine)
    alone.join(make_sequence(9, prompt, TOKENS, temperature=1.0, seed=2))
    alone.finish()
    assert alone.tokens(9) == run.tokens(2)


def test_logprobs_are_those_of_the_raw_logits(engine: TransformersEngine, model: Any) -> None:
    (prompt,) = prompts(300)
    run = Run(engine)
    run.join(plain(1, prompt, 3, logprobs=2, prompt_logprobs=3), plain(2, prompts(12)[0]))
    run.finish()
    text = run.tokens(1)
    with torch.inference_mode():
        wide = model(torch.tensor([prompt + text])).logits[0].double().log_softmax(-1)
    described = run.outputs[1][0].prompt_logprobs
    assert described is not None
    assert len(described) == len(prompt) - 1
    for row, token, (logprob, best) in zip(wide, prompt[1:], described, strict=False):
        assert logprob == pytest.approx(float(row[token]), abs=1e-4)
        assert [token for token, _ in best] == row.topk(3).indices.tolist()
    for place, output in enumerate(run.outputs[1], len(prompt) - 1):
        assert output.logprobs is not None
        assert output.logprobs[0] == pytest.approx(float(wide[place].max()), abs=1e-4)
        assert len(output.logprobs[1]) == 2
    assert all(output.prompt_logprobs is None for output in run.outputs[2])


# --- prefixes ---


def test_a_prefix_of_an_ended_request_is_reused(engine: TransformersEngine, model: Any) -> None:
    system, first, second = prompts(100, 20, 30)
    run = Run(engine)
    run.join(plain(1, system + first))
    run.finish()
    turn = plain(2, system + first + run.tokens(1) + second)
    other = plain(3, system + second)
    run.join(turn, other)
    run.finish()
    assert turn.cached_tokens == 120 + TOKENS - 1  # the last token was not computed any more
    assert other.cached_tokens == 101  # all prompts' first token is the same
    for sequence in (turn, other):
        assert run.tokens(sequence.id) == greedy(model, sequence.prompt, TOKENS)


def test_a_prefix_of_a_running_request_is_reused(engine: TransformersEngine, model: Any) -> None:
    system, *rest = prompts(64, 8, 9, 10)
    asked = [system + tail for tail in rest]
    sequences = [plain(number, prompt) for number, prompt in enumerate(asked)]
    run = Run(engine)
    run.join(*sequences)
    run.finish()
    assert [sequence.cached_tokens for sequence in sequences] == [0, 65, 65]
    assert [run.tokens(n) for n in range(3)] == [greedy(model, p, TOKENS) for p in asked]


def test_the_same_prompt_again_computes_only_its_last_token(engine: TransformersEngine) -> None:
    (prompt,) = prompts(40)
    run = Run(engine)
    run.join(plain(1, prompt))
    run.finish()
    again = plain(2, prompt)
    run.join(again)
    run.finish()
    assert again.cached_tokens == 39
    assert run.tokens(2) == run.tokens(1)


def test_no_prefixes_are_kept_when_that_is_off(folder: Path) -> None:
    engine = open_hf_engine(folder, prefix_cache_tokens=0)
    (prompt,) = prompts(40)
    run = Run(engine)
    run.join(plain(1, prompt))
    run.finish()
    again = plain(2, prompt)
    run.join(again)
    run.finish()
    assert again.cached_tokens == 0
    assert engine.metrics()["kv_cache_tokens"] == 0


def test_kept_prefixes_are_bounded_and_the_oldest_go_first(folder: Path) -> None:
    engine = open_hf_engine(folder, prefix_cache_tokens=200)
    asked = prompts(80, 81, 82, 83)
    for number, prompt in enumerate(asked):
        run = Run(engine)
        run.join(plain(number, prompt, 2))
        run.finish()
        assert engine.metrics()["prefix_cache_tokens"] <= 200
    newest, oldest = plain(10, asked[3], 1), plain(11, asked[0], 1)
    for sequence in (newest, oldest):
        run = Run(engine)
        run.join(sequence)
        run.finish()
    assert newest.cached_tokens == 82
    assert oldest.cached_tokens == 0


def test_shared_fronts() -> None:
    assert shared([1, 2, 3], [1, 2, 4, 5]) == 2
    assert shared([], [1]) == 0
    assert shared([1, 2], [1, 2, 3]) == 2
    assert shared([9, 2], [1, 2]) == 0
    for place in range(40):
        left = list(range(40))
        assert shared(left, [*left[:place], -1, *left[place:]]) == place


# --- the store ---


def test_a_store_keeps_its_cells_while_it_grows_and_moves() -> None:
    budget = Budget(0)
    store = KvStore([None, 7], budget, 2, 8)
    span = store.span
    for column in range(40):
        store.fit(2, 0, 1)
        for number in range(2):
            cell = torch.full((2, 3, 1, 4), float(10 * column + number))
            seen, _ = store.update(cell, -cell, number)
        assert seen.shape[2] == min(span.end - span.first + 1, 7)
        span.end += 1
        if column % 9 == 8:
            span.first += 5
    left = span.end - span.first
    keys, values = store.read(1, span.first, left)[0]
    assert keys[0, :, 0].tolist() == [10.0 * column for column in range(40 - left, 40)]
    assert torch.equal(keys, -values)
    assert budget.used == store.rows * store.columns
    store.fit(2, 60, 1)  # a longer row is to come: to the right
    assert span.end >= 60
    assert torch.equal(store.read(1, span.first, left)[0][0], keys)
    store.release()
    assert budget.used == 0


def test_a_budget_refuses_what_it_does_not_have() -> None:
    budget = Budget(100)
    store = KvStore([None], budget, 2, 20)
    store.update(torch.ones(2, 1, 20, 4), torch.ones(2, 1, 20, 4), 0)
    store.span.end = 20
    store.fit(2, 0, 25)  # not by a factor, but as needed
    assert store.columns == 45
    with pytest.raises(MemoryError, match="100 tokens"):
        store.fit(3, 0, 20)
    assert (store.rows, store.columns, budget.used) == (2, 45, 90)
    prefixes = PrefixCache(50, budget)
    prefixes.add(None, list(range(30)), [])  # no room: not kept
    assert prefixes.tokens == 0
