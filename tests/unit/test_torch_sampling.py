"""Batched sampling: what every row chooses is what the one-sequence sampler chooses for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smmf_core.engines import host_draw, torch_draw, torch_sampling
from smmf_core.engines.base import Logprobs
from smmf_core.engines.sampling import Sampler, describe, uniform
from smmf_core.engines.sampling_plan import uniforms
from smmf_core.engines.torch_sampling import BatchSampler, describe_rows
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
