"""A forward pass that finds out which row is at fault when it fails.

Owns what counts as a dead device; must not decide what becomes of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from smmf_core.engines.base import EngineDead
from smmf_core.engines.host_memory import is_out_of_memory
from smmf_core.engines.transformers.batch import Batch

_DEAD_WORDS = ("device-side assert", "illegal memory access", "unspecified launch failure")


@dataclass(slots=True)
class Computed:
    """Logits of the rows that went well, in their order, and by index the errors of the others."""

    logits: list[torch.Tensor] = field(default_factory=list)
    errors: dict[int, Exception] = field(default_factory=dict)

    def joined(self) -> torch.Tensor:
        return self.logits[0] if len(self.logits) == 1 else torch.cat(self.logits)


def raise_if_dead(error: Exception) -> None:
    """After some errors a CUDA device computes nothing any more in this process."""
    if any(words in str(error) for words in _DEAD_WORDS):
        raise EngineDead(f"The device failed: {error}") from error


def compute(batch: Batch, columns: int, keep: int, relieve: Callable[[], bool]) -> Computed:
    """The next columns of all rows. When memory runs out and `relieve` finds none, or the pass
    fails, each half of the rows is tried by itself: too large a pass is made smaller, and a row
    that no pass takes is found."""
    done = Computed()
    spans = [(0, len(batch.rows))]
    while spans:
        top, bottom = spans.pop()
        try:
            done.logits.append(batch.forward(top, bottom, columns, keep))
        except Exception as error:
            raise_if_dead(error)
            if is_out_of_memory(error) and relieve():
                spans.append((top, bottom))
            elif bottom - top == 1:
                done.errors[top] = error
            else:
                middle = (top + bottom) // 2
                spans += [(middle, bottom), (top, middle)]
    return done
