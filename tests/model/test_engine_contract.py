"""One suite over every engine that a Worker steps: the same questions, on the demo model in
float32, through the Worker's own core. What is right is what the reference engine answers.

Engines whose package needs an interpreter of its own are asked there: SMMF_CONTRACT_ENGINES names
the ones to ask, separated by commas.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import engines_env
import numpy as np
import pytest
from driver import make_sequence
from engines import NAMES, PROMPTS, demo_path, open_engine
from worker_rig import Answer, Worker

from smmf_core.engines.base import StepEngine
from smmf_core.messages import LENGTH, STOP

ASKED = tuple(filter(None, os.environ.get("SMMF_CONTRACT_ENGINES", "").split(","))) or NAMES
BUILT_IN = ("reference",)
ELSEWHERE = ("vllm",)  # asked in the interpreter that has it
OWN_SAMPLERS = ("vllm",)  # choose tokens themselves: same distribution, other random numbers
TOKENS = 48
LOGPROB_TOLERANCE = 1e-3
SAMPLED = (
    {"temperature": 0.8, "seed": 11},
    {"temperature": 1.0, "top_p": 0.9, "seed": 12},
    {"temperature": 1.3, "top_k": 20, "min_p": 0.02, "seed": 13},
    {"temperature": 0.7, "presence_penalty": 0.6, "frequency_penalty": 0.4, "seed": 14},
    {
        "temperature": 0.9,
        "repetition_penalty": 1.2,
        "logit_bias": {40: 3.0, 50: -100.0},
        "seed": 15,
    },
    {"repetition_penalty": 1.3, "min_tokens": 30},
    {"frequency_penalty": 1.0, "logit_bias": {60: 2.0}},
)
"""Parameters of one request each; without a temperature they are greedy."""


@pytest.fixture(scope="module")
def reference() -> Worker:
    return Worker(open_engine("reference", demo_path("reference")))


@pytest.fixture(scope="module")
def prompts(reference: Worker) -> list[list[int]]:
    return [reference.core.spec.tokenizer.encode(text, True) for text in PROMPTS]


@pytest.fixture(scope="module")
def expected(reference: Worker, prompts: list[list[int]]) -> list[list[int]]:
    """The greedy tokens of each prompt, past any end of text."""
    keys = [reference.submit(prompt, TOKENS, ignore_eos=True) for prompt in prompts]
    reference.finish()
    return [reference.answers[key].ids for key in keys]


@pytest.fixture(scope="module", params=ASKED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(name: str) -> Iterator[StepEngine]:
    if name not in BUILT_IN and name not in ELSEWHERE:
        engines_env.require(name.replace("_", "-"))
    engine = open_engine(name, demo_path(name))
    yield engine
    assert engine.ready_at(0.0) == math.inf, "something was left behind"
    engine.close()


@pytest.fixture
def worker(engine: StepEngine) -> Iterator[Worker]:
    """A Worker whose engine and batcher must be idle when the test is over."""
    worker = Worker(engine)
    yield worker
    assert engine.ready_at(0.0) == math.inf
    assert worker.core.running == worker.core.waiting == 0


def test_tokenizes_as_the_reference(
    worker: Worker, reference: Worker, prompts: list[list[int]]
) -> None:
    tokenizer, known = worker.core.spec.tokenizer, reference.core.spec.tokenizer
    assert [tokenizer.encode(text, True) for text in PROMPTS] == prompts
    assert tokenizer.vocab_size == known.vocab_size
    assert tokenizer.eos_ids == known.eos_ids
    for token in range(known.vocab_size):
        assert tokenizer.token_bytes(token) == known.token_bytes(token)


def test_greedy_alone(worker: Worker, prompts: list[list[int]], expected: list[list[int]]) -> None:
    for prompt, tokens in zip(prompts, expected, strict=True):
        answer = worker.ask(prompt, TOKENS, ignore_eos=True)
        assert answer.ids == tokens
        assert answer.choices[0].reason == LENGTH
        assert answer.usage is not None
        assert answer.usage[:2] == (len(prompt), TOKENS)


@pytest.mark.parametrize("stagger", [0, 1, 5])
def test_greedy_together(
    worker: Worker, prompts: list[list[int]], expected: list[list[int]], stagger: int
) -> None:
    """All at once, and each joining while the former ones run."""
    keys = []
    for prompt in prompts:
        keys.append(worker.submit(prompt, TOKENS, ignore_eos=True))
        for _ in range(stagger):
            worker.step()
    worker.finish()
    assert [worker.answers[key].ids for key in keys] == expected


@pytest.mark.parametrize("seed", range(4))
def test_random_joins_and_cancels_leave_nothing_behind(
    worker: Worker, prompts: list[list[int]], expected: list[list[int]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    asked: dict[int, int] = {}
    cancelled: set[int] = set()
    for _ in range(40):
        which = int(random.integers(len(prompts)))
        tokens = int(random.integers(1, TOKENS + 1))
        asked[worker.submit(prompts[which], tokens, ignore_eos=True)] = which
        for _ in range(int(random.integers(0, 4))):
            worker.step()
        if random.random() < 0.4:
            key = int(random.choice(list(asked)))
            if not worker.answers[key].is_over:
                cancelled.add(key)
            worker.cancel(key)
    worker.finish()
    assert cancelled
    for key, which in asked.items():
        ids = worker.answers[key].ids
        assert ids == expected[which][: len(ids)]
        assert worker.answers[key].is_over != (key in cancelled)


def test_a_cancelled_request_is_gone_after_one_step(
    worker: Worker, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    gone, kept = (worker.submit(prompts[n], TOKENS, ignore_eos=True) for n in (1, 2))
    while len(worker.answers[gone].ids) < 3:
        worker.step()
    worker.cancel(gone)
    before = len(worker.answers[gone].ids)
    worker.finish()
    assert len(worker.answers[gone].ids) == before
    assert worker.answers[kept].ids == expected[2]
    key = worker.submit(prompts[6], TOKENS)
    worker.cancel(key)  # it never ran
    worker.step()
    assert worker.engine.ready_at(0.0) == math.inf


def test_more_requests_than_the_batch_takes(
    engine: StepEngine, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    worker = Worker(engine, batch=3)
    keys = [worker.submit(prompt, 12, ignore_eos=True) for prompt in prompts]
    worker.finish()
    assert [worker.answers[key].ids for key in keys] == [tokens[:12] for tokens in expected]


@pytest.mark.parametrize("cut", [1, 7, 30, TOKENS - 1])
def test_a_forced_prefix_goes_on_greedily_the_same(
    worker: Worker, prompts: list[list[int]], expected: list[list[int]], cut: int
) -> None:
    assert worker.core.spec.supports_prefix
    keys = [
        worker.submit(prompt, TOKENS, ignore_eos=True, emitted=[tokens[:cut]])
        for prompt, tokens in zip(prompts, expected, strict=True)
    ]
    worker.finish()
    assert [worker.answers[key].ids for key in keys] == [tokens[cut:] for tokens in expected]


# --- sampling ---


def test_choices_have_seeds_of_their_own(worker: Worker, prompts: list[list[int]]) -> None:
    def ask(seed: int) -> list[list[int]]:
        answer = worker.ask(prompts[1], 24, n=3, temperature=1.0, seed=seed, ignore_eos=True)
        return [choice.ids for choice in answer.choices]

    first = ask(5)
    assert [len(ids) for ids in first] == [24, 24, 24]
    assert len({tuple(ids) for ids in first}) == 3
    assert ask(5) == first
    assert ask(6)[0] != first[0]


def test_a_seed_means_the_same_in_any_batch(worker: Worker, prompts: list[list[int]]) -> None:
    def submit(number: int) -> int:
        return worker.submit(prompts[number], 24, temperature=1.0, seed=number, ignore_eos=True)

    alone = []
    for number in range(len(prompts)):
        key = submit(number)
        worker.finish()
        alone.append(worker.answers[key].ids)
    keys = [submit(number) for number in range(len(prompts))]
    worker.finish()
    assert [worker.answers[key].ids for key in keys] == alone


def test_parameters_mean_the_same_as_in_the_reference(
    name: str, worker: Worker, reference: Worker, prompts: list[list[int]]
) -> None:
    if name in OWN_SAMPLERS:
        pytest.skip("this engine draws random numbers of its own")
    answers = []
    for one in (worker, reference):
        keys = [one.submit(prompts[1], 32, **params) for params in SAMPLED]
        one.finish()
        answers.append([one.answers[key].ids for key in keys])
    assert answers[0] == answers[1]
    assert len({tuple(ids) for ids in answers[0]}) == len(SAMPLED)


def test_bias_selects_and_bans(
    worker: Worker, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    banned = expected[3][0]
    only = worker.ask(prompts[3], 6, logit_bias={77: 100.0}, temperature=1.0, ignore_eos=True)
    assert only.ids == [77] * 6
    without = worker.ask(prompts[3], TOKENS, logit_bias={banned: -100.0}, ignore_eos=True)
    assert banned not in without.ids


# --- how answers end ---


def natural(worker: Worker, prompts: list[list[int]]) -> tuple[list[int], Answer]:
    """A prompt that the model ends by itself, and its answer."""
    prompt = prompts[0]
    answer = worker.ask(prompt, 200)
    assert answer.choices[0].reason == STOP
    return prompt, answer


def test_the_end_of_text_ends_it(worker: Worker, prompts: list[list[int]]) -> None:
    _, answer = natural(worker, prompts)
    (choice,) = answer.choices
    assert choice.ids[-1] in worker.core.spec.tokenizer.eos_ids
    assert len(choice.ids) < 200


def test_stop_tokens_end_it(
    worker: Worker, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    keys = []
    for prompt, tokens in zip(prompts, expected, strict=True):
        keys.append(worker.submit(prompt, TOKENS, ignore_eos=True, stop_token_ids=[tokens[9]]))
    worker.finish()
    for key, tokens in zip(keys, expected, strict=True):
        end = tokens.index(tokens[9]) + 1
        assert worker.answers[key].ids == tokens[:end]
        assert worker.answers[key].choices[0].reason == STOP


def test_min_tokens_holds_the_end_back(worker: Worker, prompts: list[list[int]]) -> None:
    prompt, answer = natural(worker, prompts)
    ends = worker.core.spec.tokenizer.eos_ids
    least = len(answer.ids) + 5
    longer = worker.ask(prompt, 200, min_tokens=least).ids
    assert longer[: len(answer.ids) - 1] == answer.ids[:-1]
    assert len(longer) >= least
    assert not ends.intersection(longer[:least])


def test_ignore_eos_fills_max_tokens(worker: Worker, prompts: list[list[int]]) -> None:
    answer = worker.ask(prompts[0], 200, ignore_eos=True)
    assert len(answer.ids) == 200
    assert answer.choices[0].reason == LENGTH


def test_the_context_ends_it(worker: Worker, prompts: list[list[int]]) -> None:
    context = worker.core.spec.context_length
    prompt = (prompts[6] * (context // len(prompts[6]) + 1))[: context - 5]
    answer = worker.ask(prompt, None, ignore_eos=True)
    assert len(answer.ids) == 5
    assert answer.choices[0].reason == LENGTH
    refused = worker.ask(prompt, 6).error
    assert refused is not None
    assert refused.code == "context_length_exceeded"


# --- logprobs ---


def test_logprobs_are_those_of_the_reference(
    worker: Worker, reference: Worker, prompts: list[list[int]]
) -> None:
    """Also beside requests that want none, and of tokens that were sampled."""
    described = []
    for one in (worker, reference):
        keys = [one.submit(p, 16, ignore_eos=True, logprobs=n) for n, p in enumerate(prompts[:5])]
        others = [one.submit(p, 16, ignore_eos=True) for p in prompts[5:]]
        one.finish()
        assert all(not one.answers[key].choices[0].logprobs for key in others)
        described.append([one.answers[key].choices[0].logprobs for key in keys])
    for best, (entries, known) in enumerate(zip(*described, strict=True)):
        assert len(entries) == len(known) == 16
        for own, right in zip(entries, known, strict=True):
            assert own.token == right.token
            assert own.logprob == pytest.approx(right.logprob, abs=LOGPROB_TOLERANCE)
            assert [p for _, p in own.top] == pytest.approx(
                [p for _, p in right.top], abs=LOGPROB_TOLERANCE
            )
            assert len(own.top) == best


def test_logprobs_are_probabilities(worker: Worker, prompts: list[list[int]]) -> None:
    (choice,) = worker.ask(prompts[4], 12, ignore_eos=True, logprobs=20).choices
    for entry in choice.logprobs:
        values = [value for _, value in entry.top]
        assert values == sorted(values, reverse=True)
        assert entry.top[0] == (entry.token, entry.logprob)  # greedy: the best is chosen
        assert 0 < sum(map(math.exp, values)) <= 1 + 1e-6


def test_sampled_logprobs_are_before_temperature(
    name: str, worker: Worker, reference: Worker, prompts: list[list[int]]
) -> None:
    if name in OWN_SAMPLERS:
        pytest.skip("this engine draws random numbers of its own")
    fields = {"temperature": 0.6, "top_k": 5, "seed": 3, "logprobs": 2, "ignore_eos": True}
    entries = worker.ask(prompts[1], 12, **fields).choices[0].logprobs
    known = reference.ask(prompts[1], 12, **fields).choices[0].logprobs
    assert [e.token for e in entries] == [e.token for e in known]
    assert [e.logprob for e in entries] == pytest.approx(
        [e.logprob for e in known], abs=LOGPROB_TOLERANCE
    )


@pytest.mark.parametrize("tokens", [0, 4])
def test_prompt_logprobs_are_those_of_the_reference(
    worker: Worker, reference: Worker, prompts: list[list[int]], tokens: int
) -> None:
    described = []
    for one in (worker, reference):
        keys = [one.submit(p, tokens, echo_prompt=True, logprobs=2) for p in prompts[3:7]]
        one.submit(prompts[2], 8)
        one.finish()
        described.append([one.answers[key].choices[0].logprobs for key in keys])
    for prompt, entries, known in zip(prompts[3:7], *described, strict=True):
        assert len(entries) == len(known) >= len(prompt)
        assert entries[0].logprob is None
        assert [e.token for e in entries] == [e.token for e in known]
        for own, right in zip(entries[1:], known[1:], strict=True):
            assert own.logprob == pytest.approx(right.logprob, abs=LOGPROB_TOLERANCE)
            assert [p for _, p in own.top] == pytest.approx(
                [p for _, p in right.top], abs=LOGPROB_TOLERANCE
            )


# --- failure ---


def test_a_request_without_a_choice_fails_alone(
    worker: Worker, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    everything = dict.fromkeys(range(worker.core.spec.tokenizer.vocab_size), -100.0)
    kept = [worker.submit(prompts[1], TOKENS, ignore_eos=True)]
    failed = worker.submit(prompts[2], 4, logit_bias=everything)
    kept.append(worker.submit(prompts[3], TOKENS, ignore_eos=True))
    worker.finish()
    error = worker.answers[failed].error
    assert error is not None
    assert error.param == "logit_bias"
    assert [worker.answers[key].ids for key in kept] == [expected[1], expected[3]]


@pytest.mark.parametrize("token", [-1, 1 << 30])
def test_a_token_that_the_model_does_not_have_fails_its_sequence_alone(
    engine: StepEngine, prompts: list[list[int]], expected: list[list[int]], token: int
) -> None:
    """The Worker refuses such prompts; an engine must not answer for it with its life."""
    good = make_sequence(9_001, prompts[3], 6, temperature=0.0, ignore_eos=True)
    bad = make_sequence(9_002, [*prompts[3], token, 5], 6, temperature=0.0, ignore_eos=True)
    engine.add([good, bad])
    tokens: list[int] = []
    errors = []
    for _ in range(1000):
        for output in engine.step():
            if output.error is not None:
                errors.append(output.sequence)
                engine.remove([output.sequence])
            else:
                assert output.sequence is good
                tokens.append(output.token)
        if len(tokens) >= 6:
            break
    engine.remove([good])
    assert errors == [bad]
    assert tokens == expected[3][:6]
    assert engine.ready_at(0.0) == math.inf


def test_an_unknown_adapter_is_refused(worker: Worker, prompts: list[list[int]]) -> None:
    kept = worker.submit(prompts[1], 4)
    failed = worker.submit(prompts[1], 4, adapter="nobody")
    worker.finish()
    assert worker.answers[failed].error is not None
    assert worker.answers[kept].error is None
