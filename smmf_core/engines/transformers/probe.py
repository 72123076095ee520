"""What can only be learnt of a model by running it: the masks it takes, what a token costs.

Owns one small pass at load, which warms the model up, too; must not outlive it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch

from smmf_core.engines.transformers.batch import Batch, Group, Model, Row
from smmf_core.engines.transformers.cache import Budget

Mask = Callable[[torch.Tensor], torch.Tensor]

_LONG, _SHORT = 8, 3  # tokens of the two rows
_TOLERANCE = 1e-3  # of the largest logit: the same kernels ran, or the padding was seen


def probe(
    model: Model, windows: list[int | None], sliding_window: int | None, vocab_size: int
) -> dict[torch.device, int]:
    """Bytes of one token in the cache, by device. Sets `model.decode_mask`.

    transformers builds the mask of every pass anew from the plain one, which costs a twentieth of
    a small model's decode step. Where all layers see the same columns, a finished mask of four
    dimensions is given instead, if the model computes the same with it.
    """
    rows = [
        Row([], _tokens(_LONG, vocab_size), Group()),
        Row([], _tokens(_SHORT, vocab_size), Group()),
    ]
    batch = Batch(model, windows, Budget(0), rows)
    with torch.inference_mode():
        batch.forward(0, 2, _LONG - 1, 1)
        batch.advance(_LONG - 1)
        plain = batch.forward(0, 2, 1, 1)
        if set(windows) in ({None}, {sliding_window}):  # else some attend in chunks, or differ
            for mask in _finished_masks(windows[0]):
                if _is_same(batch, mask, plain):
                    break
    sizes: dict[torch.device, int] = defaultdict(int)
    for layer in batch.store.layers:
        for tensor in (layer.keys, layer.values):
            sizes[tensor.device] += tensor.shape[1] * tensor.shape[3] * tensor.element_size()
    batch.release()
    return dict(sizes)


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
        if torch.allclose(logits, plain, rtol=0, atol=_TOLERANCE * float(plain.abs().max())):
            return True
    except Exception:  # a model that takes no such mask may raise anything
        pass
    model.decode_mask = usual
    return False
