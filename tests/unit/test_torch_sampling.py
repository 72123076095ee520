"""Batched sampling: what every row chooses is what the one-sequence sampler chooses for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smmf_core.engines.base import Logprobs
from smmf_core.engines.sampling.plan import uniforms
from smmf_core.engines.sampling.sampler import Sampler, describe, uniform
from smmf_core.engines.transformers import draw as torch_draw
from smmf_core.engines.transformers import sampling as torch_sampling
from smmf_core.engines.transformers.sampling import BatchSampler
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling

EOS = 7
ENDS = frozenset({EOS})


@pytest.fixture(params=["host", "torch"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to draw, whatever the device is."""
    if request.param == "torch":
        monkeypatch.setattr(torch_sampling, "_is_hosts", lambda logits: False)
    return str(request.param)


@st.composite
def samplings(draw: Callable[[Any], Any], vocab_size: int) -> Sampling:
    tokens = st.integers(-1, vocab_size)
    penalty = st.sampled_from([0.0, 0.0, 0.0, 0.7, -1.5, 2.0])
    biases = st.dictionaries(tokens, st.sampled_from([-100.0, -3.0, 2.5, 40.0, 100.0]), max_size=3)
    return Sampling(
        min_tokens=draw(st.sampled_from([0, 0, 2, 5])),
        temperature=draw(st.sampled_from([0.0, 0.0, 1e-300, 0.3, 1.0, 1.0, 2.0])),
        top_p=draw(st.sampled_from([1.0, 1.0, 0.0, 0.01, 0.5, 0.9, 0.999])),
        top_k=draw(st.sampled_from([0, 0, 1, 3, 20, 10_000])),
        min_p=draw(st.sampled_from([0.0, 0.0, 0.05, 0.6, 1.0])),
        presence_penalty=draw(penalty),
        frequency_penalty=draw(penalty),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.3, 0.8])),
        logit_bias=draw(st.none() | biases),
        seed=draw(st.integers(0, 2**64 - 1)),
        stop_token_ids=draw(st.lists(tokens, max_size=2)),
        logprobs=draw(st.none() | st.integers(0, 6)),
    )


def alone(
    samplers: list[Sampler | None], logits: np.ndarray, params: list[Sampling]
) -> list[tuple[int, Logprobs | None] | Exception]:
    """What each sequence's own sampler does; one that fails is None from then on."""
    results: list[tuple[int, Logprobs | None] | Exception] = []
    for n, row in enumerate(logits):
        one = samplers[n]
        assert one is not None
        try:
            with np.errstate(all="ignore"):
                token = one.choose(row)
                best = params[n].logprobs
                results.append((token, None if best is None else describe(row, token, best)))
        except (ValueError, ApiError) as error:
            results.append(error)
    return results


def check_same(
    sampler: BatchSampler,
    samplers: dict[int, Sampler],
    params: dict[int, Sampling],
    logits: torch.Tensor,
    ids: list[int],
) -> None:
    wide = logits.float().numpy()
    before = wide.copy()
    expected = alone([samplers[i] for i in ids], wide, [params[i] for i in ids])
    chosen = sampler.choose(logits, ids)
    assert (before == logits.float().numpy()).all() or np.isnan(before).any()
    assert len(chosen.tokens) == len(ids)
    assert (chosen.logprobs is None) == all(params[i].logprobs is None for i in ids)
    for place, result in enumerate(expected):
        if isinstance(result, Exception):
            error = chosen.errors[place]
            assert (type(error), str(error)) == (type(result), str(result))
            assert chosen.tokens[place] == 0
            continue
        assert place not in chosen.errors
        token, logprobs = result
        assert chosen.tokens[place] == token
        if logprobs is not None:
            check_logprobs(chosen.logprobs[place], logprobs)


def check_logprobs(given_: Logprobs | None, expected: Logprobs) -> None:
    assert given_ is not None
    assert given_[0] == pytest.approx(expected[0], abs=1e-9)
    assert [token for token, _ in given_[1]] == [token for token, _ in expected[1]]
    assert [v for _, v in given_[1]] == pytest.approx([v for _, v in expected[1]], abs=1e-9)


@given(st.data())
def test_every_row_chooses_what_it_would_alone(data: st.DataObject) -> None:
    vocab_size = data.draw(st.sampled_from([9, 40, 3000]))
    count = data.draw(st.integers(1, 20))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    kinds = st.sampled_from([torch.float32, torch.float32, torch.bfloat16])
    dtype, scale = data.draw(kinds), data.draw(st.sampled_from([0.0, 1.0, 4.0, 30.0]))
    params = {n: data.draw(samplings(vocab_size)) for n in range(count)}
    sampler, samplers = BatchSampler(vocab_size), {}
    for n, one in params.items():
        prompt, output = ([int(t) for t in random.integers(0, vocab_size, 4)] for _ in range(2))
        output = output[: n % 4]
        sampler.add(n, one, prompt, output, ENDS)
        samplers[n] = Sampler(one, prompt, output, ENDS, vocab_size)
    for _ in range(4):
        ids = [int(n) for n in random.permutation(count)[: random.integers(1, count + 1)]]
        logits = random.standard_normal((len(ids), vocab_size)).astype(np.float32) * scale
        for row in logits[random.random(len(ids)) < 0.05]:
            row[3] = random.choice([np.nan, np.inf, -np.inf])
        check_same(sampler, samplers, params, torch.from_numpy(logits).to(dtype), ids)


def choose(
    logits: np.ndarray, params: list[Sampling], prompt: list[int] | None = None
) -> torch_sampling.Chosen:
    """One token per row, each of a new sequence."""
    sampler = BatchSampler(logits.shape[1])
    for n, one in enumerate(params):
        sampler.add(n, one, prompt or [], [], ENDS)
    return sampler.choose(torch.from_numpy(logits.astype(np.float32)), list(range(len(params))))


def test_greedy_takes_the_first_of_equals() -> None:
    logits = np.array([[0, 2, 2, 1], [-1, -5, -1, -1], [3, 3, 3, 3]])
    assert choose(logits, [Sampling(temperature=0)] * 3).tokens.tolist() == [1, 0, 0]


@pytest.mark.parametrize("vocab_size", [50, 5000])
@pytest.mark.parametrize("temperature", [0.2, 1.0, 1.9])
@pytest.mark.parametrize(
    "cut",
    [
        {"top_k": 7},
        {"top_k": 4900},
        {"top_p": 0.3},
        {"top_p": 0.97},
        {"min_p": 0.02},
        {"top_p": 0.8, "top_k": 40},
        {"top_p": 0.99, "min_p": 0.0001, "top_k": 1000},
    ],
)
def test_cuts_wide_and_narrow(cut: dict[str, Any], temperature: float, vocab_size: int) -> None:
    random = np.random.default_rng(vocab_size)
    logits = random.standard_normal((24, vocab_size)).astype(np.float32) * 2
    params = [Sampling(seed=n, temperature=temperature, **cut) for n in range(24)]
    expected = [
        Sampler(one, [], [], ENDS, vocab_size).choose(row)
        for one, row in zip(params, logits, strict=True)
    ]
    assert choose(logits, params).tokens.tolist() == expected


def test_equals_beyond_the_candidates_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """More tokens as likely as the last one kept than are sorted at first."""
    monkeypatch.setattr(torch_draw, "_LIKELIEST", 8)
    monkeypatch.setattr(torch_draw, "_MORE", 2)
    logits = np.zeros((60, 300))
    logits[:, 100] = 1.0
    params = [Sampling(seed=n, top_k=3, temperature=2) for n in range(60)]
    tokens = choose(logits, params).tokens
    assert len(set(tokens.tolist())) > 40
    expected = [Sampler(one, [], [], ENDS, 300).choose(logits[0]) for one in params]
    assert tokens.tolist() == expected


def test_a_row_without_numbers_fails_alone() -> None:
    logits = np.tile(np.array([0.0, 1.0, 2.0, 0.5]), (4, 1))
    logits[1, 2] = np.nan
    logits[2] = -np.inf
    params = [Sampling(temperature=0), Sampling(top_p=0.5), Sampling(), Sampling(logprobs=1)]
    chosen = choose(logits, params)
    assert sorted(chosen.errors) == [1, 2]
    assert all("not finite" in str(error) for error in chosen.errors.values())
    assert chosen.tokens[:3].tolist() == [2, 0, 0]
    assert chosen.logprobs is not None
    assert chosen.logprobs[:3] == [None] * 3
    assert chosen.logprobs[3] is not None


def test_bans_that_leave_nothing_fail_one_row() -> None:
    params = [Sampling(logit_bias={EOS: 100.0}, min_tokens=1), Sampling(temperature=0)]
    chosen = choose(np.eye(2, 9), params)
    assert chosen.tokens.tolist() == [0, 1]
    (error,) = chosen.errors.values()
    assert isinstance(error, ApiError)
    assert error.param == "logit_bias"


def test_a_failed_row_does_not_move_on() -> None:
    sampler, alone_ = BatchSampler(9), Sampler(Sampling(seed=3), [], [], ENDS, 9)
    sampler.add(5, Sampling(seed=3), [], [], ENDS)
    broken = torch.full((1, 9), torch.nan)
    assert sampler.choose(broken, [5]).errors
    row = np.linspace(0, 1, 9, dtype=np.float32)
    tokens = [int(sampler.choose(torch.from_numpy(row[None]), [5]).tokens[0]) for _ in range(5)]
    assert tokens == [alone_.choose(row) for _ in range(5)]


def test_rows_come_and_go() -> None:
    logits = np.tile(np.linspace(0, 1, 9, dtype=np.float32), (2, 1))
    sampler = BatchSampler(9)
    sampler.add(1, Sampling(temperature=0), [], [], ENDS)
    sampler.add(2, Sampling(temperature=0, logit_bias={3: 50.0}), [], [], ENDS)
    assert sampler.choose(torch.from_numpy(logits), [1, 2]).tokens.tolist() == [8, 3]
    assert sampler.choose(torch.from_numpy(logits), [2, 1]).tokens.tolist() == [3, 8]
    sampler.remove([2, 99])
    sampler.add(2, Sampling(temperature=0, logit_bias={4: 50.0}), [], [], ENDS)
    assert sampler.choose(torch.from_numpy(logits), [2, 1]).tokens.tolist() == [4, 8]


def test_min_tokens_end() -> None:
    """The ban is lifted in the middle of a batch that stays the same."""
    logits = torch.zeros((1, 9))
    logits[0, EOS] = 5
    sampler = BatchSampler(9)
    sampler.add(0, Sampling(temperature=0, min_tokens=3), [], [], ENDS)
    tokens = [int(sampler.choose(logits, [0]).tokens[0]) for _ in range(5)]
    assert tokens == [0, 0, 0, EOS, EOS]


def test_logprobs_of_equals_are_ordered_by_id() -> None:
    logits = np.zeros((1, 200), np.float32)
    logits[0, 150:] = 1.0
    chosen = choose(logits, [Sampling(temperature=0, logprobs=3)])
    assert chosen.logprobs is not None
    check_logprobs(chosen.logprobs[0], describe(logits[0], 150, 3))


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**40)), max_size=40))
def test_random_numbers_of_many_rows(pairs: list[tuple[int, int]]) -> None:
    numbers = uniforms([seed for seed, _ in pairs], [position for _, position in pairs])
    assert numbers.tolist() == [uniform(*pair) for pair in pairs]
