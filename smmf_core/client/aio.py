"""The client library for asyncio: no thread, the event loop has the connections.

Owns the loop's readers and the waiting; must not know what answers hold.
"""
# ruff: noqa: ASYNC109

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, Self, Unpack, overload

from smmf_core.client import bodies
from smmf_core.client.base import ClientBase, StreamBase
from smmf_core.client.bodies import Messages, T, Wanted
from smmf_core.client.errors import Cancelled, Timeout
from smmf_core.client.exchange import Exchange, Part, whole
from smmf_core.client.link import Link
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


class Parts:
    """What has come for one request; one task waits for it."""

    __slots__ = ("_parts", "_waiter")

    def __init__(self) -> None:
        self._parts: deque[Part] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, part: Part) -> None:
        self._parts.append(part)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self, seconds: float) -> Part:
        """Raises TimeoutError."""
        if not self._parts:
            self._waiter = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(seconds):
                await self._waiter
        return self._parts.popleft()


class AsyncStream(StreamBase, AsyncIterator[Delta]):
    """The deltas of one answer; as a context manager it is cancelled at the end."""

    def __init__(
        self, client: AsyncClient, exchange: Exchange, parts: Parts, timeout: float
    ) -> None:
        self._client = client
        self._reading = Reading(client._driver, exchange)
        self._parts = parts
        self._timeout = timeout

    async def __anext__(self) -> Delta:
        """Raises Timeout when nothing new comes for the time-out, and any other ClientError."""
        while (delta := self._reading.next()) is None:
            if self._client._driver.has_notes:
                self._client._wake()
            if self._reading.is_over:
                raise StopAsyncIteration
            await self._take()
        return delta

    def cancel(self) -> None:
        """End it here: the server stops at once, iterating ends."""
        self._reading.cancel()
        self._parts.put(Cancelled("the stream was cancelled"))
        self._client._wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def __del__(self) -> None:
        if not self._reading.is_over:
            self._reading.cancel()
            self._client._wake_from_anywhere()

    async def _begin(self) -> Self:
        while not self._reading.has_begun:
            await self._take()
        return self

    async def _take(self) -> None:
        try:
            part = await self._parts.get(self._timeout)
        except TimeoutError:
            self.cancel()
            raise Timeout(f"nothing came for {self._timeout:g} s") from None
        except asyncio.CancelledError:
            self.cancel()
            raise
        if not self._reading.is_over:
            self._reading.take(part)


class AsyncClient(ClientBase):
    """As Client, in the event loop that first calls it. A call's task, cancelled, cancels it."""

    def _prepare(self) -> None:
        self._driver.on_close = self._unwatch
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: dict[Link, tuple[int, int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._turn_due = False

    @overload
    async def chat(
        self, messages: Messages, *, model: str,
        stream: Literal[False] = False, timeout: float | None = None,
        **options: Unpack[ChatOptions],
    ) -> Chat: ...  # fmt: skip
    @overload
    async def chat(
        self, messages: Messages, *, model: str,
        stream: Literal[True], timeout: float | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncStream: ...  # fmt: skip
    async def chat(
        self, messages: Messages, *, model: str,
        stream: bool = False, timeout: float | None = None,
        **options: Unpack[ChatOptions],
    ) -> Chat | AsyncStream:  # fmt: skip
        """`messages`: OpenAI's, or a user's text."""
        wanted = bodies.chat(model, messages, stream, options)
        if stream:
            return await self._stream(wanted, timeout)
        return await self._whole(wanted, timeout)

    @overload
    async def complete(
        self, prompt: str | Sequence[Any], *, model: str,
        stream: Literal[False] = False, timeout: float | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion: ...  # fmt: skip
    @overload
    async def complete(
        self, prompt: str | Sequence[Any], *, model: str,
        stream: Literal[True], timeout: float | None = None,
        **options: Unpack[CompletionOptions],
    ) -> AsyncStream: ...  # fmt: skip
    async def complete(
        self, prompt: str | Sequence[Any], *, model: str,
        stream: bool = False, timeout: float | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion | AsyncStream:  # fmt: skip
        wanted = bodies.complete(model, prompt, stream, options)
        if stream:
            return await self._stream(wanted, timeout)
        return await self._whole(wanted, timeout)

    async def embed(
        self, texts: str | Sequence[Any], *, model: str, timeout: float | None = None,
        **options: Unpack[EmbedOptions],
    ) -> Embeddings:  # fmt: skip
        """`texts`: one, or up to 2,048, or their token ids."""
        return await self._whole(bodies.embed(model, texts, options), timeout)

    async def rerank(
        self, query: str, documents: Sequence[str], *, model: str, timeout: float | None = None,
        **options: Unpack[RerankOptions],
    ) -> Ranking:  # fmt: skip
        return await self._whole(bodies.rerank(model, query, documents, options), timeout)

    async def score(
        self, queries: str | Sequence[str], texts: str | Sequence[str], *, model: str,
        timeout: float | None = None, **options: Unpack[ScoreOptions],
    ) -> Scores:  # fmt: skip
        """One query for all texts, or one for each."""
        return await self._whole(bodies.score(model, queries, texts, options), timeout)

    async def tokenize(
        self, text: Messages, *, model: str, timeout: float | None = None,
        **options: Unpack[TokenizeOptions],
    ) -> Tokens:  # fmt: skip
        """Of a text, or of a chat's messages with the model's template."""
        return await self._whole(bodies.tokenize(model, text, options), timeout)

    async def detokenize(
        self, tokens: Sequence[int], *, model: str, timeout: float | None = None,
        **options: Unpack[Options],
    ) -> str:  # fmt: skip
        return await self._whole(bodies.detokenize(model, tokens, options), timeout)

    async def models(self, *, timeout: float | None = None) -> list[Model]:
        """All models, whatever their state; then aliases and adapters."""
        return await self._whole(bodies.models(), timeout)

    async def close(self) -> None:
        """What is open is cancelled and raises Cancelled."""
        if not self._is_closed:
            self._is_closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- inside ---

    def _ask(self, wanted: Wanted[Any]) -> tuple[Exchange, Parts]:
        parts = Parts()
        exchange = self._exchange(wanted, parts.put)
        self._loop = self._loop or asyncio.get_running_loop()
        self._wake()
        return exchange, parts

    async def _whole(self, wanted: Wanted[T], timeout: float | None) -> T:
        seconds = self._seconds(timeout)
        exchange, parts = self._ask(wanted)
        try:
            part = await parts.get(seconds)
        except TimeoutError:
            raise Timeout(f"no answer within {seconds:g} s") from None
        finally:
            if not exchange.is_over:
                self._driver.stop(exchange)
                self._wake()
        return whole(part, wanted.decode)

    async def _stream(self, wanted: Wanted[Any], timeout: float | None) -> AsyncStream:
        exchange, parts = self._ask(wanted)
        seconds = self._seconds(timeout)
        return await AsyncStream(self, exchange, parts, seconds)._begin()

    def _wake(self) -> None:
        """Have a turn at the end of this loop iteration: one frame for all that was asked in it."""
        if not self._turn_due and self._loop is not None and not self._is_closed:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _wake_from_anywhere(self) -> None:
        """Where another thread may collect a stream, perhaps after the loop's end."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _turn(self) -> None:
        self._turn_due = False
        if self._is_closed:
            return
        assert self._loop is not None
        again = self._driver.turn(time.monotonic())
        for link in self._driver.links:
            if link not in self._watched:
                fds = self._watched[link] = link.fds
                for fd in fds:
                    self._loop.add_reader(fd, self._wake)
                self._wake()  # what came before it was watched
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if again is not None:
            self._timer = self._loop.call_later(max(0.0, again - time.monotonic()), self._wake)

    def _unwatch(self, link: Link) -> None:
        for fd in self._watched.pop(link, ()):
            if self._loop is not None and not self._loop.is_closed():
                self._loop.remove_reader(fd)
