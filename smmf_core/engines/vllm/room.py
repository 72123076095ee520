"""How many sequences vLLM gets at once, and what it gets again after memory ran out in a step.

Pure; must not import vLLM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from smmf_core.engines.base import Sequence

_STEPS_PER_SEAT = 100  # that go well before one more sequence is tried


class Room:
    """All that there are, until memory runs out: then half of those that ran, and one more after
    every hundred steps that went well."""

    def __init__(self) -> None:
        self.most = math.inf
        self._good_steps = 0

    def shrink(self, running: int) -> None:
        self.most = max(1, running // 2)
        self._good_steps = 0

    def on_step(self) -> None:
        self._good_steps += 1
        if self._good_steps % _STEPS_PER_SEAT == 0:
            self.most += 1


@dataclass(slots=True, eq=False)
class Entry:
    """One sequence on its way through vLLM. `name` is vLLM's id of it, another one each time."""

    sequence: Sequence
    adapter: Any
    name: str = ""
    times: int = 0  # it was handed over
    made: list[int] = field(default_factory=list)  # tokens of the former times
    entered_at: float = 0.0
    scheduled_at: float = 0.0
    first_at: float = 0.0
    tokens: int = 0  # given to the Worker

    def next_name(self) -> str:
        self.times += 1
        return f"{self.sequence.id}.{self.times}"

    def rest(self) -> Sequence:
        """What is still to be generated, behind what vLLM has made of it."""
        if not self.made:
            return self.sequence
        return replace(
            self.sequence,
            prompt=self.sequence.prompt + self.made,
            max_new_tokens=self.sequence.max_new_tokens - len(self.made),
            prompt_logprobs=None,  # they came with the first token
        )
