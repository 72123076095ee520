"""What one sequence's biases, penalties and bans do to the few tokens that they concern.

Owns the sequence's counts, as arrays over those tokens; must not see logits. The arithmetic is
sampling.Sampler's, prepared so that a whole batch takes it in one gather and one scatter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smmf_core.engines.sampling.sampler import FORCE_BIAS
from smmf_core.messages import Sampling

BIAS, DIVISOR, FREQUENCY, PRESENCE = range(4)
_ROOM = 64  # tokens that may come up before the arrays grow


class Touched:
    """One sequence's adjustments: token `ids[i]` gets the factors `factors[:, i]`.

    A logit x becomes x + BIAS, then x / DIVISOR or x * DIVISOR if it is not positive, then
    x - FREQUENCY - PRESENCE. With `is_forced`, all tokens that are not among the ids are banned.
    """

    __slots__ = (
        "_banned", "_counts", "_factors", "_ids", "_params", "_places", "is_forced", "size",
    )  # fmt: skip

    def __init__(
        self,
        params: Sampling,
        prompt: list[int],
        output: list[int],
        banned: list[int],
        vocab_size: int,
    ) -> None:
        """`banned`: tokens that may not be chosen until `allow` is called."""
        self._params = params
        self._banned = banned
        self._places: dict[int, int] = {}
        self.size = 0
        bias = {t: b for t, b in (params.logit_bias or {}).items() if 0 <= t < vocab_size}
        self.is_forced = any(value >= FORCE_BIAS for value in bias.values())
        seen = prompt + output if params.repetition_penalty != 1.0 else self._counted(output)
        tokens = list(dict.fromkeys([*bias, *banned, *seen]))
        room = len(tokens) + _ROOM
        self._ids = np.zeros(room, np.int64)
        self._counts = np.zeros(room, np.float32)
        self._factors = np.zeros((4, room), np.float32)
        for token in tokens:
            self._add(token)
        for token, value in bias.items():
            self._factors[BIAS, self._places[token]] = -np.inf if value <= -FORCE_BIAS else value
        if self.is_forced:
            kept = {token for token, value in bias.items() if value >= FORCE_BIAS}
            free = [place for token, place in self._places.items() if token not in kept]
            self._factors[BIAS, free] = -np.inf
        if params.repetition_penalty != 1.0:
            places = [self._places[token] for token in set(seen)]
            self._factors[DIVISOR, places] = params.repetition_penalty
        counted = [self._places[token] for token in self._counted(output)]
        np.add.at(self._counts, counted, 1)
        self._weigh(slice(0, self.size))
        self._factors[PRESENCE, [self._places[token] for token in banned]] = np.inf

    @property
    def ids(self) -> NDArray[np.int64]:
        return self._ids[: self.size]

    @property
    def factors(self) -> NDArray[np.float32]:
        return self._factors[:, : self.size]

    def allow(self) -> None:
        """Lift the ban."""
        self._weigh([self._places[token] for token in self._banned])
        self._banned = []

    def count(self, token: int) -> None:
        """A token has been chosen."""
        repeats = self._params.repetition_penalty != 1.0
        if not repeats and not self._counted([token]):
            return
        place = self._places.get(token)
        if place is None:
            if self.is_forced:  # it is banned already
                return
            place = self._add(token)
        self._counts[place] += 1
        if repeats:
            self._factors[DIVISOR, place] = self._params.repetition_penalty
        if token not in self._banned:
            self._weigh(slice(place, place + 1))

    def _counted(self, output: list[int]) -> list[int]:
        params = self._params
        return output if params.presence_penalty or params.frequency_penalty else []

    def _add(self, token: int) -> int:
        place = self.size
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
            self._factors = np.concatenate([self._factors, np.zeros_like(self._factors)], axis=1)
        self._ids[place] = token
        self._factors[DIVISOR, place] = 1
        self._places[token] = place
        self.size += 1
        return place

    def _weigh(self, places: slice | list[int]) -> None:
        counts = self._counts[places]
        self._factors[FREQUENCY, places] = np.float32(self._params.frequency_penalty) * counts
        self._factors[PRESENCE, places] = np.float32(self._params.presence_penalty) * (counts > 0)


def adjusted(values: NDArray[np.float32], factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The logits of touched tokens, after all that is done to them."""
    values = values + factors[BIAS]
    divisor = factors[DIVISOR]
    values = np.where(values > 0, values / divisor, values * divisor)
    values -= factors[FREQUENCY]
    values -= factors[PRESENCE]
    return values
