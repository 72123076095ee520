"""What one llama_decode computes: which tokens of which requests, in which rows.

Owns the order and the sizes; must not choose tokens or take slots. With a cache for each sequence
llama.cpp computes only sequences together whose ids rise by one, each such run in a pass of its
own over all weights. Short gaps are filled: free slots take a token that nobody looks at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from smmf_core.engines.llama_cpp.api import Context
from smmf_core.engines.llama_cpp.sequence import Running
from smmf_core.engines.llama_cpp.slots import Slot
from smmf_core.engines.sampling.plan import Plan as SamplingPlan

LONGEST_GAP = 3  # slots: a pass over the weights costs as much as about so many rows
_FILLER = 0  # the token of a free slot: any
_ANY_VOCABULARY = 1 << 31  # tokens: a larger top_k than there are does no harm


@dataclass(slots=True, eq=False)
class Chunk:
    """The next `count` tokens of one request; their logits are the rows `first_row` on.

    Without a request it fills a gap.
    """

    slot: Slot
    running: Running | None
    count: int = 1
    first_row: int = 0
    rows: int = 0


@dataclass(slots=True, eq=False)
class Plan:
    """A batch, as written into the context. `choosing` get a token from the row of that place."""

    chunks: list[Chunk] = field(default_factory=list)
    choosing: list[Running] = field(default_factory=list)
    choosing_rows: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # of their last tokens in the batch
    tokens: int = 0
    rows: int = 0
    prompt_tokens: int = 0
    steps_left: int = 0  # how often it may be computed again, with the next tokens
    together: list[int] = field(default_factory=list)  # places of the simple ones in `choosing`
    sampling: SamplingPlan = field(default_factory=SamplingPlan)  # of those


def make_plan(
    running: list[Running], slots: list[Slot], most_tokens: int, most_described: int
) -> Plan:
    """Answers take one token each; prompts share what is left, the longest open request first.

    `slots` are those that may fill gaps, `most_described` the rows for a request that wants its
    prompt's logprobs.
    """
    gaps = _gaps(sorted(_slot(request).id for request in running), slots)
    left = most_tokens - len(gaps) - sum(_open_tokens(request) == 1 for request in running)
    plan = Plan()
    chunks = [Chunk(slot, None) for slot in gaps]
    for request in sorted(running, key=lambda request: request.number):
        count = _open_tokens(request)
        if count > 1:
            count = min(count, max(left, 0), most_described if request.describes else count)
            left -= count
        if count:
            chunks.append(Chunk(_slot(request), request, count))
    for chunk in sorted(chunks, key=lambda chunk: chunk.slot.id):
        _add(plan, chunk)
    _finish(plan, len(running))
    return plan


def write(plan: Plan, context: Context) -> None:
    """Put the plan into the context's batch."""
    start = 0
    for chunk in plan.chunks:
        slot, end = chunk.slot, start + chunk.count
        first = slot.held + slot.filled
        tokens = [_FILLER] if chunk.running is None else slot.tokens[first : first + chunk.count]
        context.token[start:end] = tokens
        context.position[start:end] = np.arange(first, first + chunk.count)
        context.slot[start:end] = slot.id
        context.wanted[start:end] = 0
        context.wanted[end - chunk.rows : end] = 1
        start = end


def _gaps(taken: list[int], slots: list[Slot]) -> list[Slot]:
    """The free slots in short gaps between the taken ids."""
    free = {slot.id: slot for slot in slots}
    found: list[Slot] = []
    for one, other in pairwise(taken):
        between = range(one + 1, other)
        if len(between) <= LONGEST_GAP and free.keys() >= set(between):
            found += [free[number] for number in between]
    return found


def _add(plan: Plan, chunk: Chunk) -> None:
    request = chunk.running
    plan.chunks.append(chunk)
    plan.tokens += chunk.count
    if request is None:
        return
    is_last = chunk.count == _open_tokens(request)
    chunk.first_row = plan.rows
    chunk.rows = chunk.count if request.describes else int(is_last)
    plan.rows += chunk.rows
    if chunk.count > 1 or request.describes:
        plan.prompt_tokens += chunk.count
    if is_last:
        plan.choosing.append(request)
        plan.choosing_rows.append(plan.rows - 1)
        plan.places.append(plan.tokens - 1)
        if request.is_simple:
            place = len(plan.together)
            plan.sampling.add(place, request.sequence.params, None, _ANY_VOCABULARY)
            plan.together.append(len(plan.choosing) - 1)


def _finish(plan: Plan, requests: int) -> None:
    if plan.tokens == len(plan.chunks) and len(plan.choosing) == requests:
        fillers = [c.slot for c in plan.chunks if c.running is None]
        plan.steps_left = min((slot.room() for slot in fillers), default=1 << 30)


def _slot(running: Running) -> Slot:
    assert running.slot is not None
    return running.slot


def _open_tokens(running: Running) -> int:
    return len(running.tokens) - _slot(running).held
