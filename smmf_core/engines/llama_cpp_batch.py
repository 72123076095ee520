"""What one llama_decode computes: which tokens of which requests, in which rows.

Owns the order and the sizes; must not choose tokens or take slots.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from smmf_core.engines.llama_cpp_api import Context
from smmf_core.engines.llama_cpp_sequence import Running


@dataclass(slots=True, eq=False)
class Chunk:
    """The next `count` tokens of one request; their logits are the rows `first_row` on."""

    running: Running
    count: int
    first_row: int = 0
    rows: int = 0


@dataclass(slots=True, eq=False)
class Plan:
    """A batch, as written into the context. `choosing` get a token from the row of that place."""

    chunks: list[Chunk] = field(default_factory=list)
    choosing: list[Running] = field(default_factory=list)
    choosing_rows: list[int] = field(default_factory=list)
    tokens: int = 0
    rows: int = 0
    prompt_tokens: int = 0
    is_steady: bool = False  # all take one token: the next step may be the same
    is_greedy: bool = False  # all take the most likely token


def make_plan(running: list[Running], most_tokens: int, most_described: int) -> Plan:
    """Answers take one token each; prompts share what is left, the longest open request first.

    `most_described`: rows for a request that wants its prompt's logprobs.
    """
    left = most_tokens - sum(is_decoding(request) for request in running)
    counts: dict[int, int] = {}
    for request in sorted(running, key=lambda request: request.number):
        if is_decoding(request):
            counts[request.number] = 1
            continue
        count = min(_open_tokens(request), max(left, 0))
        if request.describes:
            count = min(count, most_described)
        left -= count
        counts[request.number] = count
    plan = Plan()
    for request in sorted(running, key=_slot_id):  # llama.cpp batches ids that rise by one
        if counts[request.number]:
            _add(plan, request, counts[request.number])
    plan.is_steady = plan.tokens == len(running) == len(plan.choosing)
    is_greedy = all(request.is_greedy for request in plan.choosing)
    plan.is_greedy = is_greedy and plan.rows == len(plan.choosing)
    return plan


def write(plan: Plan, context: Context) -> None:
    """Put the plan into the context's batch."""
    start = 0
    for chunk in plan.chunks:
        slot = chunk.running.slot
        assert slot is not None
        end = start + chunk.count
        held = slot.held
        context.token[start:end] = chunk.running.tokens[held : held + chunk.count]
        context.position[start:end] = np.arange(held, held + chunk.count)
        context.slot[start:end] = slot.id
        context.wanted[start:end] = 0
        context.wanted[end - chunk.rows : end] = 1
        start = end


def is_decoding(running: Running) -> bool:
    return _open_tokens(running) == 1


def _open_tokens(running: Running) -> int:
    assert running.slot is not None
    return len(running.tokens) - running.slot.held


def _slot_id(running: Running) -> int:
    assert running.slot is not None
    return running.slot.id


def _add(plan: Plan, running: Running, count: int) -> None:
    is_last = count == _open_tokens(running)
    rows = count if running.describes else int(is_last)
    plan.chunks.append(Chunk(running, count, plan.rows, rows))
    plan.tokens += count
    plan.rows += rows
    if count > 1 or running.describes:
        plan.prompt_tokens += count
    if is_last:
        plan.choosing.append(running)
        plan.choosing_rows.append(plan.rows - 1)
