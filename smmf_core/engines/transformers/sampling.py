"""Choosing the next tokens of a whole batch, every parameter per request.

Owns the sequences' positions and counts; must not run a model. For float32 logits it chooses what
sampling.Sampler chooses for each row alone. On the CPU numpy does the work (its argmax, exp and
sort are several times faster there than torch's), on other devices torch does, and what comes back
are the chosen tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from smmf_core.engines.base import Logprobs
from smmf_core.engines.grammar.constraint import Constraint
from smmf_core.engines.sampling import host_draw
from smmf_core.engines.sampling.plan import NOT_FINITE, Group, Plan, uniforms
from smmf_core.engines.sampling.sampler import nothing_left
from smmf_core.engines.sampling.touched import Touched
from smmf_core.engines.transformers import draw as torch_draw
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling


class Chosen(NamedTuple):
    """`logprobs` is None when no row asks for them. A row with an error has token 0. `ended`: the
    places of answers whose form leaves nothing to follow."""

    tokens: NDArray[np.int64]
    logprobs: list[Logprobs | None] | None
    errors: dict[int, Exception]  # by the row's place in this call
    ended: frozenset[int] = frozenset()


class _Row:
    """One sequence. `position` counts the tokens of its answer."""

    __slots__ = ("bound", "is_banned", "params", "position", "touched")

    def __init__(
        self,
        params: Sampling,
        prompt: list[int],
        output: list[int],
        ends: frozenset[int],
        vocab_size: int,
        bound: Constraint | None,
    ) -> None:
        self.params = params
        self.bound = bound
        self.position = len(output)
        banned: list[int] = []
        if self.position < params.min_tokens:
            every = ends.union(params.stop_token_ids)
            banned = [token for token in every if 0 <= token < vocab_size]
        self.is_banned = bool(banned)
        self.touched: Touched | None = None
        if banned or _is_adjusted(params):
            self.touched = Touched(params, prompt, output, banned, vocab_size)


def _is_adjusted(params: Sampling) -> bool:
    penalties = params.presence_penalty or params.frequency_penalty
    return bool(params.logit_bias or penalties or params.repetition_penalty != 1.0)


class BatchSampler:
    """Sequences are known by ids of the caller's; their rows may stand anywhere in a batch."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._rows: dict[int, _Row] = {}
        self._plan = Plan()
        self._planned: list[int] = []  # the ids that the plan is of

    def add(
        self,
        row_id: int,
        params: Sampling,
        prompt: list[int],
        output: list[int],
        end_ids: frozenset[int],
        bound: Constraint | None = None,
    ) -> None:
        """`output` holds the tokens already generated elsewhere, `end_ids` what ends an answer,
        `bound` the form that it is held to, gone on to where the output ends."""
        self._rows[row_id] = _Row(params, prompt, output, end_ids, self._vocab_size, bound)
        self._planned = []

    def binds(self, row_ids: Iterable[int]) -> bool:
        """Whether an answer among these is held to a form."""
        return any(self._rows[row_id].bound is not None for row_id in row_ids)

    def remove(self, row_ids: Iterable[int]) -> None:
        """Ids that are not known are let pass."""
        for row_id in row_ids:
            self._rows.pop(row_id, None)
        self._planned = []

    def choose(self, logits: torch.Tensor, row_ids: list[int]) -> Chosen:
        """The next token of each sequence from its row of logits [rows, vocabulary].

        Errors: ValueError for logits that are not numbers, ApiError when bans leave no token; such
        a sequence does not move on.
        """
        rows = [self._rows[row_id] for row_id in row_ids]
        plan = self._plan_of(rows, row_ids)
        failed = plan.fill_masks()
        numbers = self._numbers(rows, plan.plain), self._numbers(rows, plan.cut)
        if _is_hosts(logits):
            host = _on_host(logits)
            tokens = host_draw.choose_tokens(host, plan, *numbers)
            described = host_draw.describe_rows(host, tokens, plan.described)
        else:
            tokens = torch_draw.choose_tokens(logits, plan, *numbers)
            described = torch_draw.describe_rows(logits, tokens, plan.described)
        errors = {**_errors(tokens, plan), **failed}
        for place, bound in plan.bound:
            if place not in errors:
                try:
                    bound.accept(int(tokens[place]))
                except ApiError as error:
                    errors[place] = error
        for place, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if place not in errors:
                self._go_on(row, token)
        if errors:
            tokens[list(errors)] = 0
        ended = frozenset(place for place, bound in plan.bound if bound.is_over)
        if not plan.described:
            return Chosen(tokens, None, errors, ended)
        return Chosen(tokens, [described.get(place) for place in range(len(rows))], errors, ended)

    def _plan_of(self, rows: list[_Row], row_ids: list[int]) -> Plan:
        if self._planned != row_ids or not self._planned:
            self._plan = Plan()
            for place, row in enumerate(rows):
                self._plan.add(place, row.params, row.touched, self._vocab_size, row.bound)
            self._planned = list(row_ids)
        return self._plan

    def _numbers(self, rows: list[_Row], group: Group) -> NDArray[np.float64]:
        seeds = [params.seed for params in group.params]
        return uniforms(seeds, [rows[place].position for place in group.places])

    def _go_on(self, row: _Row, token: int) -> None:
        row.position += 1
        touched = row.touched
        if touched is None:
            return
        touched.count(token)
        if row.is_banned and row.position >= row.params.min_tokens:
            row.is_banned = False
            touched.allow()
            if not _is_adjusted(row.params):
                row.touched = None
                self._planned = []


def _is_hosts(logits: torch.Tensor) -> bool:
    """Apple's GPU has no float64, but it shares the CPU's memory."""
    return logits.device.type in ("cpu", "mps")


def _on_host(logits: torch.Tensor) -> NDArray[np.float32]:
    host: NDArray[np.float32] = logits.detach().float().cpu().numpy()
    return host


def _errors(tokens: NDArray[np.int64], plan: Plan) -> dict[int, Exception]:
    errors: dict[int, Exception] = {}
    for place in np.flatnonzero(tokens < 0).tolist():
        if tokens[place] == NOT_FINITE:
            text = "the model computed logits that are not finite numbers"
            errors[place] = ValueError(text)
        else:
            errors[place] = nothing_left(any(place == bound for bound, _ in plan.bound))
    return errors
