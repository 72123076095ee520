"""Turns documents into token batches of a few fixed shapes, so that nothing is cut and little is padded."""

from collections.abc import Iterator

import corpus
import torch
from tokenizers import Tokenizer
from torch import Tensor

# Documents of about one length form a batch; every batch has the same number of tokens.
WIDTHS = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
BATCH_TOKENS = 4096
ROLE_IDS = {"assistant": "<|assistant|>", "end": "<|end|>", "pad": "<|pad|>"}
Batch = tuple[Tensor, Tensor]


class Encoder:
    """Documents as token ids and the positions whose next token is to be learnt."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._assistant, self._end, self.pad = (tokenizer.token_to_id(t) for t in ROLE_IDS.values())

    def encode(self, text: str, plain: bool) -> tuple[list[int], list[bool]]:
        """In a chat only what the assistant says (with its end) is learnt, in plain text all of it."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if plain:
            return ids, [True] * (len(ids) - 1) + [False]
        learnt, speaking = [], False
        for token in ids:
            if token == self._assistant:
                speaking = True
            elif token == self._end:
                speaking = False
            learnt.append(speaking)
        return ids, learnt


def batches(encoder: Encoder, seed: int, start: int = 0) -> Iterator[tuple[Batch, int]]:
    """Endless (ids, learnt) batches from document `start` on, each with the number of the next document."""
    pools: dict[int, list[tuple[list[int], list[bool]]]] = {width: [] for width in WIDTHS}
    number = start
    while True:
        text, plain = corpus.document(seed, number)
        number += 1
        ids, learnt = encoder.encode(text, plain)
        if len(ids) > WIDTHS[-1]:
            continue
        width = next(w for w in WIDTHS if w >= len(ids))
        pool = pools[width]
        pool.append((ids, learnt))
        if len(pool) == BATCH_TOKENS // width:
            yield _stack(pool, width, encoder.pad), number
            pool.clear()


def _stack(pool: list[tuple[list[int], list[bool]]], width: int, pad: int) -> Batch:
    """Padding stands at the right end, where causal attention never sees it."""
    ids = torch.tensor([row + [pad] * (width - len(row)) for row, _ in pool])
    learnt = torch.tensor([row + [False] * (width - len(row)) for _, row in pool])
    return ids, learnt
