"""The key-value cache of a batch: one tensor per layer, rows of sequences ending at one column.

Owns the tensors, their growth and the budget they count against; must not know what a row stands
for. A model sees it as one of transformers' own caches.

Every sequence is one row, and all rows end at the same column, as under left padding: one step
writes one column for all of them, in place, and each architecture makes its own mask (sliding
windows, alibi, soft caps) from the plain two-dimensional one. Cells left of a row's start may hold
anything finite, as they are masked; that is why new cells are zeroed, and rows of NaN too.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

GROWTH = 1.5  # columns are moved or copied once per so much growth
_COLUMNS_STEP = 64

Part = tuple[torch.Tensor, torch.Tensor]
"""Keys and values [heads, tokens, size] of one layer and one row."""


class Budget:
    """How many cells (one token of one row, in all layers) may be held at once; 0: any number."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, cells: int) -> None:
        """Raises MemoryError. Negative: gives back."""
        if cells > 0 and self.limit and self.used + cells > self.limit:
            raise MemoryError(f"the KV cache's {self.limit} tokens are in use")
        self.used += cells

    def fits(self, cells: int) -> bool:
        return not self.limit or self.used + cells <= self.limit

    def left(self, cells: int) -> int:
        """What would be left after taking so many."""
        return self.limit - self.used - cells if self.limit else sys.maxsize


class Span:
    """The part of a store that a forward pass sees: rows [top, bottom), columns [first, end)."""

    __slots__ = ("bottom", "end", "first", "top")

    def __init__(self, rows: int, end: int) -> None:
        self.top, self.bottom = 0, rows
        self.first, self.end = 0, end


class ColumnLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values [rows, heads, columns, size]; `span.end` moves after a pass."""

    def __init__(self, span: Span, rows: int, columns: int) -> None:
        super().__init__()
        self.span = span
        self._shape = (rows, columns)  # until the first update

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        rows, columns = self._shape
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_zeros((rows, key_states.shape[1], columns, key_states.shape[3]))
        self.values = value_states.new_zeros(
            (rows, value_states.shape[1], columns, value_states.shape[3])
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        span, keys, values = self.span, self.keys, self.values
        if span.bottom - span.top < len(keys):
            keys, values = keys[span.top : span.bottom], values[span.top : span.bottom]
        count = key_states.shape[2]
        keys.narrow(2, span.end, count).copy_(key_states)
        values.narrow(2, span.end, count).copy_(value_states)
        first = span.first + self.get_mask_sizes(0)[1]
        seen = span.end + count - first
        return keys.narrow(2, first, seen), values.narrow(2, first, seen)

    def resize(self, rows: int, columns: int) -> None:
        """Columns and rows keep their places."""
        self._shape = (rows, columns)
        if self.is_initialized:
            bottom, end = self.span.bottom, self.span.end
            self.keys = _resized(self.keys, rows, columns, bottom, end)
            self.values = _resized(self.values, rows, columns, bottom, end)

    def move(self, shift: int) -> None:
        """In pieces that do not overlap with where they go: nothing is allocated."""
        if not self.is_initialized:
            return
        first, end, size = self.span.first, self.span.end, abs(shift)
        places = range(first, end, size)
        for place in places if shift < 0 else reversed(places):
            source = slice(place, min(place + size, end))
            target = slice(source.start + shift, source.stop + shift)
            for tensor in (self.keys, self.values):
                rows = tensor[: self.span.bottom]
                rows[:, :, target] = rows[:, :, source]

    def get_seq_length(self) -> int:
        return self.span.end - self.span.first

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.span.end - self.span.first + query_length, 0


class SlidingColumnLayer(ColumnLayer):
    """Keeps all columns (prefixes are cut from them) but shows the model only its window."""

    is_sliding = True

    def __init__(self, span: Span, rows: int, columns: int, window: int) -> None:
        super().__init__(span, rows, columns)
        self.sliding_window = window

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        past = self.span.end - self.span.first
        offset = max(past - self.sliding_window + 1, 0)
        return past - offset + query_length, offset

    def get_max_length(self) -> int:
        return int(self.sliding_window)


def _resized(tensor: torch.Tensor, rows: int, columns: int, bottom: int, end: int) -> torch.Tensor:
    new = tensor.new_zeros((rows, tensor.shape[1], columns, tensor.shape[3]))
    new[:bottom, :, :end] = tensor[:bottom, :, :end]
    return new


def new_cache(config: Any) -> Cache:
    """The library's own for this architecture, or its plainest, where a configuration of a
    checkpoint's own does not say what it needs."""
    try:
        return DynamicCache(config=config)
    except AttributeError:
        return DynamicCache()


def windows_of(config: Any) -> list[int | None] | None:
    """Per layer its window, or None for the whole past. None: some layer of this architecture
    keeps something else than keys and values, which cannot be cut into rows and columns."""
    windows: list[int | None] = []
    for layer in new_cache(config).layers:
        if type(layer) is DynamicLayer:
            windows.append(None)
        elif type(layer) is DynamicSlidingWindowLayer:
            windows.append(layer.sliding_window)
        else:
            return None
    return windows or None


class KvStore(Cache):  # type: ignore[misc]
    """The cache of one batch. `rows` x `columns` cells are held; a caller's forward pass sees
    `span` and moves its end on when it has succeeded, so that a failed one may be repeated."""

    def __init__(self, windows: list[int | None], budget: Budget, rows: int, columns: int) -> None:
        budget.take(rows * columns)
        self.span = Span(rows, 0)
        self.rows, self.columns = rows, columns
        self._budget = budget
        layers: list[ColumnLayer] = []
        for window in windows:
            if window is None:
                layers.append(ColumnLayer(self.span, rows, columns))
            else:
                layers.append(SlidingColumnLayer(self.span, rows, columns, window))
        super().__init__(layers=layers)

    def fit(self, rows: int, width: int, room: int) -> None:
        """Make place for `rows` rows of up to `width` columns before the end, and `room` columns
        after it. Raises MemoryError, or what torch raises; what is held stays valid then."""
        span = self.span
        if rows <= self.rows and width <= span.end and span.end + room <= self.columns:
            return
        width = max(width, span.end - span.first)
        if rows > self.rows or (width + room) * GROWTH > self.columns:
            self._move(span.end - span.first)
            self._grow(rows, width + room)
        self._move(width)

    def release(self) -> None:
        """Give all cells back; the store is not used again."""
        self._budget.take(-self.rows * self.columns)
        self.rows = self.columns = 0
        self.layers.clear()

    def copy_row(self, source: int, target: int) -> None:
        columns = slice(self.span.first, self.span.end)
        for layer in self._filled():
            layer.keys[target, :, columns] = layer.keys[source, :, columns]
            layer.values[target, :, columns] = layer.values[source, :, columns]

    def clear_row(self, row: int) -> None:
        for layer in self._filled():
            layer.keys[row].zero_()
            layer.values[row].zero_()

    def read(self, row: int, column: int, tokens: int) -> list[Part]:
        """Views, valid until the store changes."""
        columns = slice(column, column + tokens)
        return [
            (layer.keys[row, :, columns], layer.values[row, :, columns]) for layer in self.layers
        ]

    def write(self, row: int, column: int, parts: list[Part]) -> None:
        for layer, (keys, values) in zip(self.layers, parts, strict=True):
            columns = slice(column, column + keys.shape[1])
            if not layer.is_initialized:
                layer.lazy_initialization(keys[None], values[None])
            layer.keys[row, :, columns] = keys
            layer.values[row, :, columns] = values

    def _filled(self) -> list[ColumnLayer]:
        """All layers, unless the first pass failed between them."""
        return [layer for layer in self.layers if layer.is_initialized]

    def _grow(self, rows: int, columns: int) -> None:
        """To at least so many; by a factor where the budget has it, else just what is needed."""
        wide = _COLUMNS_STEP * -(-int(columns * GROWTH) // _COLUMNS_STEP)
        kept = max(rows, self.span.bottom)
        if rows > self.rows:
            shapes = [(max(rows, 2 * self.rows), max(wide, self.columns)), (kept, columns)]
        elif columns > self.columns:
            shapes = [(self.rows, wide), (self.rows, columns), (kept, columns)]
        else:
            return
        held = self.rows * self.columns
        fitting = [(r, c) for r, c in shapes if self._budget.fits(r * c - held)]
        self._resize(*(fitting or shapes[-1:])[0])

    def _resize(self, rows: int, columns: int) -> None:
        """Layer by layer. When memory runs out between, some layers are larger than the rest."""
        self._budget.take(rows * columns - self.rows * self.columns)
        shape = (rows, columns)
        try:
            for layer in self.layers:
                layer.resize(rows, columns)
        except BaseException:
            shape = (min(rows, self.rows), min(columns, self.columns))
            self._budget.take(shape[0] * shape[1] - rows * columns)
            raise
        finally:
            self.rows, self.columns = shape

    def _move(self, end: int) -> None:
        """Shift all columns so that they end at `end`, in place."""
        span = self.span
        shift = end - span.end
        if shift == 0:
            return
        for layer in self.layers:
            layer.move(shift)
        span.first, span.end = span.first + shift, end
