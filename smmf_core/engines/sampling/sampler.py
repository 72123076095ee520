"""Choosing the next token from logits: penalties, bans, temperature, cuts, and the random number.

A choice depends only on the logits, the sequence's own tokens and (seed, position): there is no
generator state, so that a sequence that goes on elsewhere chooses as it would have here.
Owns one sequence's counts; must not know what else is in the batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smmf_core.engines.base import Logprobs
from smmf_core.engines.grammar.constraint import Constraint, Words
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling

Row = NDArray[np.float32]
"""Logits of one position, [vocabulary]."""

FORCE_BIAS = 100.0  # by OpenAI's reference, -100 bans a token and 100 selects it exclusively

_MASK32 = 0xFFFF_FFFF
# The constants of Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011
_PHILOX_M0, _PHILOX_M1 = 0xD251_1F53, 0xCD9E_8D57
_PHILOX_W0, _PHILOX_W1 = 0x9E37_79B9, 0xBB67_AE85
_PHILOX_ROUNDS = 10


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10: four random 32-bit words for a counter and a key of 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_PHILOX_ROUNDS):
        product0, product1 = _PHILOX_M0 * c0, _PHILOX_M1 * c2
        c0, c2 = (product1 >> 32) ^ c1 ^ k0, (product0 >> 32) ^ c3 ^ k1
        c1, c3 = product1 & _MASK32, product0 & _MASK32
        k0, k1 = (k0 + _PHILOX_W0) & _MASK32, (k1 + _PHILOX_W1) & _MASK32
    return c0, c1, c2, c3


def uniform(seed: int, position: int) -> float:
    """The random number of one position in an answer: 53 bits, in [0, 1)."""
    key = (seed & _MASK32, (seed >> 32) & _MASK32)
    high, low, _, _ = philox((position & _MASK32, position >> 32, 0, 0), key)
    return ((high << 32 | low) >> 11) * 2.0**-53


class Sampler:
    """Chooses the tokens of one sequence, one after the other.

    `output` holds the tokens already generated elsewhere, `end_ids` what ends an answer, `bound`
    the form that it is held to, gone on to where the output ends.
    """

    __slots__ = (
        "_banned_early", "_bias", "_bound", "_counts", "_forced", "_mask", "_params", "_position",
        "_seen",
    )  # fmt: skip

    def __init__(
        self,
        params: Sampling,
        prompt: list[int],
        output: list[int],
        end_ids: frozenset[int],
        vocab_size: int,
        bound: Constraint | None = None,
    ) -> None:
        self._bound = bound
        self._mask = np.zeros(bound.words if bound is not None else 0, np.int32)
        self._params = params
        self._position = len(output)
        ends = end_ids.union(params.stop_token_ids)
        self._banned_early = [token for token in ends if 0 <= token < vocab_size]
        bias = {t: b for t, b in (params.logit_bias or {}).items() if 0 <= t < vocab_size}
        self._forced = [token for token, value in bias.items() if value >= FORCE_BIAS]
        self._bias = bias
        self._counts: NDArray[np.float32] | None = None
        self._seen: NDArray[np.bool_] | None = None
        if params.presence_penalty or params.frequency_penalty:
            self._counts = np.zeros(vocab_size, np.float32)
            np.add.at(self._counts, np.asarray(output, np.intp), 1)
        if params.repetition_penalty != 1.0:
            self._seen = np.zeros(vocab_size, np.bool_)
            self._seen[np.asarray(prompt + output, np.intp)] = True

    @property
    def is_over(self) -> bool:
        """Whether the answer's form leaves nothing to follow."""
        return self._bound is not None and self._bound.is_over

    def choose(self, logits: Row) -> int:
        """The next token. Raises ValueError for logits that are not numbers, ApiError when bans
        leave no token."""
        if not np.isfinite(logits.max()):
            raise ValueError("the model computed logits that are not finite numbers")
        token = self._choose(self._adjust(logits))
        self._position += 1
        if self._bound is not None:
            self._bound.accept(token)
        if self._counts is not None:
            self._counts[token] += 1
        if self._seen is not None:
            self._seen[token] = True
        return token

    def _choose(self, row: Row) -> int:
        params = self._params
        if params.temperature == 0 or params.top_p == 0:
            return int(row.argmax())  # the lowest id among equals
        return draw(row, params, uniform(params.seed, self._position))

    def _adjust(self, logits: Row) -> Row:
        """Biases, penalties and bans, in the order of vLLM's sampler.

        1. logit_bias; -100 bans, 100 leaves no other tokens. 2. repetition penalty (Keskar et al.
        2019), over prompt and output. 3. frequency and presence penalties, over the output.
        4. Ends of the answer are banned before `min_tokens`. 5. What the answer's form forbids.
        """
        params = self._params
        is_early = self._position < params.min_tokens and bool(self._banned_early)
        has_counts = self._counts is not None or self._seen is not None
        if not (self._bias or is_early or has_counts or self._bound):
            return logits
        row = logits.copy()
        for token, value in self._bias.items():
            row[token] = -np.inf if value <= -FORCE_BIAS else row[token] + value
        if self._forced:
            kept = row[self._forced]
            row[:] = -np.inf
            row[self._forced] = kept
        if self._seen is not None:
            penalty = np.float32(params.repetition_penalty)
            row = np.where(self._seen, np.where(row > 0, row / penalty, row * penalty), row)
        if self._counts is not None:
            row -= np.float32(params.frequency_penalty) * self._counts
            row -= np.float32(params.presence_penalty) * (self._counts > 0)
        if is_early:
            row[self._banned_early] = -np.inf
        if self._bound is not None:
            self._bound.fill(self._mask)
            forbid(row, self._mask)
        if row.max() == -np.inf:
            raise nothing_left(self._bound is not None)
        return row


def forbid(row: Row, mask: Words) -> None:
    """Ban the tokens whose bits are not set, and those behind the mask."""
    allowed = np.unpackbits(mask.view(np.uint8), count=len(row), bitorder="little")
    np.copyto(row, -np.inf, where=allowed == 0)


def nothing_left(is_bound: bool) -> ApiError:
    """Of a row whose tokens are all banned."""
    fields = "'logit_bias' and 'min_tokens'"
    if is_bound:
        fields = "'logit_bias', 'min_tokens' and the form of the answer"
    return ApiError("invalid_value", f"{fields} together leave no token to choose.", "logit_bias")


def draw(row: Row, params: Sampling, number: float) -> int:
    """Sample by inverse transform over token ids; `number` in [0, 1).

    Cuts, in this order, on the tempered logits: min_p, top_k, top_p. Tokens as likely as the last
    one kept are kept too.
    """
    scaled = (row.astype(np.float64) - float(row.max())) / params.temperature  # the best is 0.0
    if params.min_p > 0:
        scaled[scaled < np.log(params.min_p)] = -np.inf
    if 0 < params.top_k < len(scaled):
        least = np.partition(scaled, -params.top_k)[-params.top_k]
        scaled[scaled < least] = -np.inf
    weights = np.exp(scaled)
    if params.top_p < 1:
        descending = np.sort(weights)[::-1]
        covered = np.cumsum(descending)
        last = int(np.searchsorted(covered, params.top_p * covered[-1]))
        weights[weights < descending[min(last, len(weights) - 1)]] = 0.0
    cumulative = np.cumsum(weights)
    token = int(np.searchsorted(cumulative, number * cumulative[-1], side="right"))
    if token == len(weights):  # the product was rounded up to the total
        token = int(np.flatnonzero(weights)[-1])
    return token


def describe(logits: Row, token: int, best: int) -> Logprobs:
    """Log-softmax of the raw logits: of `token`, and the `best` ones (equals by id)."""
    wide = logits.astype(np.float64)
    wide -= wide.max()
    wide -= np.log(np.exp(wide).sum())
    best = min(best, len(wide))
    if best == 0:
        return float(wide[token]), []
    least = np.partition(wide, -best)[-best]
    candidates = np.flatnonzero(wide >= least)
    order = np.argsort(-wide[candidates], kind="stable")[:best]
    return float(wide[token]), [(int(t), float(wide[t])) for t in candidates[order]]
