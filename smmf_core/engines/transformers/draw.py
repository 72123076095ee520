"""Choosing tokens for the rows of a batch with torch, on the device where their logits are.

Owns no state; must not know which sequence a row is. The steps are those of sampling.draw; what is
sorted is, where that is enough, not the vocabulary but its likeliest tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from smmf_core.engines.base import Logprobs
from smmf_core.engines.sampling.plan import NOT_FINITE, NOTHING_LEFT, Group, Plan
from smmf_core.engines.sampling.sampler import describe
from smmf_core.engines.sampling.touched import BIAS, DIVISOR, FREQUENCY, PRESENCE

_LIKELIEST = 512  # a cut rarely leaves more; then the whole vocabulary is sorted
_MORE = 32  # candidates beyond those asked for: tokens may be equally likely


def choose_tokens(
    logits: torch.Tensor,
    plan: Plan,
    plain_numbers: NDArray[np.float64],
    cut_numbers: NDArray[np.float64],
) -> NDArray[np.int64]:
    """A token per row of logits [rows, vocabulary], or NOT_FINITE, or NOTHING_LEFT. The numbers
    are those of the groups."""
    best, tokens = logits.max(-1)  # the first of those that are equal
    is_bad = ~best.isfinite()
    changed = _adjust(logits, plan, tokens)
    for group, numbers, draw in (
        (plan.plain, plain_numbers, _draw_plain),
        (plan.cut, cut_numbers, _draw_cut),
    ):
        if group.places:
            places = _places(group, logits)
            chosen = draw(_rows(logits, changed, group), group, _to(numbers, logits))
            greedy = tokens[places]
            tokens[places] = torch.where(greedy < 0, greedy, chosen)
    host: NDArray[np.int64] = tokens.masked_fill_(is_bad, NOT_FINITE).cpu().numpy()
    return host


def describe_rows(
    logits: torch.Tensor, tokens: NDArray[np.int64], best: dict[int, int]
) -> dict[int, Logprobs]:
    """Logprobs of the tokens of some rows: by place, how many best ones. Errors have none."""
    places = [place for place in best if tokens[place] >= 0]
    if not places:
        return {}
    counts = [min(best[place], logits.shape[1]) for place in places]
    wide = logits[torch.tensor(places, device=logits.device)].double()
    wide -= wide.amax(-1, keepdim=True)
    wide -= wide.exp().sum(-1, keepdim=True).log()
    chosen = torch.from_numpy(tokens[places]).to(logits.device)
    values, ids = wide.topk(min(max(counts) + _MORE, wide.shape[1]))
    packed = torch.cat([wide.gather(1, chosen[:, None]), values, ids.double()], 1).cpu().numpy()
    described: dict[int, Logprobs] = {}
    width = values.shape[1]
    for place, count, row in zip(places, counts, packed, strict=True):
        top = list(zip((-row[1 : 1 + width]).tolist(), row[1 + width :].tolist(), strict=True))
        top.sort()  # equals by id
        if count and width < wide.shape[1] and top[count - 1][0] == top[-1][0]:
            host = logits[place].float().cpu().numpy()
            described[place] = describe(host, int(tokens[place]), count)
        else:
            described[place] = float(row[0]), [(int(id_), -value) for value, id_ in top[:count]]
    return described


def _adjust(
    logits: torch.Tensor, plan: Plan, tokens: torch.Tensor
) -> tuple[dict[int, int], torch.Tensor]:
    """The rows that change, and where in them which place is; `tokens` gets their likeliest."""
    places = plan.changed
    if not places:
        return {}, logits
    at = torch.tensor(places, device=logits.device)
    work = logits[at].float()
    if plan.touched:
        _touch(work, plan)
    if plan.bound:
        index = [places.index(place) for place, _ in plan.bound]
        bound = torch.tensor(index, device=logits.device)
        work[bound] = work[bound].masked_fill(_forbidden(plan, work), -torch.inf)
    best, likeliest = work.max(-1)
    tokens[at] = likeliest.masked_fill(best == -torch.inf, NOTHING_LEFT)
    return {place: n for n, place in enumerate(places)}, work


def _touch(work: torch.Tensor, plan: Plan) -> None:
    """Biases, penalties and bans of the first rows."""
    device = work.device
    flat_ids, host_factors = plan.gathered(work.shape[1])
    ids = torch.from_numpy(flat_ids).to(device)
    factors = torch.from_numpy(host_factors).to(device)
    values = work.view(-1)[ids] + factors[BIAS]
    divisor = factors[DIVISOR]
    values = torch.where(values > 0, values / divisor, values * divisor)
    values = values - factors[FREQUENCY] - factors[PRESENCE]
    forced = [n for n, (_, touched) in enumerate(plan.touched) if touched.is_forced]
    if forced:
        work[torch.tensor(forced, device=device)] = -torch.inf
    work.view(-1)[ids] = values


def _forbidden(plan: Plan, like: torch.Tensor) -> torch.Tensor:
    """What the forms of answers forbid [bound rows, vocabulary]."""
    words = torch.from_numpy(plan.masks).to(like.device)
    bits = torch.arange(32, dtype=torch.int32, device=like.device)
    forbidden = (words[:, :, None] >> bits & 1).view(len(words), -1) == 0
    missing = like.shape[1] - forbidden.shape[1]  # tokens that only the model has
    return torch.nn.functional.pad(forbidden, (0, missing), value=True)


def _rows(
    logits: torch.Tensor, changed: tuple[dict[int, int], torch.Tensor], group: Group
) -> torch.Tensor:
    """The group's rows as float32, with what is changed in them."""
    index, work = changed
    rows = logits[_places(group, logits)].float()
    here = [n for n, place in enumerate(group.places) if place in index]
    if here:
        there = [index[group.places[n]] for n in here]
        at, source = (torch.tensor(places, device=logits.device) for places in (here, there))
        rows[at] = work[source]
    return rows


def _draw_plain(rows: torch.Tensor, group: Group, numbers: torch.Tensor) -> torch.Tensor:
    """Inverse transform over token ids."""
    scaled = rows.double()
    scaled -= scaled.amax(-1, keepdim=True)
    scaled /= _column(group, "temperature", rows)
    return _inverse(scaled.exp_(), numbers)


def _draw_cut(rows: torch.Tensor, group: Group, numbers: torch.Tensor) -> torch.Tensor:
    """From the likeliest tokens; where the cuts may keep more, from all."""
    vocab_size = rows.shape[1]
    widest = max(params.top_k for params in group.params)
    count = min(max(_LIKELIEST, widest + _MORE), vocab_size)
    if 2 * count > vocab_size:
        count = vocab_size
    tokens, is_sure = _draw_from(rows, count, group, numbers)
    if count == vocab_size:
        return tokens
    unsure = (~is_sure).nonzero()[:, 0]
    if len(unsure):
        part = Group(params=[group.params[n] for n in unsure.tolist()])
        tokens[unsure] = _draw_from(rows[unsure], vocab_size, part, numbers[unsure])[0]
    return tokens


def _draw_from(
    rows: torch.Tensor, count: int, group: Group, numbers: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token per row out of its `count` likeliest, and whether the cuts left only such: the least
    of them was cut off, so that nothing behind it was kept."""
    temperature, min_p, top_p = (
        _column(group, name, rows) for name in ("temperature", "min_p", "top_p")
    )
    values, ids = rows.topk(count)
    best = values[:, :1].double()
    scaled = (values.double() - best) / temperature
    wanted = [p.top_k if 0 < p.top_k < count else count for p in group.params]
    least = scaled.gather(1, torch.tensor(wanted, device=rows.device)[:, None] - 1)
    weights = scaled.exp()
    weights[(scaled < min_p.log()) | (scaled < least)] = 0
    covered = weights.cumsum(-1)
    total = covered[:, -1:].clone()
    is_closed = weights[:, -1] == 0
    by_top_p = [
        n for n, p in enumerate(group.params)
        if p.top_p < 1 and p.min_p == 0 and not 0 < p.top_k < rows.shape[1]
    ]  # fmt: skip
    if by_top_p and count < rows.shape[1]:  # these cover a share of the whole vocabulary
        at = torch.tensor(by_top_p, device=rows.device)
        total[at] = ((rows[at].double() - best[at]) / temperature[at]).exp_().sum(-1, keepdim=True)
        is_closed[at] = True
    last = torch.searchsorted(covered, top_p * total).clamp_(max=count - 1)
    weights[(weights < weights.gather(1, last)) & (top_p < 1)] = 0
    is_sure = is_closed & (weights[:, -1] == 0)
    ids, order = ids.sort(-1)
    chosen = _inverse(weights.gather(1, order), numbers)
    return ids.gather(1, chosen[:, None])[:, 0], is_sure


def _inverse(weights: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Where the running sum of a row passes its number's share of the total."""
    cumulative = weights.cumsum(-1)
    reached = numbers[:, None] * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, reached, right=True)[:, 0]
    places = torch.arange(weights.shape[1], device=weights.device)
    last = torch.where(weights > 0, places, 0).amax(-1)  # the product may be rounded up
    return torch.minimum(chosen, last)


def _places(group: Group, like: torch.Tensor) -> torch.Tensor:
    """As an index, made once per group."""
    if "places" not in group.kept:
        group.kept["places"] = torch.tensor(group.places, device=like.device)
    kept: torch.Tensor = group.kept["places"]
    return kept


def _column(group: Group, name: str, like: torch.Tensor) -> torch.Tensor:
    """A parameter of all rows [rows, 1], made once per group."""
    if name not in group.kept:
        group.kept[name] = _to(group.column(name), like)[:, None]
    kept: torch.Tensor = group.kept[name]
    return kept


def _to(values: NDArray[np.float64], like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(like.device)
