"""Choosing tokens for the rows of a batch with numpy.

Owns no state; must not know which sequence a row is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smmf_core.engines.base import Logprobs
from smmf_core.engines.sampling.plan import NOT_FINITE, NOTHING_LEFT, Group, Plan
from smmf_core.engines.sampling.sampler import describe, forbid
from smmf_core.engines.sampling.touched import adjusted
from smmf_core.messages import Sampling

Rows = NDArray[np.float32]
"""Logits [rows, vocabulary]."""

_ROUNDING = 1e-5  # of logits in float32: more than it can be
_CHUNK = 65_536  # logits that are worked on at once, as float64: what a core's cache holds


def choose_tokens(
    rows: Rows, plan: Plan, plain_numbers: NDArray[np.float64], cut_numbers: NDArray[np.float64]
) -> NDArray[np.int64]:
    """A token per row, or NOT_FINITE, or NOTHING_LEFT. The numbers are those of the groups."""
    with np.errstate(all="ignore"):  # infinities and underflow have their meaning here
        tokens: NDArray[np.int64] = rows.argmax(-1)  # the first of a NaN, if there is one
        is_bad = ~np.isfinite(rows[np.arange(len(rows)), tokens])
        changed = _adjust(rows, plan, tokens)
        if plan.plain.places:
            _draw_plain(rows, changed, plan.plain, plain_numbers, tokens)
        for place, params, number in zip(
            plan.cut.places, plan.cut.params, cut_numbers.tolist(), strict=True
        ):
            if tokens[place] >= 0 and not is_bad[place]:
                tokens[place] = _draw_cut(changed.get(place, rows[place]), params, number)
        tokens[is_bad] = NOT_FINITE
    return tokens


def describe_rows(
    rows: Rows, tokens: NDArray[np.int64], best: dict[int, int]
) -> dict[int, Logprobs]:
    """Logprobs of the tokens of some rows: by place, how many best ones. Errors have none."""
    with np.errstate(all="ignore"):
        return {
            place: describe(rows[place], int(tokens[place]), count)
            for place, count in best.items()
            if tokens[place] >= 0
        }


def _adjust(rows: Rows, plan: Plan, tokens: NDArray[np.int64]) -> dict[int, Rows]:
    """The rows that change, by place; `tokens` gets their likeliest."""
    places = plan.changed
    if not places:
        return {}
    work = rows[places]
    if plan.touched:
        ids, factors = plan.gathered(rows.shape[1])
        flat = work.reshape(-1)
        values = adjusted(flat[ids], factors)
        work[[n for n, (_, touched) in enumerate(plan.touched) if touched.is_forced]] = -np.inf
        flat[ids] = values
    for mask, (place, _) in zip(plan.masks, plan.bound, strict=True):
        forbid(work[places.index(place)], mask)
    best = work.argmax(-1)
    has_none = work[np.arange(len(work)), best] == -np.inf
    best[has_none] = NOTHING_LEFT
    tokens[places] = best
    return dict(zip(places, work, strict=True))


def _draw_plain(
    rows: Rows,
    changed: dict[int, Rows],
    group: Group,
    numbers: NDArray[np.float64],
    tokens: NDArray[np.int64],
) -> None:
    """Inverse transform over token ids, as sampling.draw does it without cuts."""
    temperature = group.column("temperature")[:, None]
    count = max(_CHUNK // rows.shape[1], 1)
    for start in range(0, len(group.places), count):
        places = group.places[start : start + count]
        wide = rows[places].astype(np.float64)
        for index, place in enumerate(places):
            if place in changed:
                wide[index] = changed[place]
        wide -= wide.max(-1, keepdims=True)
        wide /= temperature[start : start + count]
        np.exp(wide, out=wide)
        cumulative = np.cumsum(wide, -1)
        reached = numbers[start : start + count] * cumulative[:, -1]
        for index, place in enumerate(places):
            if tokens[place] >= 0:
                tokens[place] = _place_of(reached[index], cumulative[index], wide[index])


def _draw_cut(row: Rows, params: Sampling, number: float) -> int:
    """sampling.draw for one row, whose steps are taken for the tokens that can still be kept."""
    best = float(row.max())
    ids = _candidates(row, best, params)
    scaled = ((row if ids is None else row[ids]).astype(np.float64) - best) / params.temperature
    weights = np.exp(scaled)
    if params.min_p > 0:
        weights[scaled < np.log(params.min_p)] = 0.0
    if params.top_p < 1:
        weights[weights < _least_by_top_p(weights, params.top_p)] = 0.0
    cumulative = np.cumsum(weights)
    token = _place_of(number * float(cumulative[-1]), cumulative, weights)
    return token if ids is None else int(ids[token])


def _candidates(row: Rows, best: float, params: Sampling) -> NDArray[np.int64] | None:
    """The tokens that top_k and min_p may keep, min_p roughly; None: all."""
    least = -np.inf
    if 0 < params.top_k < len(row):
        least = float(np.partition(row, -params.top_k)[-params.top_k])
    if params.min_p > 0:
        about = best + params.temperature * float(np.log(params.min_p))
        least = max(least, about - _ROUNDING * (abs(about) + abs(best)))
    return None if least == -np.inf else np.flatnonzero(row >= least)


def _least_by_top_p(weights: NDArray[np.float64], top_p: float) -> float:
    """The weight of the last token that is kept. Weights so small that all such together make up
    half of what may be cut off need not be sorted."""
    total = float(weights.sum())
    large = weights[weights > total * (1 - top_p) / (2 * len(weights))]
    descending = np.sort(large)[::-1]
    last = int(np.searchsorted(np.cumsum(descending), top_p * total))
    return float(descending[min(last, len(descending) - 1)])


def _place_of(reached: float, cumulative: NDArray[np.float64], weights: NDArray[np.float64]) -> int:
    token = int(cumulative.searchsorted(reached, side="right"))
    if token == len(weights):  # the product was rounded up to the total
        token = int(np.flatnonzero(weights)[-1]) if weights.any() else 0
    return token
