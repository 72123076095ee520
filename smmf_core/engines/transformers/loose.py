"""A batch whose rows are computed one by one, for caches that cannot be cut into columns.

Owns one cache of the library per row. Layers that keep a state instead of keys and values (Mamba
and its hybrids, convolutions), or more than them (sparse indices), are run this way: right before
fast.
"""

from __future__ import annotations

import copy

import torch

from smmf_core.engines.transformers.batch import Batch, Model, Row
from smmf_core.engines.transformers.cache import Budget, new_cache


class LooseBatch(Batch):
    """Its store has no layers and only counts. A prompt is one pass, as not every state can go on
    from the middle of one."""

    def __init__(self, model: Model, budget: Budget, rows: list[Row]) -> None:
        super().__init__(model, [], budget, rows)
        self._caches = [new_cache(model.config) for _ in rows]
        self._done: dict[int, torch.Tensor | Exception] = {}  # of this column: states have moved on

    def chunk(self, limit: int) -> int:
        return self.width - self.past

    def forward(self, top: int, bottom: int, columns: int, keep: int) -> torch.Tensor:
        logits: list[torch.Tensor] = []
        for index in range(top, bottom):
            if index not in self._done:
                self._done[index] = self._attempt(index, columns, keep)
            done = self._done[index]
            if isinstance(done, Exception):
                raise done
            logits.append(done)
        return torch.cat(logits)

    def advance(self, columns: int) -> None:
        super().advance(columns)
        self._done.clear()

    def join(self, other: Batch) -> None:
        assert isinstance(other, LooseBatch)
        caches = other._caches
        super().join(other)
        self._caches += caches

    def fork(self, source: Row, row: Row) -> None:
        cache = copy.deepcopy(self._caches[self.rows.index(source)])
        super().fork(source, row)
        self._caches.append(cache)

    def leave(self, row: Row, is_sound: bool = True) -> None:
        self._caches[self.rows.index(row)] = self._caches[-1]
        self._caches.pop()
        super().leave(row, is_sound)

    def release(self) -> None:
        super().release()
        self._caches = []

    def _attempt(self, index: int, columns: int, keep: int) -> torch.Tensor | Exception:
        row, device = self.rows[index], self.model.device
        start = self.cached(row)
        tokens = row.tokens[start : self.past + columns - row.pad]
        ids = torch.tensor([tokens], device=device)
        positions = torch.arange(start, start + len(tokens), device=device)[None]
        try:
            self.model.select(self.group.adapter)
            return self.model.forward(ids, positions, None, self._caches[index], keep)
        except Exception as error:  # given to whoever asks for this row
            return error
