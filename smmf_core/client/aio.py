"""The client library for asyncio: no thread, the event loop has the connections.

Owns the loop's readers and the waiting; must not know what answers hold.
"""
# ruff: noqa: ASYNC109

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, Self, overload

from smmf_core.client import bodies
from smmf_core.client.bodies import Wanted
from smmf_core.client.driver import Driver
from smmf_core.client.errors import Cancelled, Timeout
from smmf_core.client.exchange import Exchange, Part, whole
from smmf_core.client.find import check_address, default_address
from smmf_core.client.link import Link
from smmf_core.client.reading import Reading
from smmf_core.client.types import Chat, Completion, Delta, Embeddings, Model, Ranking, Usage
from smmf_core.lane_messages import Ask


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


class AsyncStream(AsyncIterator[Delta]):
    """The deltas of one answer; as a context manager it is cancelled at the end."""

    def __init__(
        self, client: AsyncClient, exchange: Exchange, parts: Parts, timeout: float
    ) -> None:
        self._client = client
        self._reading = Reading(client._driver, exchange)
        self._parts = parts
        self._timeout = timeout

    @property
    def request_id(self) -> str:
        return self._reading.request_id

    @property
    def instance(self) -> str:
        """Which replica answers."""
        return self._reading.instance

    @property
    def usage(self) -> Usage | None:
        """Once the stream has been read to its end."""
        return self._reading.usage

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


class AsyncClient:
    """As Client, in the event loop that first calls it. A call's task, cancelled, cancels it."""

    def __init__(
        self,
        address: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 600.0,
        connect_timeout: float = 10.0,
        retries: int = 2,
    ) -> None:
        self._driver = Driver(check_address(address or default_address()))
        self._driver.on_close = self._unwatch
        self._key = api_key if api_key is not None else os.environ.get("SMMF_API_KEY", "")
        self._timeout = timeout
        self._patience = connect_timeout, retries
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: dict[Link, tuple[int, int]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._turn_due = False
        self._is_closed = False

    @overload
    async def chat(
        self, messages: str | Sequence[dict[str, Any]], *, model: str,
        stream: Literal[False] = False, timeout: float | None = None, **options: Any,
    ) -> Chat: ...  # fmt: skip
    @overload
    async def chat(
        self, messages: str | Sequence[dict[str, Any]], *, model: str,
        stream: Literal[True], timeout: float | None = None, **options: Any,
    ) -> AsyncStream: ...  # fmt: skip
    async def chat(
        self, messages: str | Sequence[dict[str, Any]], *, model: str,
        stream: bool = False, timeout: float | None = None, **options: Any,
    ) -> Chat | AsyncStream:  # fmt: skip
        """`messages`: OpenAI's, or a user's text. `options`: any field of /v1/chat/completions."""
        wanted = bodies.chat(model, messages, stream, options)
        return await (self._stream(wanted, timeout) if stream else self._whole(wanted, timeout))

    @overload
    async def complete(
        self, prompt: str | Sequence[Any], *, model: str,
        stream: Literal[False] = False, timeout: float | None = None, **options: Any,
    ) -> Completion: ...  # fmt: skip
    @overload
    async def complete(
        self, prompt: str | Sequence[Any], *, model: str,
        stream: Literal[True], timeout: float | None = None, **options: Any,
    ) -> AsyncStream: ...  # fmt: skip
    async def complete(
        self, prompt: str | Sequence[Any], *, model: str,
        stream: bool = False, timeout: float | None = None, **options: Any,
    ) -> Completion | AsyncStream:  # fmt: skip
        """`options`: any field of /v1/completions."""
        wanted = bodies.complete(model, prompt, stream, options)
        return await (self._stream(wanted, timeout) if stream else self._whole(wanted, timeout))

    async def embed(
        self,
        texts: str | Sequence[Any],
        *,
        model: str,
        timeout: float | None = None,
        **options: Any,
    ) -> Embeddings:
        """`options`: any field of /v1/embeddings but the encoding."""
        answer: Embeddings = await self._whole(bodies.embed(model, texts, options), timeout)
        return answer

    async def rerank(
        self, query: str, documents: Sequence[str], *, model: str, timeout: float | None = None,
        **options: Any,
    ) -> Ranking:  # fmt: skip
        """`options`: any field of /v1/rerank."""
        wanted = bodies.rerank(model, query, documents, options)
        answer: Ranking = await self._whole(wanted, timeout)
        return answer

    async def models(self, *, timeout: float | None = None) -> list[Model]:
        """All models, whatever their state; then aliases and adapters."""
        answer: list[Model] = await self._whole(bodies.models(), timeout)
        return answer

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

    def _ask(self, wanted: Wanted) -> tuple[Exchange, Parts]:
        if self._is_closed:
            raise Cancelled("the client is closed")
        self._loop = self._loop or asyncio.get_running_loop()
        parts = Parts()
        ask = Ask(self._driver.next_id(), wanted.path, wanted.body, self._key)
        exchange = Exchange(ask, parts.put, self._patience)
        self._driver.ask(exchange)
        self._wake()
        return exchange, parts

    async def _whole(self, wanted: Wanted, timeout: float | None) -> Any:
        seconds = self._timeout if timeout is None else timeout
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

    async def _stream(self, wanted: Wanted, timeout: float | None) -> AsyncStream:
        exchange, parts = self._ask(wanted)
        seconds = self._timeout if timeout is None else timeout
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
