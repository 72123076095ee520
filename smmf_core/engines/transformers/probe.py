"""What can only be learnt of a model by running it: the masks it takes, what a token costs.

Owns one small pass at load, which warms the model up, too; must not outlive it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import torch

from smmf_core.engines.transformers.batch import Batch, Group, Model, Row
from smmf_core.engines.transformers.cache import Budget
from smmf_core.engines.transformers.lean import lean_step

Mask = Callable[[torch.Tensor], torch.Tensor]

_LONG, _SHORT = 8, 3  # tokens of the two rows
_TOLERANCE = 1e-3  # of the largest logit: the same kernels ran, or the padding was seen
_HALF_TOLERANCE = 0.05  # in half precision, which rounds what is summed up in another order


def probe(
    model: Model, windows: list[int | None], sliding_window: int | None, vocab_size: int
) -> dict[torch.device, int]:
    """Bytes of one token in the cache, by device. Sets `model.decode_mask` and `model.step`.

    transformers builds the mask of every pass anew from the plain one, which costs a twentieth of
    a small model's decode step. Where all layers see the same columns, a finished mask of four
    dimensions is given instead, if the model computes the same with it; and a shorter way through
    the layers is taken, if the model has one that computes the same (lean.py).
    """
    with torch.inference_mode():
        batch, plain = _last_column(model, windows, (_LONG, _SHORT), vocab_size)
        if set(windows) == {sliding_window or None}:  # else some attend in chunks, or differ
            for mask in _finished_masks(windows[0]):
                if _is_same(batch, mask, plain):
                    _try_step(batch, plain)
                    break
        if model.step:
            single, plain = _last_column(model, windows, (_LONG,), vocab_size)
            _try_step(single, plain)
            single.release()
    sizes: dict[torch.device, int] = defaultdict(int)
    for layer in batch.store.layers:
        for tensor in (layer.keys, layer.values):
            sizes[tensor.device] += tensor.shape[1] * tensor.shape[3] * tensor.element_size()
    batch.release()
    return dict(sizes)


def _last_column(
    model: Model, windows: list[int | None], lengths: tuple[int, ...], vocab_size: int
) -> tuple[Batch, torch.Tensor]:
    """Rows of these lengths, computed by the library but for their last column, and its logits."""
    rows = [Row([], _tokens(length, vocab_size), Group()) for length in lengths]
    batch = Batch(model, windows, Budget(0), rows)
    step, model.step = model.step, None
    batch.forward(0, len(rows), _LONG - 1, 1)
    batch.advance(_LONG - 1)
    logits = batch.forward(0, len(rows), 1, 1)
    model.step = step
    return batch, logits


def _try_step(batch: Batch, plain: torch.Tensor) -> None:
    """Sets `model.step` if it computes and stores what the library did."""
    model = batch.model
    stored = [
        tensor.clone() for layer in batch.store.layers for tensor in (layer.keys, layer.values)
    ]
    model.step = lean_step(model.source)
    try:
        logits = batch.forward(0, len(batch.rows), 1, 1)
        now = [tensor for layer in batch.store.layers for tensor in (layer.keys, layer.values)]
        tolerance = _TOLERANCE if plain.dtype == torch.float32 else _HALF_TOLERANCE
        if all(map(partial(_is_near, tolerance=tolerance), [logits, *now], [plain, *stored])):
            return
    except Exception:  # of a version of the library whose layers want something else
        pass
    model.step = None


def _tokens(count: int, vocab_size: int) -> list[int]:
    return [(7 * n + count) % vocab_size for n in range(count)]


def _finished_masks(window: int | None) -> list[Mask]:
    """As sdpa takes it (true: seen), and as eager attention does (added to the scores)."""

    def boolean(mask: torch.Tensor) -> torch.Tensor:
        if window is not None:
            mask = mask[:, -window:]
        return mask[:, None, None]

    def added(mask: torch.Tensor) -> torch.Tensor:
        least = torch.finfo(torch.get_default_dtype()).min
        return torch.zeros((), device=mask.device).masked_fill(~boolean(mask), least)

    return [boolean, added]


def _is_same(batch: Batch, mask: Mask, plain: torch.Tensor) -> bool:
    model = batch.model
    usual, model.decode_mask = model.decode_mask, mask
    try:
        logits = batch.forward(0, 2, 1, 1)
        if _is_near(logits, plain, _TOLERANCE):
            return True
    except Exception:  # a model that takes no such mask may raise anything
        pass
    model.decode_mask = usual
    return False


def _is_near(said: torch.Tensor, known: torch.Tensor, tolerance: float) -> bool:
    return bool(torch.allclose(said, known, rtol=0, atol=tolerance * float(known.abs().max())))
