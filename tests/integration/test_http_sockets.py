"""The HTTP connection on real sockets and uvloop, in one process and one thread."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from http_app import JSON, App, Response, answer, chunked, parse_response, raw

from smmf_core.http.protocol import HttpProtocol, Limits, Request, ServerState

WAIT_S = 10.0  # for what happens at once on an idle machine


class SocketApp(App):
    """Adds /large (one write the socket cannot take) and /native (bytes straight to the socket)."""

    def on_request(self, request: Request) -> None:
        if request.path == "/large":
            self.requests.append(request)
            request.respond(200, JSON, bytes(32 << 20))
        elif request.path == "/native":
            self.requests.append(request)
            request.begin_stream()
            os.write(request.fileno, request.head(200, b""))
            os.write(request.fileno, chunked(b"straight to the socket"))
            request.end_stream(False)
        else:
            super().on_request(request)


class Site:
    """A listening socket with its application."""

    def __init__(self, limits: Limits) -> None:
        self.app = SocketApp()
        self.state = ServerState(time.monotonic)
        self.limits = limits
        self.port = 0

    def make(self) -> HttpProtocol:
        return HttpProtocol(self.app, self.limits, self.state)

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        return Client(reader, writer)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - any condition, no event to wait for
                await asyncio.sleep(0.005)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """All until the server closes."""
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read()

    async def response(self) -> Response:
        async with asyncio.timeout(WAIT_S):
            data = await self.reader.readuntil(b"\r\n\r\n")
            length = int(data.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            data += await self.reader.readexactly(length)
        return parse_response(data)[0]

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@asynccontextmanager
async def site(limits: Limits | None = None) -> AsyncIterator[Site]:
    served = Site(limits or Limits())
    server = await asyncio.get_running_loop().create_server(served.make, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for connection in list(served.state.connections):
            connection.abort()
        await served.until(lambda: not served.state.connections)
        await server.wait_closed()


Scenario = Callable[[Site, Client], Awaitable[None]]


def run(scenario: Scenario, limits: Limits | None = None) -> None:
    async def main() -> None:
        async with site(limits) as served:
            client = await served.connect()
            await scenario(served, client)
            await client.close()

    uvloop.run(_quick(main()))


async def _quick(coroutine: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(60):
        await coroutine


def test_keep_alive_and_bytes_one_by_one() -> None:
    async def scenario(served: Site, client: Client) -> None:
        for byte in raw("POST", "/1", b"ab"):
            await client.send(bytes([byte]))
        assert (await client.response()).json["body"] == "ab"
        await client.send(raw("GET", "/2") + raw("GET", "/3", Connection="close"))
        assert (await client.response()).json["path"] == "/2"
        assert (await client.response()).json["path"] == "/3"
        assert await client.rest() == b""

    run(scenario)


def test_standard_library_client() -> None:
    async def scenario(served: Site, client: Client) -> None:
        def talk() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=WAIT_S)
            for body in (b"x", iter([b"a", b"bc"])):
                connection.request("POST", "/x", body)
                response = connection.getresponse()
                assert response.status == 200
                response.read()
            connection.request("HEAD", "/x")
            assert connection.getresponse().read() == b""
            connection.request("GET", "/native")
            assert connection.getresponse().read() == b"straight to the socket"
            connection.close()

        await asyncio.get_running_loop().run_in_executor(None, talk)
        assert [r.body for r in served.app.requests] == [b"x", b"abc", b"", b""]

    run(scenario)


def test_a_write_reaches_the_socket_before_the_turn_ends() -> None:
    """What native streams rely on: nothing waits in the transport unless the protocol is paused."""

    async def scenario(served: Site, client: Client) -> None:
        served.app.waits = True
        with socket.create_connection(("127.0.0.1", served.port)) as peer:
            peer.sendall(raw())
            await served.until(lambda: served.app.requests)
            (request,) = served.app.requests
            request.write_raw(b"now")
            peer.setblocking(False)
            assert peer.recv(10) == b"now"
            assert not request.is_paused
            request.write_raw(bytes(32 << 20))
            assert request.is_paused
            peer.settimeout(WAIT_S)

            def read_all() -> None:
                left = 32 << 20
                while left:
                    left -= len(peer.recv(1 << 20))

            await asyncio.get_running_loop().run_in_executor(None, read_all)
            await served.until(lambda: served.app.writable)
            assert not request.is_paused

    run(scenario)


def test_no_delay() -> None:
    async def scenario(served: Site, client: Client) -> None:
        await served.until(lambda: served.state.connections)
        (connection,) = served.state.connections
        with socket.socket(fileno=os.dup(connection.fileno)) as copy:
            assert copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(scenario)


def test_native_and_buffered_responses_keep_their_order() -> None:
    async def scenario(served: Site, client: Client) -> None:
        await client.send(raw("GET", "/large") + raw("GET", "/native", Connection="close"))
        await served.until(lambda: served.app.requests)
        await asyncio.sleep(0.05)
        assert len(served.app.requests) == 1
        data = await client.rest()
        large, data = parse_response(data)
        native, data = parse_response(data)
        assert large.body == bytes(32 << 20)
        assert native.body == b"straight to the socket"
        assert data == b""

    run(scenario)


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_client_that_goes_away_is_noticed_at_once(is_reset: bool) -> None:
    async def scenario(served: Site, client: Client) -> None:
        served.app.waits = True
        await client.send(raw("GET", "/1"))
        await served.until(lambda: served.app.requests)
        if is_reset:
            client.writer.transport.abort()
        else:
            client.writer.write_eof()
        await served.until(lambda: served.app.gone)
        await served.until(lambda: not served.state.connections)
        answer(served.app.requests[0])
        assert served.app.gone == served.app.requests

    run(scenario)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        raw("POST", "/", Content_Length="100000") + b"abc",
        raw("POST", "/", b"5\r\nab", transfer_encoding="chunked"),
        raw("GET", "/1") + raw("GET", "/2"),
    ],
)
def test_a_reset_at_any_point_leaves_nothing(sent: bytes) -> None:
    async def scenario(served: Site, client: Client) -> None:
        served.app.waits = True
        with socket.create_connection(("127.0.0.1", served.port)) as peer:
            peer.sendall(sent)
            await served.until(lambda: len(served.state.connections) == 2)
            if b"GET /1" in sent:
                await served.until(lambda: served.app.requests)
            now = struct.pack("ii", 1, 0)  # close() sends RST
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
        await served.until(lambda: len(served.state.connections) == 1)
        assert served.app.gone == served.app.requests
        assert [r.path for r in served.app.gone] == (["/1"] if b"GET /1" in sent else [])
        served.app.waits = False
        await client.send(raw())  # the others go on
        assert (await client.response()).status == 200

    run(scenario)


def test_a_slow_reader_holds_up_nobody_and_no_more_than_one_write() -> None:
    async def scenario(served: Site, client: Client) -> None:
        served.app.waits = True
        with socket.create_connection(("127.0.0.1", served.port)) as peer:
            peer.sendall(raw())
            await served.until(lambda: served.app.requests)
            request = served.app.requests.pop()
            request.begin_stream()
            part = bytes(1 << 16)
            written = 0
            while not request.is_paused:
                request.write_raw(part)
                written += len(part)
            served.app.waits = False
            await client.send(raw("GET", "/other"))
            assert (await client.response()).json["path"] == "/other"
            peer.settimeout(WAIT_S)
            loop = asyncio.get_running_loop()
            for _ in range(3):  # pause and resume, again and again
                left = written
                while left:
                    left -= len(await loop.run_in_executor(None, peer.recv, left))
                await served.until(lambda: not request.is_paused)
                written = 0
                while not request.is_paused:
                    request.write_raw(part)
                    written += len(part)
            assert len(served.app.writable) == 3
            assert served.app.gone == []

    run(scenario)


def test_a_client_that_goes_away_with_unread_bytes() -> None:
    async def scenario(served: Site, client: Client) -> None:
        served.app.waits = True
        peer = socket.create_connection(("127.0.0.1", served.port))
        peer.sendall(raw("GET", "/1"))
        await served.until(lambda: served.app.requests)
        served.app.requests[0].write_raw(bytes(32 << 20))
        peer.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.05)
        served.state.sweep(time.monotonic() + 3)
        await served.until(lambda: served.app.gone)
        peer.close()

    run(scenario)


def test_a_refused_upload_still_reads_its_answer() -> None:
    async def scenario(served: Site, client: Client) -> None:
        head = raw("POST", "/", Content_Length=str(1 << 26))
        await client.send(head)
        await client.send(bytes(1 << 22))
        data = await client.rest()
        response, rest = parse_response(data)
        assert response.status == 413
        assert response.headers["connection"] == "close"
        assert rest == b""

    run(scenario, Limits(body_bytes=1 << 20))


def test_slow_headers() -> None:
    async def scenario(served: Site, client: Client) -> None:
        await client.send(b"GET / HT")
        await served.until(
            lambda: any(c.deadline < time.monotonic() for c in served.state.connections)
        )
        served.state.sweep(time.monotonic())
        assert parse_response(await client.rest())[0].status == 408

    run(scenario, Limits(header_timeout_s=0.05))


def test_drain() -> None:
    async def scenario(served: Site, client: Client) -> None:
        idle = await served.connect()
        served.app.waits = True
        await client.send(raw())
        await served.until(lambda: served.app.requests and len(served.state.connections) == 2)
        served.state.begin_drain()
        assert await idle.rest() == b""
        await idle.close()
        answer(served.app.requests[0])
        assert parse_response(await client.rest())[0].headers["connection"] == "close"
        await served.until(lambda: not served.state.connections)

    run(scenario)


def test_hundreds_of_connections() -> None:
    async def scenario(served: Site, client: Client) -> None:
        clients = [await served.connect() for _ in range(300)]
        for number, each in enumerate(clients):
            await each.send(raw("GET", f"/{number}"))
        for number, each in enumerate(clients):
            assert (await each.response()).json["path"] == f"/{number}"
            await each.close()
        await served.until(lambda: len(served.state.connections) == 1)

    run(scenario)
