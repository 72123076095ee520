"""The tokens of a computed pass: the device's arg max, or the host's choice where a row needs one.

Owns who is chosen for how; must not touch caches or decide what runs next.
"""

from __future__ import annotations

from typing import cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from smmf_core.engines.base import Output
from smmf_core.engines.grammar.constraint import Constraint
from smmf_core.engines.mlx.batch import Flight, Row, to_numpy
from smmf_core.engines.sampling.host_draw import choose_tokens
from smmf_core.engines.sampling.plan import Group, Plan, uniforms
from smmf_core.engines.sampling.sampler import Row as Logits
from smmf_core.engines.sampling.sampler import Sampler, describe
from smmf_core.messages import Sampling

_NOT_FINITE = "the model computed logits that are not finite numbers"


def is_plain(params: Sampling) -> bool:
    """Whether the choice depends on nothing that came before."""
    has_penalty = params.presence_penalty or params.frequency_penalty
    has_other = params.repetition_penalty != 1.0 or params.logit_bias or params.min_tokens
    return not has_penalty and not has_other


def is_greedy(params: Sampling) -> bool:
    return params.temperature == 0 or params.top_p == 0


def choose(rows: list[Row], flight: Flight, vocab_size: int) -> list[Output]:
    """One output per row. Waits for the pass."""
    tokens = cast("list[int]", flight.tokens.tolist())
    wanted = [n for n, row in enumerate(rows) if _needs_logits(row)]
    lines: dict[int, Logits] = {}
    if wanted:
        logits = to_numpy(flight.logits[mx.array(wanted)])
        lines = dict(zip(wanted, logits, strict=True))
        drawing = [place for place, n in enumerate(wanted) if rows[n].draws]
        if drawing:
            drawn = _draw([rows[wanted[place]] for place in drawing], logits[drawing], vocab_size)
            for place, token in zip(drawing, drawn, strict=True):
                tokens[wanted[place]] = token
    return [_output(row, tokens[n], lines.get(n)) for n, row in enumerate(rows)]


def _needs_logits(row: Row) -> bool:
    return not row.is_on_device or row.sequence.params.logprobs is not None


def _draw(rows: list[Row], logits: NDArray[np.float32], vocab_size: int) -> list[int]:
    """The rows that sample without penalties and the like, together."""
    plan = Plan()
    for place, row in enumerate(rows):
        plan.add(place, row.sequence.params, None, vocab_size)
    numbers = [_random(rows, group) for group in (plan.plain, plan.cut)]
    tokens: list[int] = choose_tokens(logits, plan, *numbers).tolist()
    return tokens


def _random(rows: list[Row], group: Group) -> NDArray[np.float64]:
    if not group.places:
        return np.zeros(0)
    positions = [len(rows[n].tokens) - rows[n].sequence.prompt_len for n in group.places]
    return uniforms([params.seed for params in group.params], positions)


def _output(row: Row, token: int, logits: Logits | None) -> Output:
    sequence, described = row.sequence, None
    try:
        if token < 0:
            raise ValueError(_NOT_FINITE)
        if logits is not None:
            with np.errstate(all="ignore"):  # infinities and underflow have their meaning here
                if row.sampler is not None:
                    token = row.sampler.choose(logits)
                if sequence.params.logprobs is not None:
                    described = describe(logits, token, sequence.params.logprobs)
    except Exception as error:  # this sequence fails, the others go on
        return Output(sequence, 0, error=error)
    row.tokens.append(token)
    row.produced += 1
    is_over = row.sampler is not None and row.sampler.is_over
    output = Output(sequence, token, described, row.prompt_logprobs, ended=is_over)
    row.prompt_logprobs = None
    return output


def make_sampler(
    params: Sampling,
    prompt: list[int],
    output: list[int],
    ends: frozenset[int],
    vocab_size: int,
    bound: Constraint | None,
) -> Sampler | None:
    """None where a choice depends on nothing that came before."""
    if bound is None and is_plain(params):
        return None
    return Sampler(params, prompt, output, ends, vocab_size, bound)
