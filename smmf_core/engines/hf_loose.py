"""A batch whose rows are computed one by one, for caches that cannot be cut into columns.

Owns one cache of the library per row; stands where Batch does in the loop. Layers that keep a
state instead of keys and values (Mamba and its hybrids, convolutions) and those that keep more
than them (sparse indices) are run this way: right before fast.
"""

from __future__ import annotations

import copy
import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import DynamicCache

from smmf_core.engines.hf_batch import Model, Row
from smmf_core.engines.hf_cache import Budget, Part


class LooseBatch:
    """As Batch; a prompt is one pass, as not every state can go on from the middle of one."""

    def __init__(self, model: Model, budget: Budget, rows: list[Row]) -> None:
        self.group = rows[0].group
        self.rows = rows
        self.model = model
        self.cells = 0  # of the budget
        self.past = 0
        self.width = max(len(row.tokens) for row in rows)
        for row in rows:
            row.pad = self.width - len(row.tokens)
        self._budget = budget
        self._caches = [DynamicCache(config=model.config) for _ in rows]
        self._take(sum(len(row.tokens) for row in rows))

    def cached(self, row: Row) -> int:
        return max(self.past - row.pad, 0)

    def forward(self, top: int, bottom: int, columns: int, keep: int) -> torch.Tensor:
        """The next columns of some rows. A row whose pass has failed is not computed again: its
        state may have moved on."""
        logits = [self._compute(index, columns, keep) for index in range(top, bottom)]
        return torch.cat(logits)

    def advance(self, columns: int) -> None:
        self.past += columns

    def feed(self, tokens: NDArray[np.int64]) -> None:
        """The rows' own tokens are read."""

    def fit(self, rows: int, width: int, room: int) -> None:
        """For `room` more columns. Raises MemoryError when the budget does not have the place."""
        self._take(rows * room)

    def join(self, other: LooseBatch) -> None:
        """Take all rows of a batch that is computed, which ends with it."""
        for row in other.rows:
            row.pad += self.past - other.past
        self.rows += other.rows
        self._caches += other._caches
        self.cells += other.cells
        other.cells = 0
        other.release()

    def fork(self, source: Row, row: Row) -> None:
        """A copy of a row, which goes on as `row`."""
        self._take(self.cached(source))
        self._caches.append(copy.deepcopy(self._caches[self.rows.index(source)]))
        row.pad = source.pad
        self.rows.append(row)

    def leave(self, row: Row, is_sound: bool = True) -> None:
        index = self.rows.index(row)
        del self.rows[index], self._caches[index]
        self._take(-min(self.cached(row) + 1, self.cells))
        if not self.rows:
            self.release()

    def write_prefix(self, row: Row, parts: list[Part]) -> None:
        raise NotImplementedError("a state is not made of tokens' parts")

    def read_prefix(self, row: Row, tokens: int) -> list[Part]:
        raise NotImplementedError("a state is not made of tokens' parts")

    def release(self) -> None:
        self._take(-self.cells)
        self.rows, self._caches = [], []

    def _take(self, cells: int) -> None:
        self._budget.take(cells)
        self.cells += cells

    def _compute(self, index: int, columns: int, keep: int) -> torch.Tensor:
        row, device = self.rows[index], self.model.device
        start = self.cached(row)
        tokens = row.tokens[start : self.past + columns - row.pad]
        ids = torch.tensor([tokens], device=device)
        positions = torch.arange(start, start + len(tokens), device=device)[None]
        return self.model.forward(ids, positions, None, self._caches[index], keep)
