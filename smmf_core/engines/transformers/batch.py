"""Rows of sequences that go through one forward pass together, and the pass itself.

Owns which sequence is which row of a KvStore and what the model is fed; must not choose tokens or
decide who joins.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import Cache

from smmf_core.engines.base import Logprobs, Sequence
from smmf_core.engines.transformers.cache import Budget, KvStore, Part
from smmf_core.engines.transformers.lean import LeanStep

_CACHE_NAMES = ("past_key_values", "cache_params")
_STATE_ELSEWHERE = ("recurrent_gemma",)  # in the layers themselves: one text at a time
_LOOK_AHEAD = 64  # columns whose positions are worked out at once
_SPARE_COLUMNS = 128  # at most, of a store that becomes an answer's: growing it copies all of it


class Group(NamedTuple):
    """What rows must have in common to be computed together."""

    adapter: str = ""
    is_long: bool = False  # rotated with the frequencies for long texts (see Loop)


class Row:
    """Tokens in one row of a batch: of one sequence, or of several that begin with them.

    `pad` counts the columns of the span that lie before the row's first token.
    """

    __slots__ = ("described", "group", "pad", "sequences", "tokens")

    def __init__(self, sequences: list[Sequence], tokens: list[int], group: Group) -> None:
        self.sequences = sequences
        self.tokens = tokens
        self.group = group
        self.pad = 0
        self.described: list[Logprobs] | None = None  # the prompt's, while they are wanted


class Model:
    """A loaded model's forward pass, called by the names that its own signature has."""

    def __init__(self, model: Any, device: torch.device, select: Callable[[str], None]) -> None:
        """Raises ValueError for a model that keeps its state in a way of its own."""
        names = inspect.signature(model.forward).parameters
        self.device = device
        self.is_on_host = device.type == "cpu"
        self.config = model.config
        self.select = select  # the adapter that the next pass runs with
        self.decode_mask: Callable[[torch.Tensor], torch.Tensor] = lambda mask: mask
        self.step: LeanStep | None = None  # in place of a pass of one column
        self.source = model
        self._cache_name = next((name for name in _CACHE_NAMES if name in names), "")
        self._takes_positions = "position_ids" in names
        self._takes_keep = "logits_to_keep" in names
        if not self._cache_name or model.config.model_type in _STATE_ELSEWHERE:
            raise ValueError(f"{type(model).__name__} keeps its state in no cache of transformers.")

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor | None,
        mask: torch.Tensor | None,
        cache: Cache,
        keep: int,
    ) -> torch.Tensor:
        """Logits [rows, kept columns, vocabulary]; `keep` 0: of all columns. `positions` None: the
        model counts them by the cache's length."""
        names: dict[str, Any] = {self._cache_name: cache}
        if self._takes_positions and positions is not None:
            names["position_ids"] = positions
        if self._takes_keep:
            names["logits_to_keep"] = keep
        output = self.source(input_ids=ids, attention_mask=mask, use_cache=True, **names)
        logits: torch.Tensor = output.logits
        return logits if self._takes_keep else logits[:, -keep:]


class Batch:
    """Rows that end at the same column. A new one is a prefill: `width` columns are to be computed
    before its rows can decode together with others."""

    def __init__(
        self,
        model: Model,
        windows: list[int | None],
        budget: Budget,
        rows: list[Row],
        spare: int = 0,
    ) -> None:
        """`spare`: columns for answers, as far as the budget has them. Raises MemoryError when it
        does not have the place for the rows themselves."""
        self.group = rows[0].group
        self.rows = rows
        self.width = max(len(row.tokens) for row in rows)
        for row in rows:
            row.pad = self.width - len(row.tokens)
        count = len(rows)
        spare = min(spare, _SPARE_COLUMNS, max(budget.left(count * self.width) // count, 0))
        self.store = KvStore(windows, budget, count, self.width + spare)
        self.model = model
        self._ids: torch.Tensor | None = None  # the next tokens, while the rows stay the same
        self._positions: torch.Tensor | None = None  # of the columns known ahead
        self._mask: torch.Tensor | None = None  # of all columns up to there
        self._known = self._known_end = 0
        self._is_padded = any(row.pad for row in rows)

    @property
    def past(self) -> int:
        """Columns computed."""
        return self.store.span.end - self.store.span.first

    @property
    def cells(self) -> int:
        """What it holds of the budget."""
        return self.store.rows * self.store.columns

    def chunk(self, limit: int) -> int:
        """How many columns the next pass of a prefill has, for at most so many tokens."""
        return min(max(limit // len(self.rows), 1), self.width - self.past)

    def cached(self, row: Row) -> int:
        """How many of the row's tokens are computed."""
        return max(self.past - row.pad, 0)

    # --- a pass ---

    def forward(self, top: int, bottom: int, columns: int, keep: int) -> torch.Tensor:
        """The next columns of some rows; nothing has moved on after it (`advance`)."""
        span = self.store.span
        if self._ids is None:
            self._ids = self._next_ids(columns)
        ids = self._ids
        positions, mask = self._look(columns) if self._is_padded else (None, None)
        is_whole = bottom - top == len(self.rows)
        if not is_whole:
            part = slice(top, bottom)
            ids = ids[part]
            positions = None if positions is None else positions[part]
            mask = None if mask is None else mask[part]
        span.top, span.bottom = top, bottom
        try:
            self.model.select(self.group.adapter)
            if columns == 1 and self.model.step and not self.group.adapter:
                return self.model.step(ids, positions, mask, self.store)
            return self.model.forward(ids, positions, mask, self.store, keep)
        finally:
            span.top, span.bottom = 0, len(self.rows)

    def advance(self, columns: int) -> None:
        self.store.span.end += columns
        self._ids = None

    def feed(self, tokens: NDArray[np.int64]) -> None:
        """The next token of every row, as they were appended to the rows' tokens."""
        ids = torch.from_numpy(tokens[:, None])
        self._ids = ids if self.model.is_on_host else ids.to(self.model.device)

    def _next_ids(self, columns: int) -> torch.Tensor:
        past, ids = self.past, []
        for row in self.rows:
            start = past - row.pad
            tokens = row.tokens[max(start, 0) : max(start + columns, 0)]
            ids.append([0] * (columns - len(tokens)) + tokens)
        return torch.tensor(ids, device=self.model.device)

    def _look(self, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions of the next columns, and what may be seen from them."""
        past = self.past
        end = past + columns
        if self._mask is None or not self._known <= past <= end <= self._known_end:
            self._look_ahead(past, max(columns, _LOOK_AHEAD))
        assert self._positions is not None
        assert self._mask is not None
        mask = self._mask[:, :end]
        if columns == 1:
            mask = self.model.decode_mask(mask)
        return self._positions[:, past - self._known : end - self._known], mask

    def _look_ahead(self, past: int, columns: int) -> None:
        """While the rows stay the same a step only cuts its own columns out."""
        device, end = self.model.device, past + columns
        pads = torch.tensor([[row.pad] for row in self.rows], device=device)
        self._positions = (torch.arange(past, end, device=device) - pads).clamp_(min=0)
        self._mask = torch.arange(end, device=device) >= pads
        self._known, self._known_end = past, end

    # --- who is in it ---

    def fit(self, rows: int, width: int, room: int) -> None:
        self.store.fit(rows, width, room)

    def join(self, other: Batch) -> None:
        """Take all rows of a batch that is computed, which ends with it."""
        span = self.store.span
        count = len(self.rows)
        width = max(other.past - row.pad for row in other.rows)
        self.store.fit(count + len(other.rows), width, 1)
        more = width - self.past
        if more > 0:
            self._shift_pads(more)
            span.first -= more
        for index, row in enumerate(other.rows):
            tokens = other.past - row.pad
            parts = other.store.read(index, other.store.span.first + row.pad, tokens)
            self.store.write(count + index, span.end - tokens, parts)
            row.pad = self.past - tokens
        self.rows += other.rows
        span.bottom = len(self.rows)
        other.release()
        self._forget()

    def fork(self, source: Row, row: Row) -> None:
        """A copy of a row, which goes on as `row`."""
        self.store.fit(len(self.rows) + 1, 0, 1)
        self.store.copy_row(self.rows.index(source), len(self.rows))
        row.pad = source.pad
        self.rows.append(row)
        self.store.span.bottom = len(self.rows)
        self._forget()

    def leave(self, row: Row, is_sound: bool = True) -> None:
        """The last row takes its place. A row that is not sound may hold NaN."""
        index, last = self.rows.index(row), len(self.rows) - 1
        if index != last:
            self.store.copy_row(last, index)
            self.rows[index] = self.rows[last]
        elif not is_sound:
            self.store.clear_row(last)
        self.rows.pop()
        self.store.span.bottom = last
        self._forget()
        if not self.rows:
            self.release()
            return
        unused = min(self.past, *[row.pad for row in self.rows])
        if unused > 0:
            self.store.span.first += unused
            self.width -= unused
            self._shift_pads(-unused)
            self._forget()

    def write_prefix(self, row: Row, parts: list[Part]) -> None:
        index = self.rows.index(row)
        self.store.write(index, self.store.span.first + row.pad, parts)

    def read_prefix(self, row: Row, tokens: int) -> list[Part]:
        index = self.rows.index(row)
        return self.store.read(index, self.store.span.first + row.pad, tokens)

    def release(self) -> None:
        self.store.release()
        self.rows = []

    def _shift_pads(self, columns: int) -> None:
        for row in self.rows:
            row.pad += columns

    def _forget(self) -> None:
        self._ids = self._positions = self._mask = None
        self._is_padded = any(row.pad for row in self.rows)
