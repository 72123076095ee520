"""How the rows of a batch are to choose, sorted by what each needs; their random numbers.

Owns the plan of one set of rows, which holds as long as the set does; must not see logits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smmf_core.engines.grammar.constraint import Constraint
from smmf_core.engines.sampling.sampler import uniform
from smmf_core.engines.sampling.touched import Touched
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling

NOT_FINITE, NOTHING_LEFT = -1, -2  # what a choice says of a row that has none

_FEW = 12  # random numbers: for so many, Python's integers are faster than ten rounds of arrays
_MASK64 = 0xFFFF_FFFF_FFFF_FFFF
_MASK32 = np.uint64(0xFFFF_FFFF)
_HALF = np.uint64(32)
_M0, _M1 = np.uint64(0xD251_1F53), np.uint64(0xCD9E_8D57)  # sampling.philox has the source
_W0, _W1 = np.uint64(0x9E37_79B9), np.uint64(0xBB67_AE85)
_ROUNDS = 10


@dataclass(slots=True)
class Group:
    """Rows that draw: their places in the batch, and their parameters in the same order."""

    places: list[int] = field(default_factory=list)
    params: list[Sampling] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)  # what a device holds of them

    def column(self, name: str) -> NDArray[np.float64]:
        return np.array([getattr(params, name) for params in self.params], np.float64)


@dataclass(slots=True)
class Plan:
    """The rows that are in no group take the likeliest token."""

    plain: Group = field(default_factory=Group)  # draw from all tokens
    cut: Group = field(default_factory=Group)  # with min_p, top_k or top_p
    touched: list[tuple[int, Touched]] = field(default_factory=list)  # by place
    bound: list[tuple[int, Constraint]] = field(default_factory=list)  # by place: answers in a form
    masks: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 0), np.int32))  # of these
    described: dict[int, int] = field(default_factory=dict)  # place -> how many best ones

    def add(
        self,
        place: int,
        params: Sampling,
        touched: Touched | None,
        vocab_size: int,
        bound: Constraint | None = None,
    ) -> None:
        if touched is not None:
            self.touched.append((place, touched))
        if bound is not None:
            self.bound.append((place, bound))
        if params.logprobs is not None:
            self.described[place] = params.logprobs
        if params.temperature == 0 or params.top_p == 0:
            return
        is_cut = params.min_p > 0 or params.top_p < 1 or 0 < params.top_k < vocab_size
        group = self.cut if is_cut else self.plain
        group.places.append(place)
        group.params.append(params)

    @property
    def changed(self) -> list[int]:
        """The places of rows whose logits change: the touched ones, then those only bound."""
        touched = [place for place, _ in self.touched]
        return touched + [place for place, _ in self.bound if place not in touched]

    def fill_masks(self) -> dict[int, Exception]:
        """The masks of this step; returns the places of answers that cannot go on."""
        failed: dict[int, Exception] = {}
        if self.bound and not len(self.masks):
            self.masks = np.zeros((len(self.bound), self.bound[0][1].words), np.int32)
        for mask, (place, bound) in zip(self.masks, self.bound, strict=True):
            try:
                bound.fill(mask)
            except ApiError as error:
                failed[place] = error
        return failed

    def gathered(self, vocab_size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Of all touched rows one after the other: indices into their logits laid end to end, and
        the factors (touched.Touched)."""
        ids = [touched.ids + n * vocab_size for n, (_, touched) in enumerate(self.touched)]
        factors = [touched.factors for _, touched in self.touched]
        return np.concatenate(ids), np.concatenate(factors, axis=1)


def uniforms(seeds: list[int], positions: list[int]) -> NDArray[np.float64]:
    """sampling.uniform of each pair."""
    if len(seeds) <= _FEW:
        return np.array([uniform(*pair) for pair in zip(seeds, positions, strict=True)])
    seed = np.array([seed & _MASK64 for seed in seeds], np.uint64)
    position = np.array(positions, np.uint64)
    c0, c1 = position & _MASK32, position >> _HALF
    c2 = c3 = np.zeros_like(position)
    k0, k1 = seed & _MASK32, seed >> _HALF
    for _ in range(_ROUNDS):
        product0, product1 = _M0 * c0, _M1 * c2
        c0, c2 = (product1 >> _HALF) ^ c1 ^ k0, (product0 >> _HALF) ^ c3 ^ k1
        c1, c3 = product1 & _MASK32, product0 & _MASK32
        k0, k1 = (k0 + _W0) & _MASK32, (k1 + _W1) & _MASK32
    return ((c0 << _HALF | c1) >> np.uint64(11)).astype(np.float64) * 2.0**-53
