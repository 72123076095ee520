"""The client library for code that blocks. One background thread has the connections; calls may
come from any thread.

Owns the thread and the waiting; must not know what answers hold.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self, Unpack, overload

import zmq

from smmf_core.client import bodies
from smmf_core.client.base import ClientBase, StreamBase
from smmf_core.client.bodies import Messages, T, Wanted
from smmf_core.client.errors import Cancelled, Timeout
from smmf_core.client.exchange import Exchange, Part, whole
from smmf_core.client.options import (
    ChatOptions,
    CompletionOptions,
    EmbedOptions,
    Options,
    RerankOptions,
    ScoreOptions,
    TokenizeOptions,
)
from smmf_core.client.reading import Reading
from smmf_core.client.types import (
    Chat,
    Completion,
    Delta,
    Embeddings,
    Model,
    Ranking,
    Scores,
    Tokens,
)

Parts = queue.SimpleQueue[Part]


class Stream(StreamBase, Iterator[Delta]):
    """The deltas of one answer; as a context manager it is cancelled at the end."""

    def __init__(self, client: Client, exchange: Exchange, parts: Parts, timeout: float) -> None:
        self._client = client
        self._reading = Reading(client._driver, exchange)
        self._parts = parts
        self._timeout = timeout
        while not self._reading.has_begun:
            self._take()

    def __next__(self) -> Delta:
        """Raises Timeout when nothing new comes for the time-out, and any other ClientError."""
        while (delta := self._next()) is None:
            if self._reading.is_over:
                raise StopIteration
            self._take()
        return delta

    def cancel(self) -> None:
        """End it here: the server stops at once, iterating ends. May be called by any thread."""
        self._reading.cancel()
        self._parts.put(Cancelled("the stream was cancelled"))
        self._client._wake()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        if hasattr(self, "_reading") and not self._reading.is_over:
            self.cancel()

    def _next(self) -> Delta | None:
        delta = self._reading.next()
        if delta is None:
            self._client._wake_for_notes()
        return delta

    def _take(self) -> None:
        try:
            part = self._parts.get(timeout=self._timeout)
        except queue.Empty:
            self.cancel()
            raise Timeout(f"nothing came for {self._timeout:g} s") from None
        if not self._reading.is_over:
            self._reading.take(part)


class Client(ClientBase):
    """For code that blocks; may be used by many threads. See ClientBase for how it is made."""

    def _prepare(self) -> None:
        self._bell, self._ring = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._ring, False)
        self._lock = threading.RLock()  # of the bell; again, where a stream is collected meanwhile
        self._thread = threading.Thread(target=self._run, name="smmf-client", daemon=True)
        self._thread.start()

    @overload
    def chat(
        self, messages: Messages, *, model: str,
        stream: Literal[False] = False, timeout: float | None = None,
        **options: Unpack[ChatOptions],
    ) -> Chat: ...  # fmt: skip
    @overload
    def chat(
        self, messages: Messages, *, model: str,
        stream: Literal[True], timeout: float | None = None,
        **options: Unpack[ChatOptions],
    ) -> Stream: ...  # fmt: skip
    def chat(
        self, messages: Messages, *, model: str,
        stream: bool = False, timeout: float | None = None,
        **options: Unpack[ChatOptions],
    ) -> Chat | Stream:  # fmt: skip
        """`messages`: OpenAI's, or a user's text."""
        wanted = bodies.chat(model, messages, stream, options)
        return self._stream(wanted, timeout) if stream else self._whole(wanted, timeout)

    @overload
    def complete(
        self, prompt: str | Sequence[Any], *, model: str,
        stream: Literal[False] = False, timeout: float | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion: ...  # fmt: skip
    @overload
    def complete(
        self, prompt: str | Sequence[Any], *, model: str,
        stream: Literal[True], timeout: float | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Stream: ...  # fmt: skip
    def complete(
        self, prompt: str | Sequence[Any], *, model: str,
        stream: bool = False, timeout: float | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion | Stream:  # fmt: skip
        wanted = bodies.complete(model, prompt, stream, options)
        return self._stream(wanted, timeout) if stream else self._whole(wanted, timeout)

    def embed(
        self, texts: str | Sequence[Any], *, model: str, timeout: float | None = None,
        **options: Unpack[EmbedOptions],
    ) -> Embeddings:  # fmt: skip
        """`texts`: one, or up to 2,048, or their token ids."""
        return self._whole(bodies.embed(model, texts, options), timeout)

    def rerank(
        self, query: str, documents: Sequence[str], *, model: str, timeout: float | None = None,
        **options: Unpack[RerankOptions],
    ) -> Ranking:  # fmt: skip
        return self._whole(bodies.rerank(model, query, documents, options), timeout)

    def score(
        self, queries: str | Sequence[str], texts: str | Sequence[str], *, model: str,
        timeout: float | None = None, **options: Unpack[ScoreOptions],
    ) -> Scores:  # fmt: skip
        """One query for all texts, or one for each."""
        return self._whole(bodies.score(model, queries, texts, options), timeout)

    def tokenize(
        self, text: Messages, *, model: str, timeout: float | None = None,
        **options: Unpack[TokenizeOptions],
    ) -> Tokens:  # fmt: skip
        """Of a text, or of a chat's messages with the model's template."""
        return self._whole(bodies.tokenize(model, text, options), timeout)

    def detokenize(
        self, tokens: Sequence[int], *, model: str, timeout: float | None = None,
        **options: Unpack[Options],
    ) -> str:  # fmt: skip
        return self._whole(bodies.detokenize(model, tokens, options), timeout)

    def models(self, *, timeout: float | None = None) -> list[Model]:
        """All models, whatever their state; then aliases and adapters."""
        return self._whole(bodies.models(), timeout)

    def close(self) -> None:
        """What is open is cancelled and raises Cancelled."""
        if not self._is_closed:
            self._is_closed = True
            self._wake()
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside ---

    def _ask(self, wanted: Wanted[Any]) -> tuple[Exchange, Parts]:
        parts: Parts = queue.SimpleQueue()
        exchange = self._exchange(wanted, parts.put)
        self._wake()
        if self._is_closed:  # meanwhile
            raise Cancelled("the client is closed")
        return exchange, parts

    def _whole(self, wanted: Wanted[T], timeout: float | None) -> T:
        seconds = self._seconds(timeout)
        exchange, parts = self._ask(wanted)
        try:
            part = parts.get(timeout=seconds)
        except queue.Empty:
            raise Timeout(f"no answer within {seconds:g} s") from None
        finally:
            if not exchange.is_over:  # also when interrupted
                self._driver.stop(exchange)
                self._wake()
        return whole(part, wanted.decode)

    def _stream(self, wanted: Wanted[Any], timeout: float | None) -> Stream:
        exchange, parts = self._ask(wanted)
        return Stream(self, exchange, parts, self._seconds(timeout))

    def _wake_for_notes(self) -> None:
        if self._driver.has_notes:
            self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._ring >= 0:
                try:
                    os.write(self._ring, b"\0")
                except BlockingIOError:
                    return  # it is awake

    def _run(self) -> None:
        """The thread: turns, until closed."""
        try:
            while not self._is_closed:
                again = self._driver.turn(time.monotonic())
                self._wait(None if again is None else max(0.0, again - time.monotonic()))
        finally:
            self._is_closed = True
            self._driver.close()
            with self._lock:
                os.close(self._bell)
                os.close(self._ring)
                self._ring = -1

    def _wait(self, seconds: float | None) -> None:
        poller = zmq.Poller()
        poller.register(self._bell, zmq.POLLIN)
        for link in self._driver.links:
            poller.register(link.socket, zmq.POLLIN)
            poller.register(link.monitor, zmq.POLLIN)
        ready = dict(poller.poll(None if seconds is None else int(seconds * 1000) + 1))
        if self._bell in ready:
            os.read(self._bell, 4096)
