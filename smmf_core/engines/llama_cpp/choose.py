"""The next tokens of a computed batch: simple requests together, the others one by one.

Owns who is chosen for how; must not touch slots or the cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smmf_core.engines.base import Output
from smmf_core.engines.llama_cpp.api import Rows
from smmf_core.engines.llama_cpp.batch import Plan
from smmf_core.engines.llama_cpp.sequence import NOT_FINITE, Running
from smmf_core.engines.sampling.host_draw import choose_tokens
from smmf_core.engines.sampling.plan import Group, uniforms

Failed = list[tuple[Running, Exception]]

_NO_NUMBERS = np.zeros(0)


def choose(plan: Plan, rows: Rows) -> tuple[list[Output], Failed]:
    """The tokens that a plan's rows of logits yield, and the requests that got none."""
    failed: Failed = []
    outputs = _together(plan, rows, failed) if plan.together else []
    if len(plan.together) < len(plan.choosing):
        outputs += _each(plan, rows, failed)
    return outputs, failed


def _together(plan: Plan, rows: Rows, failed: Failed) -> list[Output]:
    members = [plan.choosing[place] for place in plan.together]
    if len(members) < plan.rows:
        rows = rows[[plan.choosing_rows[place] for place in plan.together]]
    numbers = [_random(members, group) for group in (plan.sampling.plain, plan.sampling.cut)]
    tokens: list[int] = choose_tokens(rows, plan.sampling, *numbers).tolist()
    outputs = []
    for running, token in zip(members, tokens, strict=True):
        if token < 0:
            failed.append((running, ValueError(NOT_FINITE)))
            continue
        running.tokens.append(token)
        outputs.append(Output(running.sequence, token))
    return outputs


def _random(members: list[Running], group: Group) -> NDArray[np.float64]:
    """The random numbers of the positions of those that draw."""
    if not group.places:
        return _NO_NUMBERS
    drawing = [members[place] for place in group.places]
    positions = [len(running.tokens) - running.sequence.prompt_len for running in drawing]
    return uniforms([params.seed for params in group.params], positions)


def _each(plan: Plan, rows: Rows, failed: Failed) -> list[Output]:
    outputs: list[Output] = []
    for running, row in zip(plan.choosing, plan.choosing_rows, strict=True):
        if running.is_simple:
            continue
        try:
            outputs.append(running.choose(rows[row]))
        except Exception as error:  # this sequence fails, the others go on
            failed.append((running, error))
    return outputs
