"""Sequences in one forward pass of an mlx-lm model: its batch caches, prefill, joining and leaving.

Owns the caches and which row is whose; must not choose tokens beyond the arg max, or know requests.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from numpy.typing import NDArray

from smmf_core.engines.base import Logprobs, Sequence
from smmf_core.engines.mlx.first_import import BatchKVCache, KVCache, make_prompt_cache
from smmf_core.engines.sampling.sampler import Sampler, describe

Caches = list[Any]
"""One cache per layer, as mlx-lm makes them."""

MIN_REUSED = 16  # tokens: a shorter common beginning is computed faster than it is found
_MAX_ENTRIES = 64  # of the prefix store: bounds the search


@dataclass(slots=True, eq=False)
class Row:
    """One running sequence. `tokens` are its prompt and what it produced, `cached` how many of them
    a former sequence's caches held. `sampler` chooses where what came before matters; of the others
    those that `draws` sample, the rest take the arg max."""

    sequence: Sequence
    tokens: list[int]
    sampler: Sampler | None
    draws: bool
    produced: int = 0
    cached: int = 0
    prompt_logprobs: list[Logprobs] | None = None  # until the first token

    @property
    def is_on_device(self) -> bool:
        """Whether its next pass can start before the host has seen this one's token."""
        return self.sampler is None and not self.draws

    @property
    def has_more(self) -> bool:
        """Whether it goes on after the token that is being computed."""
        return self.produced + 1 < self.sequence.max_new_tokens


@dataclass(slots=True)
class Flight:
    """A forward pass that has been started: its logits and their arg max (-1: not a number)."""

    logits: mx.array
    tokens: mx.array


class Batch:
    """The rows that decode, one token a pass. `inputs` are the tokens of the next pass."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.rows: list[Row] = []
        self.caches: Caches = []
        self.inputs: mx.array | None = None

    def launch(self) -> Flight:
        """Start a pass over `inputs`; what it computes is there when it is looked at."""
        assert self.inputs is not None
        logits = self._model(self.inputs[:, None], cache=self.caches)[:, -1]
        best = mx.max(logits, axis=-1)
        tokens = mx.where(mx.isfinite(best), mx.argmax(logits, axis=-1).astype(mx.int32), -1)
        flight = Flight(logits, tokens)
        mx.async_eval(tokens)  # type: ignore[no-untyped-call]
        return flight

    def keep(self, places: list[int], flight: Flight | None) -> Flight | None:
        """Drop all rows but those at `places`, also of a pass that is under way."""
        if not places:
            self.rows, self.caches, self.inputs = [], [], None
            return None
        index = mx.array(places)
        self.rows = [self.rows[place] for place in places]
        for cache in self.caches:
            cache.filter(index)
        if self.inputs is not None:
            self.inputs = self.inputs[index]
        return flight and Flight(flight.logits[index], flight.tokens[index])

    def extend(self, rows: list[Row], caches: Caches) -> None:
        """Take rows whose caches hold all their tokens but the last."""
        inputs = mx.array([row.tokens[-1] for row in rows])
        if not self.rows:
            self.rows, self.caches, self.inputs = list(rows), caches, inputs
            return
        assert self.inputs is not None
        for own, other in zip(self.caches, caches, strict=True):
            own.extend(other)
        self.rows += rows
        self.inputs = mx.concatenate([self.inputs, inputs])

    def extract(self, place: int) -> Caches | None:
        """A copy of one row's caches; None where they cannot be cut to a length."""
        if not all(type(cache) is BatchKVCache for cache in self.caches):
            return None
        return [cache.extract(place) for cache in self.caches]


class Prefill:
    """Rows whose prompts are being computed: several in one chunk, or one in several. Rows of a
    group have the same tokens, which are computed once.

    A row's last token is left to the batch, whose next pass then yields the row's first token.
    """

    def __init__(
        self, model: nn.Module, groups: list[list[Row]], reused: list[Caches | None]
    ) -> None:
        """`reused`: a group's caches, which hold the `cached` tokens of its rows."""
        self._model = model
        self._groups = groups
        fresh = [make_prompt_cache(model) if own is None else own for own in reused]
        self._caches: Caches = [layer[0].merge(list(layer)) for layer in zip(*fresh, strict=True)]
        self._rest = [group[0].tokens[group[0].cached : -1] for group in groups]  # to be computed

    @property
    def rows(self) -> list[Row]:
        return [row for group in self._groups for row in group]

    @property
    def is_done(self) -> bool:
        return not any(self._rest)

    def caches(self) -> Caches:
        """Of the rows, once it is done."""
        places = [place for place, group in enumerate(self._groups) for _ in group]
        if len(places) > len(self._groups):
            for cache in self._caches:
                cache.filter(mx.array(places))
        return self._caches

    def drop(self, gone: set[int]) -> None:
        """Rows that left before their prompt was computed, by their sequences' ids."""
        left = [[row for row in group if row.sequence.id not in gone] for group in self._groups]
        kept = [place for place, group in enumerate(left) if group]
        self._groups = [left[place] for place in kept]
        if kept and len(kept) < len(left):
            self._rest = [self._rest[place] for place in kept]
            for cache in self._caches:
                cache.filter(mx.array(kept))

    def compute(self, tokens: int) -> None:
        """One pass over the next `tokens` of each prompt."""
        chunks = [rest[:tokens] for rest in self._rest]
        self._rest = [rest[tokens:] for rest in self._rest]
        lengths = [len(chunk) for chunk in chunks]
        longest = max(lengths)
        if longest == 0:
            return
        padding = [longest - length for length in lengths]
        if any(padding):
            for cache in self._caches:
                cache.prepare(lengths=lengths, right_padding=padding)
        padded = [chunk + [0] * pad for chunk, pad in zip(chunks, padding, strict=True)]
        logits = self._model(mx.array(padded), cache=self._caches)
        if any(padding):
            for cache in self._caches:
                cache.finalize()
        (row, *others) = self.rows
        if row.prompt_logprobs is not None and not others:
            _describe_prompt(row, to_numpy(logits[0]))
        mx.eval([cache.state for cache in self._caches])
        mx.clear_cache()


class PrefixStore:
    """Caches of ended sequences by their tokens: a prompt that begins like one goes on from there.

    The least recently used leave when they hold more than `max_bytes`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[int, tuple[NDArray[np.int32], Caches, int]] = OrderedDict()
        self._serial = 0
        self.bytes = 0
        self.reused_tokens = 0

    @property
    def is_on(self) -> bool:
        return self._max_bytes > 0

    def find(self, tokens: list[int]) -> tuple[int, Caches | None]:
        """(length of the longest known beginning, caches cut to it)."""
        wanted = np.asarray(tokens, np.int32)
        best, number = MIN_REUSED - 1, -1
        for key, (known, _, _) in self._entries.items():
            common = common_length(wanted, known)
            if common > best:
                best, number = common, key
        if number < 0:
            return 0, None
        self._entries.move_to_end(number)
        self.reused_tokens += best
        return best, [_cut(cache, best) for cache in self._entries[number][1]]

    def add(self, tokens: list[int], caches: Caches) -> None:
        """Take the caches of `tokens`; entries that are beginnings of it go."""
        known = np.asarray(tokens[: caches[0].offset], np.int32)
        if len(known) < MIN_REUSED:
            return
        for key, (other, _, _) in list(self._entries.items()):
            common = common_length(known, other)
            if common == len(known):
                return
            if common == len(other):
                self._drop(key)
        mx.eval([cache.state for cache in caches])
        size = sum(cache.nbytes for cache in caches)
        self._serial += 1
        self._entries[self._serial] = (known, caches, size)
        self.bytes += size
        while self.bytes > self._max_bytes or len(self._entries) > _MAX_ENTRIES:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        self._entries.clear()
        self.bytes = 0

    def _drop(self, key: int) -> None:
        self.bytes -= self._entries.pop(key)[2]


def common_length(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """How many leading tokens are the same."""
    length = min(len(a), len(b))
    differs = a[:length] != b[:length]
    return int(differs.argmax()) if differs.any() else length


def to_numpy(logits: mx.array) -> NDArray[np.float32]:
    return np.array(logits.astype(mx.float32))


def _cut(cache: KVCache, length: int) -> KVCache:
    cut = KVCache()
    cut.keys, cut.values = cache.keys[..., :length, :], cache.values[..., :length, :]
    cut.offset = length
    return cut


def _describe_prompt(row: Row, logits: NDArray[np.float32]) -> None:
    """Logprobs of the request's own prompt: each row of logits foretells the next token."""
    sequence, done = row.sequence, row.prompt_logprobs
    assert done is not None
    best = sequence.prompt_logprobs or 0
    for line in logits[: sequence.prompt_len - 1 - len(done)]:
        done.append(describe(line, sequence.prompt[len(done) + 1], best))
