"""What goes wrong inside the transformers engine costs the request that is at fault, no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import engines_env
import pytest

engines_env.require("transformers")

import torch
from driver import Run, make_sequence
from hf_tiny import greedy, make_hf_model, open_hf_engine, prompts, write_hf_model

from smmf_core.engines.base import EngineDead
from smmf_core.engines.transformers.engine import TransformersEngine
from smmf_core.errors import ApiError

TOKENS = 24
POISON = 310  # a token that no prompt of `prompts` holds


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def model() -> Any:
    made = make_hf_model("llama", seed=5)
    with torch.no_grad():
        made.lm_head.weight[POISON] = 0.0  # never the largest logit
    return made


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hf_model(tmp_path_factory.mktemp("llama"), model)


@pytest.fixture(scope="module")
def texts(model: Any) -> list[list[int]]:
    return [greedy(model, prompt, TOKENS) for prompt in asked()]


def asked() -> list[list[int]]:
    return prompts(12, 30, 7, 45, 21, 9)


def plain(number: int, prompt: list[int], tokens: int = TOKENS) -> Any:
    return make_sequence(number, prompt, tokens, temperature=0)


def network(engine: TransformersEngine) -> Any:
    return engine._loop._model.source


def break_passes(engine: TransformersEngine, check: Callable[[torch.Tensor], None]) -> None:
    """`check` sees the token ids of every pass and may raise."""

    def before(module: Any, args: Any, kwargs: Any) -> None:
        check(kwargs["input_ids"])

    network(engine).register_forward_pre_hook(before, with_kwargs=True)
    model = engine._loop._model
    short = model.step  # the way that answers take, of some architectures

    def step(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        assert short is not None
        check(ids)
        return short(ids, *rest)

    if short is not None:
        model.step = step  # type: ignore[assignment]


def run_all(engine: TransformersEngine, *more: list[int], steps: int = 1) -> Run:
    """The usual prompts, and `more` from number 50 on, each joining some steps after the other."""
    run = Run(engine)
    for number, prompt in enumerate(asked()):
        run.join(plain(number, prompt))
        if number < len(more):
            run.join(plain(50 + number, more[number]))
        for _ in range(steps):
            run.step()
    run.finish()
    return run


# --- one request at fault ---


def test_logits_that_are_not_numbers(folder: Path, texts: list[list[int]]) -> None:
    engine = open_hf_engine(folder)
    with torch.no_grad():
        network(engine).get_input_embeddings().weight[POISON] = torch.nan
    bad = [[*prompts(20)[0], POISON, 5], [POISON], [0, POISON] * 40]
    run = run_all(engine, *bad)
    for number in range(50, 53):
        (output,) = run.outputs[number]
        assert "not finite" in str(output.error)
    assert [run.tokens(n) for n in range(6)] == texts


def test_logits_that_stop_being_numbers_in_the_middle(folder: Path, texts: list[list[int]]) -> None:
    """A token of its own answer makes a running request fail; its cells are used again."""
    engine = open_hf_engine(folder)
    (prompt,) = prompts(40, seed=9)
    with torch.no_grad():
        network(engine).get_input_embeddings().weight[POISON] = torch.nan
    forced = make_sequence(50, prompt, TOKENS, temperature=0, logit_bias={POISON: 100.0})
    run = Run(engine)
    run.join(plain(0, asked()[0]), forced)
    for number in range(1, 6):
        run.step()
        run.join(plain(number, asked()[number]))
    run.finish()
    assert [output.error is None for output in run.outputs[50]] == [True, False]
    assert [run.tokens(n) for n in range(6)] == texts


def test_a_pass_that_raises_for_one_request(folder: Path, texts: list[list[int]]) -> None:
    engine = open_hf_engine(folder)

    def check(ids: torch.Tensor) -> None:
        if (ids == POISON).any():
            raise RuntimeError("this token breaks the model")

    break_passes(engine, check)
    run = run_all(engine, [*prompts(12)[0], POISON], [POISON, 4, 5])
    for number in (50, 51):
        (output,) = run.outputs[number]
        assert "this token breaks the model" in str(output.error)
    assert [run.tokens(n) for n in range(6)] == texts


def test_a_model_that_always_raises_fails_all_and_lives_on(
    folder: Path, texts: list[list[int]]
) -> None:
    engine = open_hf_engine(folder)
    broken = True

    def check(ids: torch.Tensor) -> None:
        if broken:
            raise RuntimeError("nothing works")

    break_passes(engine, check)
    run = run_all(engine)
    assert all("nothing works" in str(run.outputs[n][0].error) for n in range(6))
    broken = False
    run = run_all(engine)
    assert [run.tokens(n) for n in range(6)] == texts


def test_a_state_that_went_on_is_not_computed_twice(tmp_path: Path) -> None:
    model = make_hf_model("mamba")
    engine = open_hf_engine(write_hf_model(tmp_path, model))

    def check(ids: torch.Tensor) -> None:
        if (ids == POISON).any():
            raise RuntimeError("this token breaks the model")

    break_passes(engine, check)
    forced = make_sequence(50, prompts(9)[0], 9, temperature=0, logit_bias={POISON: 100.0})
    run = Run(engine)
    run.join(plain(0, asked()[0]), forced, plain(1, asked()[1]))
    run.finish()
    assert "breaks the model" in str(run.outputs[50][1].error)
    assert [run.tokens(n) for n in range(2)] == [greedy(model, asked()[n], TOKENS) for n in (0, 1)]


def test_a_dead_device_ends_the_engine(folder: Path) -> None:
    engine = open_hf_engine(folder)

    def check(ids: torch.Tensor) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    break_passes(engine, check)
    engine.add([plain(1, asked()[0]), waiting := plain(2, [5, 6, 7] * 100)])
    with pytest.raises(EngineDead, match="device-side assert") as dead:
        engine.step()
    assert dead.value.untouched == [waiting]  # it is too long to share a pass with the other


def test_tokens_outside_the_vocabulary_cost_their_request(
    folder: Path, texts: list[list[int]]
) -> None:
    run = run_all(open_hf_engine(folder), [0, 4711])
    (output,) = run.outputs[50]
    assert isinstance(output.error, ApiError)
    assert "4711" in str(output.error)
    assert [run.tokens(n) for n in range(6)] == texts


# --- out of memory ---


def test_a_pass_that_is_too_large_is_made_smaller(folder: Path, texts: list[list[int]]) -> None:
    engine = open_hf_engine(folder)
    widest = 0

    def check(ids: torch.Tensor) -> None:
        nonlocal widest
        if len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        widest = max(widest, len(ids))

    break_passes(engine, check)
    run = run_all(engine)
    assert widest == 2
    assert [run.tokens(n) for n in range(6)] == texts


def test_a_request_that_no_memory_suffices_for(folder: Path, texts: list[list[int]]) -> None:
    """It is put back while others run, then fails alone."""
    engine = open_hf_engine(folder)

    def check(ids: torch.Tensor) -> None:
        if (ids == POISON).any():
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9")

    break_passes(engine, check)
    run = run_all(engine, [*prompts(12)[0], POISON])
    (output,) = run.outputs[50]
    assert isinstance(output.error, ApiError)
    assert "has no room for this request" in output.error.message
    assert [run.tokens(n) for n in range(6)] == texts
    assert engine.metrics()["running_rows"] == engine.metrics()["waiting_rows"] == 0


def test_kept_prefixes_give_way_first(folder: Path) -> None:
    engine = open_hf_engine(folder)
    run = Run(engine)
    run.join(plain(1, asked()[3]))
    run.finish()
    assert engine.metrics()["prefix_cache_tokens"] > 0
    fails = True

    def check(ids: torch.Tensor) -> None:
        nonlocal fails
        if fails:
            fails = False
            raise MemoryError

    break_passes(engine, check)
    run.join(plain(2, asked()[1]))
    run.step()
    assert engine.metrics()["prefix_cache_tokens"] == 0
    assert len(run.tokens(2)) == 1
    run.finish()


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("limit", [70, 100, 160, 300])
def test_a_small_cache_lets_rows_wait_and_computes_them_anew(
    folder: Path, texts: list[list[int]], limit: int, steps: int
) -> None:
    engine = open_hf_engine(folder, kv_cache_tokens=limit)
    assert engine.spec.context_length == limit
    peaks: list[float] = []
    break_passes(engine, lambda ids: peaks.append(engine.metrics()["kv_cache_tokens"]))
    run = run_all(engine, steps=steps)
    assert [run.tokens(n) for n in range(6)] == texts
    assert max(peaks) <= limit
    assert max(peaks) > limit / 3


def test_answers_that_outgrow_the_cache_are_put_back(folder: Path, model: Any) -> None:
    engine = open_hf_engine(folder, kv_cache_tokens=120, prefix_cache_tokens=0)
    run = Run(engine)
    run.join(*[plain(number, prompt, 80) for number, prompt in enumerate(asked()[:3])])
    run.finish()
    assert engine.metrics()["preemptions"] > 0
    for number, prompt in enumerate(asked()[:3]):
        assert run.tokens(number) == greedy(model, prompt, 80)
    assert engine.metrics()["kv_cache_tokens"] == 0


def test_choices_that_outgrow_the_cache_are_put_back(folder: Path) -> None:
    (prompt,) = prompts(30)

    def choices() -> list[Any]:
        return [make_sequence(n, prompt, 30, temperature=1.0, seed=n) for n in range(4)]

    wide, narrow = open_hf_engine(folder), open_hf_engine(folder, kv_cache_tokens=130)
    runs = Run(wide), Run(narrow)
    for run in runs:
        run.join(*choices())
        run.finish()
    assert narrow.metrics()["preemptions"] > 0
    for number in range(4):
        assert runs[0].tokens(number) == runs[1].tokens(number)
