"""What a Worker does with embedding and rerank requests: prepare, batch, collect rows, answer.

Pure: time is a parameter, records leave through `out`. Owns every open request of this Worker; must
not know sockets, rings or a certain engine. Which texts make a step is embed_batcher's.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
from numpy.typing import NDArray

from smmf_core.engines.base import EmbedSpec, Text
from smmf_core.messages import (
    ADMIT,
    FINISH,
    RESULT,
    Embed,
    Record,
    Vectors,
    encode,
)
from smmf_core.worker.contract import OWN, OpenFacts, RouterKey, Tally
from smmf_core.worker.embed_batcher import EmbedBatcher, Place
from smmf_core.worker.embed_prepare import Tokenize, compares, queries_of, read_texts

_U32 = 4


class OpenEmbed:
    """One accepted request: its texts, and the rows that are there."""

    __slots__ = ("arrived_at", "missing", "router", "rows", "serial", "submit", "texts")

    def __init__(
        self, serial: int, router: RouterKey, submit: Embed, texts: list[Text], now: float
    ) -> None:
        self.arrived_at = now
        self.serial = serial
        self.router = router
        self.submit = submit
        self.texts = texts
        self.rows: NDArray[np.float32] | None = None  # made with the first
        self.missing = len(texts)

    @property
    def tokens(self) -> int:
        return sum(len(text.ids) for text in self.texts)

    def put(self, number: int, row: NDArray[np.float32]) -> None:
        if self.rows is None:
            self.rows = np.empty((len(self.texts), len(row)), np.float32)
        self.rows[number] = row
        self.missing -= 1


class EmbedCore:
    """The Worker's decisions.

    The loop calls `next`, has the engine encode those texts, and gives `on_rows` or `on_error` what
    came of it. Every accepted request ends with one FINISH or FAIL, unless its Router cancelled it
    or is gone.
    """

    takes = Embed

    def __init__(self, spec: EmbedSpec, tokenize: Tokenize, batcher: EmbedBatcher) -> None:
        self.spec = spec
        self.out: dict[RouterKey, list[Record]] = {}
        self.tally = Tally()
        self.tokens = 0
        self._tokenize = tokenize
        self._batcher = batcher
        self._serial = 0
        self._open: dict[int, OpenEmbed] = {}
        self._by_key: dict[tuple[RouterKey, int], OpenEmbed] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def running(self) -> int:
        return len(self._open)

    @property
    def waiting(self) -> int:
        """Texts."""
        return self._batcher.waiting

    @property
    def dimensions(self) -> int:
        """Of its vectors; 0: it makes scores."""
        return self.spec.dimensions if self.spec.dimensions > 1 else 0

    def describe(self, limit: int) -> list[OpenFacts]:
        """The oldest open requests."""
        return [
            OpenFacts(
                request_id=request.submit.request_id,
                router=request.router[0],
                state="waiting" if request.rows is None else "running",
                arrived_at=request.arrived_at,
                prompt_tokens=request.tokens,
                done=len(request.texts) - request.missing,
            )
            for request in islice(self._open.values(), limit)
        ]

    # --- from the Routers ---

    def add_router(self, router: RouterKey) -> None:
        self.out[router] = []

    def on_submit(self, router: RouterKey, submit: Embed, now: float) -> None:
        """Prepare and queue; a bad request fails here, before it costs a step."""
        try:
            texts = read_texts(submit, self.spec, self._tokenize)
        except Exception as error:  # a tokenizer may raise anything: that costs one request
            self.out[router].append(self.tally.fail(router, submit, error))
            return
        self._serial += 1
        request = OpenEmbed(self._serial, router, submit, texts, now)
        self._open[request.serial] = request
        self._by_key[router, submit.key] = request
        lengths = [len(text.ids) for text in texts]
        admit = (ADMIT, submit.key, submit.attempt, 0, sum(lengths), bytes(_U32))
        self.out[router].append(admit)
        self._batcher.add(request.serial, lengths, submit.priority, now)

    def on_cancel(self, router: RouterKey, key: int, attempt: int) -> None:
        request = self._by_key.get((router, key))
        if request is not None and request.submit.attempt == attempt:
            self._forget(request)

    def on_router_gone(self, router: RouterKey) -> None:
        """Cancel all requests of a Router that died: there is nobody to answer."""
        for request in [r for r in self._open.values() if r.router == router]:
            self._forget(request)
        self.out.pop(router, None)

    def drop(self, router: RouterKey, key: int) -> None:
        """Forget a request whose answer the TokenWriter gave up; it has told the Router."""
        request = self._by_key.get((router, key))
        if request is not None:
            self._forget(request)

    # --- around a step ---

    def next(self, now: float) -> list[Place]:
        """The texts of the next step."""
        return self._batcher.next(now)

    def next_deadline(self) -> float:
        return self._batcher.next_deadline()

    def still_open(self, places: list[Place]) -> list[Place]:
        """Those whose request has not failed by another of its texts."""
        return [place for place in places if place[0] in self._open]

    def texts(self, places: list[Place]) -> list[Text]:
        return [self._open[serial].texts[number] for serial, number in places]

    def on_rows(self, places: list[Place], rows: NDArray[np.float32]) -> None:
        """Take what the engine made of `texts(places)`."""
        is_finite = np.isfinite(rows.sum(axis=1))
        for (serial, number), row, is_good in zip(places, rows, is_finite, strict=True):
            request = self._open.get(serial)
            if request is None:  # another text of it has failed
                continue
            if not is_good:
                self.fail(request, ValueError("it computed what is not a number"))
                continue
            self.tokens += len(request.texts[number].ids)
            request.put(number, row)
            if request.missing == 0:
                self._finish(request)

    def on_error(self, places: list[Place], error: Exception) -> None:
        """The engine could not encode these texts."""
        for serial in dict.fromkeys(serial for serial, _ in places):
            if serial in self._open:
                self.fail(self._open[serial], error)

    def fail(self, request: OpenEmbed, error: Exception) -> None:
        """End a request with an error."""
        self._forget(request)
        record = self.tally.fail(request.router, request.submit, error)
        self.out[request.router].append(record)

    def fail_begun(self, places: list[Place], error: Exception) -> None:
        """The engine failed for good at these texts: their requests end, and those that have
        rows."""
        self.on_error(places, error)
        for request in [r for r in self._open.values() if r.rows is not None]:
            self.fail(request, error)

    # --- inside ---

    def _finish(self, request: OpenEmbed) -> None:
        submit, out, tokens = request.submit, self.out[request.router], request.tokens
        rows = _cut(request.rows, submit.dimensions)
        if compares(submit, self.spec):
            rows = _cosines(rows, len(queries_of(submit)))
        vectors = Vectors(rows.astype("<f4", copy=False).tobytes(), rows.shape[1], [])
        vectors.tokens = [len(text.ids) for text in request.texts]
        out.append((RESULT, submit.key, submit.attempt, 0, 0, encode(vectors)))
        usage = tokens.to_bytes(_U32, "little") + bytes(3 * _U32)
        out.append((FINISH, submit.key, submit.attempt, 0, 0, usage))
        self._forget(request)
        self.tally.finish(request.router)
        if request.router != OWN:
            self.tally.begun.append(request.arrived_at)

    def _forget(self, request: OpenEmbed) -> None:
        del self._open[request.serial]
        del self._by_key[request.router, request.submit.key]
        self._batcher.cancel(request.serial)


def _cut(rows: NDArray[np.float32] | None, dimensions: int | None) -> NDArray[np.float32]:
    """The front of Matryoshka vectors is renormalised, as OpenAI's and vLLM's are."""
    assert rows is not None  # a request has at least one text
    if dimensions is None or dimensions == rows.shape[1]:
        return rows
    front = rows[:, :dimensions]
    norms = np.linalg.norm(front, axis=1, keepdims=True)
    return np.asarray(front / np.maximum(norms, np.finfo(np.float32).tiny), np.float32)


def _cosines(rows: NDArray[np.float32], queries: int) -> NDArray[np.float32]:
    """Of pairs: the queries come first, one for all texts or one for each."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    cosines = (units[:queries] * units[queries:]).sum(axis=1, keepdims=True)
    return np.asarray(np.clip(cosines, -1, 1), np.float32)
