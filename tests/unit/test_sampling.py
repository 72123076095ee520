"""Choosing tokens: the random numbers, every parameter, and logprobs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smmf_core.engines.sampling.sampler import Sampler, describe, draw, philox, uniform
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling

EOS = 7
LOGITS = np.array([1.0, 3.0, 2.0, -1.0, 0.5, 2.5, -2.0, 2.9], np.float32)


def sampler(
    prompt: list[int] | None = None, output: list[int] | None = None, **params: Any
) -> Sampler:
    ends = frozenset({EOS})
    return Sampler(Sampling(**params), prompt or [], output or [], ends, len(LOGITS))


def support(seeds: int = 400, **params: Any) -> set[int]:
    """Every token that some of the seeds choose."""
    return {sampler(seed=seed, **params).choose(LOGITS) for seed in range(seeds)}


# --- random numbers ---


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # the known answers that Random123, the paper's library, tests itself with
        (
            (0, 0, 0, 0),
            (0, 0),
            (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        ),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, int, int, int]
) -> None:
    assert philox(counter, key) == words


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**31))
def test_uniform_is_a_fraction_of_seed_and_position(seed: int, position: int) -> None:
    number = uniform(seed, position)
    assert 0 <= number < 1
    assert number == uniform(seed, position)
    assert number != uniform(seed ^ 1 << 63, position)
    assert number != uniform(seed, position + 1)


def test_uniform_is_uniform() -> None:
    numbers = np.array([uniform(seed, position) for seed in range(50) for position in range(100)])
    assert np.histogram(numbers, 10, (0, 1))[0] == pytest.approx(500, abs=100)


# --- parameters ---


def test_temperature_zero_is_greedy_with_the_lowest_id_on_ties() -> None:
    assert support(20, temperature=0) == {1}
    tied = np.array([0, 2, 2, 2, 1, 0, 0, 0], np.float32)
    assert sampler(temperature=0).choose(tied) == 1


def test_frequencies_follow_the_softmax() -> None:
    chosen = [sampler(seed=seed, temperature=1.5).choose(LOGITS) for seed in range(4000)]
    weights = np.exp(LOGITS / 1.5)
    expected = weights / weights.sum()
    assert np.bincount(chosen, minlength=8) / 4000 == pytest.approx(expected, abs=0.03)


def test_low_temperature_prefers_the_best() -> None:
    chosen = [sampler(seed=seed, temperature=0.02).choose(LOGITS) for seed in range(50)]
    assert chosen.count(1) > 40
    assert support(20, temperature=1e-300) == {1}


def test_top_k() -> None:
    assert support(top_k=0, temperature=5) == set(range(8))
    assert support(top_k=3, temperature=5) == {1, 7, 5}
    assert support(top_k=1, temperature=5) == {1}
    assert support(top_k=100, temperature=5) == set(range(8))


def test_top_p_keeps_the_smallest_set_that_covers_it() -> None:
    weights = np.exp(LOGITS.astype(np.float64))
    order = np.argsort(-LOGITS)
    covered = np.cumsum(weights[order]) / weights.sum()
    for top_p in (0.05, 0.4, 0.7, 0.95):
        count = int(np.argmax(covered >= top_p)) + 1
        assert support(1500, top_p=top_p) == set(order[:count].tolist())
    assert support(top_p=0) == {1}


def test_min_p_is_relative_to_the_best() -> None:
    kept = {token for token in range(8) if np.exp(LOGITS[token] - 3.0) >= 0.3}
    assert support(min_p=0.3) == kept
    assert support(min_p=1.0) == {1}


def test_logit_bias() -> None:
    assert support(20, temperature=0, logit_bias={3: 4.5}) == {3}
    assert 1 not in support(logit_bias={1: -100.0})
    assert support(logit_bias={6: 100.0, 3: 100.0}, temperature=2) == {3, 6}
    assert support(20, temperature=0, logit_bias={99: 100.0, -3: 5.0}) == {1}  # no such tokens


def test_repetition_penalty_counts_prompt_and_output() -> None:
    greedy = {"temperature": 0.0, "repetition_penalty": 2.0}
    assert sampler([1], **greedy).choose(LOGITS) == 7
    assert sampler([1], [7], **greedy).choose(LOGITS) == 5
    negative = np.array([-1.0, -1.5, -9, -9, -9, -9, -9, -9], np.float32)
    assert sampler([0], **greedy).choose(negative) == 1  # a negative logit falls, too


def test_presence_and_frequency_count_the_output_only() -> None:
    for name in ("presence_penalty", "frequency_penalty"):
        params: dict[str, Any] = {"temperature": 0, name: 0.2}
        assert sampler([1, 1], **params).choose(LOGITS) == 1
        assert sampler([], [1], **params).choose(LOGITS) == 7
    twice = {"temperature": 0, "frequency_penalty": 0.06}
    assert sampler([], [1], **twice).choose(LOGITS) == 1
    assert sampler([], [1, 1], **twice).choose(LOGITS) == 7
    once = {"temperature": 0, "presence_penalty": 0.06}
    assert sampler([], [1, 1], **once).choose(LOGITS) == 1


def test_penalties_count_what_was_chosen() -> None:
    one = sampler(temperature=0, frequency_penalty=0.3)
    assert [one.choose(LOGITS) for _ in range(5)] == [1, 7, 1, 7, 5]


def test_min_tokens_bans_what_ends_an_answer() -> None:
    best_is_end = LOGITS.copy()
    best_is_end[[EOS, 4]] = 9.0, 8.0
    one = sampler(temperature=0, min_tokens=2, stop_token_ids=[4])
    assert [one.choose(best_is_end) for _ in range(3)] == [1, 1, EOS]
    late = sampler([], [1, 1], temperature=0, min_tokens=2)
    assert late.choose(best_is_end) == EOS


def test_given_logits_stay_as_they_are() -> None:
    before = LOGITS.copy()
    sampler([1], [2], logit_bias={1: 5.0}, repetition_penalty=1.5, presence_penalty=1).choose(
        LOGITS
    )
    assert (before == LOGITS).all()


def test_bans_that_leave_nothing_are_the_clients_error() -> None:
    with pytest.raises(ApiError, match="leave no token") as caught:
        sampler(logit_bias={EOS: 100.0}, min_tokens=1).choose(LOGITS)
    assert (caught.value.status, caught.value.param) == (400, "logit_bias")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite(value: float, temperature: float) -> None:
    broken = LOGITS.copy()
    broken[4] = value
    with pytest.raises(ValueError, match="not finite"):
        sampler(temperature=temperature).choose(broken)


def test_continuing_chooses_what_going_on_would_have() -> None:
    params: dict[str, Any] = {
        "seed": 5, "temperature": 1.3, "frequency_penalty": 0.5, "repetition_penalty": 1.2,
        "min_tokens": 6,
    }  # fmt: skip
    whole = sampler([3], **params)
    tokens = [whole.choose(LOGITS) for _ in range(20)]
    for cut in range(20):
        rest = sampler([3], tokens[:cut], **params)
        assert [rest.choose(LOGITS) for _ in range(20 - cut)] == tokens[cut:]


@given(
    st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.01, 2),
    st.floats(0.01, 1),
    st.integers(0, 50),
    st.floats(0, 1),
)
def test_draw_keeps_to_likely_tokens(
    logits: list[float], number: float, temperature: float, top_p: float, top_k: int, min_p: float
) -> None:
    row = np.array(logits, np.float32)
    params = Sampling(temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p)
    with np.errstate(all="ignore"):
        token = draw(row, params, number)
    better = int((row > row[token]).sum())
    assert top_k == 0 or better < top_k
    weights = np.exp((row.astype(np.float64) - row.max()) / temperature)
    assert weights[token] > 0
    assert weights[token] >= min_p * (1 - 1e-9)
    assert weights[weights > weights[token]].sum() <= top_p * weights.sum() * (1 + 1e-9)


def test_draw_with_the_largest_number_stays_in_range() -> None:
    row = np.array([0.0, 0.0, -1000.0], np.float32)
    with np.errstate(all="ignore"):
        assert draw(row, Sampling(), 1.0) == 1


# --- logprobs ---


def test_describe() -> None:
    expected = LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum())
    logprob, top = describe(LOGITS, 6, 3)
    assert logprob == pytest.approx(expected[6])
    assert [token for token, _ in top] == [1, 7, 5]
    assert [value for _, value in top] == pytest.approx(expected[[1, 7, 5]])
    assert describe(LOGITS, 1, 0)[1] == []
    assert len(describe(LOGITS, 1, 20)[1]) == 8


def test_describe_orders_equals_by_id() -> None:
    tied = np.array([0, 5, 5, 5, 1], np.float32)
    assert [token for token, _ in describe(tied, 0, 2)[1]] == [1, 2]
