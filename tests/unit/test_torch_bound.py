"""Rows that are held to a form, in a batch with others: as each would be chosen alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from byte_tokens import END, VOCAB, Bytes

from smmf_core.engines.base import Sequence
from smmf_core.engines.grammar.compiler import Grammars
from smmf_core.engines.grammar.constraint import Constraint
from smmf_core.engines.sampling.sampler import Sampler
from smmf_core.engines.transformers import sampling as torch_sampling
from smmf_core.engines.transformers.choose import TokenChooser
from smmf_core.engines.transformers.sampling import BatchSampler
from smmf_core.messages import Sampling, Submit

PARAMS = (
    {"temperature": 0.0},
    {"temperature": 1.0, "seed": 1},
    {"temperature": 1.2, "top_k": 5, "seed": 2},
    {"temperature": 0.9, "top_p": 0.7, "min_p": 0.01, "seed": 3},
    {"temperature": 0.0, "frequency_penalty": 1.0, "logit_bias": {34: 2.0}},
    {"temperature": 1.0, "repetition_penalty": 1.3, "min_tokens": 12, "seed": 4},
)
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string", "maxLength": 5}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}


@pytest.fixture(params=["host", "device"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to draw, whatever the device is."""
    if request.param == "device":
        monkeypatch.setattr(torch_sampling, "_is_hosts", lambda logits: False)


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(Bytes(), VOCAB)


def bind(grammars: Grammars, schema: Any) -> Constraint:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    asked = Submit(1, 0, "r", "m", True, 1, None, [[1]], Sampling(), response_format=form)
    bound = grammars.bind(Sequence(1, [1], 1, asked.sampling, 9, asked))
    assert bound is not None
    return bound


def test_every_row_chooses_what_it_would_alone(grammars: Grammars) -> None:
    sampler, alone = BatchSampler(VOCAB), {}
    ends = frozenset({END})
    for n in range(12):
        params = Sampling(**PARAMS[n % len(PARAMS)])
        bounds = [bind(grammars, SCHEMA) if n % 2 or n > 7 else None for _ in range(2)]
        sampler.add(n, params, [1], [], ends, bounds[0])
        alone[n] = Sampler(params, [1], [], ends, VOCAB, bounds[1])
    random = np.random.default_rng(5)
    running = list(alone)
    ended: set[int] = set()
    for _ in range(60):
        logits = random.standard_normal((len(running), VOCAB)).astype(np.float32) * 3
        before = logits.copy()
        chosen = sampler.choose(torch.from_numpy(logits), running)
        assert (logits == before).all()
        assert chosen.errors == {}
        assert chosen.tokens.tolist() == [
            alone[n].choose(row) for n, row in zip(running, logits, strict=True)
        ]
        over = [running[place] for place in chosen.ended]
        assert sorted(over) == [n for n in running if alone[n].is_over]
        ended.update(over)
        sampler.remove(over)
        running = [n for n in running if n not in over]
    assert {1, 3, 5, 7, 8} <= ended
    assert {0, 2, 4, 6} <= set(running)


def test_what_fails_costs_its_row_only(grammars: Grammars) -> None:
    """Bans that leave nothing, and logits that are not numbers."""
    sampler = BatchSampler(VOCAB)
    number = {"type": "integer", "minimum": 1, "maximum": 1}
    free = Sampling(temperature=0.0)
    sampler.add(0, Sampling(logit_bias={49: -100.0}), [1], [], frozenset(), bind(grammars, number))
    sampler.add(1, free, [1], [], frozenset(), bind(grammars, number))
    sampler.add(2, free, [1], [], frozenset(), bind(grammars, number))
    sampler.add(3, free, [1], [], frozenset())
    logits = np.tile(np.arange(VOCAB, dtype=np.float32), (4, 1))
    logits[1, 3] = np.nan
    chosen = sampler.choose(torch.from_numpy(logits), [0, 1, 2, 3])
    assert chosen.tokens[2:].tolist() == [ord("1"), VOCAB - 1]
    assert sorted(chosen.errors) == [0, 1]
    assert "form of the answer" in str(chosen.errors[0])
    assert "not finite" in str(chosen.errors[1])
    assert chosen.ended == {2}


def test_the_short_way_is_for_free_rows(grammars: Grammars) -> None:
    sampler = BatchSampler(VOCAB)
    chooser = TokenChooser(sampler)
    greedy = Sampling(temperature=0.0)
    submit = Submit(1, 0, "r", "m", True, 1, None, [[1]], greedy)
    sequences = [Sequence(n, [1], 1, greedy, 9, submit) for n in range(2)]
    sampler.add(0, greedy, [1], [], frozenset())
    sampler.add(1, greedy, [1], [], frozenset(), bind(grammars, SCHEMA))
    logits = torch.arange(VOCAB, dtype=torch.float32).tile(2, 1)
    assert chooser.choose(logits, sequences).tokens.tolist() == [VOCAB - 1, ord("{")]
