"""How many tokens of how many sequences the KV cache has room for.

mlx does not survive every allocation that fails, so what would not fit is not tried. Owns the
arithmetic; must not know what runs. A batch is as long as its longest row, for all its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STEP = 256  # tokens by which mlx-lm's caches grow
_COPIES = 2  # a cache that grows, or that a row joins or leaves, is there twice for a while


@dataclass(frozen=True, slots=True)
class Room:
    """`row_bytes` are what a row takes whatever its length: the state of recurrent layers."""

    limit_bytes: float
    token_bytes: int
    row_bytes: int

    def fits(self, rows: int, longest: int) -> bool:
        return self.needed(rows, longest) <= self.limit_bytes

    def needed(self, rows: int, longest: int) -> int:
        """Bytes of a batch of so many rows, and so many tokens in the longest."""
        tokens = (longest // STEP + 1) * STEP
        return _COPIES * rows * (tokens * self.token_bytes + self.row_bytes)


def measure(caches: list[Any]) -> tuple[int, int]:
    """(bytes per token, bytes per row) of one row's caches, which hold at least a token.

    A window's cache counts as if it grew for ever: that errs on the safe side.
    """
    token_bytes = row_bytes = 0
    for cache in caches:
        if hasattr(cache, "caches"):
            inner = measure(cache.caches)
            token_bytes, row_bytes = token_bytes + inner[0], row_bytes + inner[1]
        elif getattr(cache, "keys", None) is not None:
            token_bytes += int(cache.nbytes) // int(cache.keys.shape[2])
        else:
            row_bytes += int(cache.nbytes)
    return token_bytes, row_bytes
