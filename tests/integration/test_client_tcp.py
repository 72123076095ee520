"""The client library over TCP with CURVE: keys, several Routers, what is no server, coming back."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from server import Server, echo_toml, fresh_port

from smmf_core.client import (
    AsyncClient,
    Client,
    ConnectionLost,
    Protocol,
    Timeout,
    Unauthorized,
)
from smmf_core.client.driver import Driver
from smmf_core.client.exchange import Exchange, Part
from smmf_core.client.find import Endpoint
from smmf_core.lane_messages import Ask
from smmf_core.wire.curve import read_or_make

WAIT_S = 60.0
SLOW = {"tokens": 10_000, "step_ms": 20}
OTHER_KEY = "11" * 32
EXAMPLES = Path(__file__).parent.parent / "examples"


class TcpServer(Server):
    """`settings`: further lines of [server]."""

    def __init__(self, folder: Path, settings: str = "", *flags: str) -> None:
        self.zmq_port = fresh_port()
        (folder / "local-echo.toml").write_text(echo_toml())
        config = f"[server]\nzmq_port = {self.zmq_port}\n{settings}"
        (folder / "smmf.toml").write_text(config)
        self.key_file = folder / "state/smmf/default/client-port.key"
        super().__init__(folder, *flags)

    @property
    def bare_address(self) -> str:
        return f"tcp://127.0.0.1:{self.zmq_port}"

    @property
    def address(self) -> str:
        key = read_or_make(self.key_file, may_make=False)
        return f"{self.bare_address}?key={key.public.hex()}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TcpServer]:
    folder = tmp_path_factory.mktemp("tcp")
    for task in ("embed", "rerank"):
        text = echo_toml(task).replace('backend = "echo"', f'backend = "echo"\ntask = "{task}"')
        (folder / f"local-{task}.toml").write_text(text)
    started = TcpServer(folder, "", "--routers", "2")
    started.start().wait_admin()
    yield started
    assert started.stop() == 0


@pytest.fixture
def client(server: TcpServer) -> Iterator[Client]:
    with Client(server.address) as made:
        yield made


@contextmanager
def fresh(folder: Path, settings: str = "") -> Iterator[TcpServer]:
    server = TcpServer(folder, settings)
    try:
        yield server.start()
    finally:
        assert server.stop() == 0


def until(is_so: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < WAIT_S
        time.sleep(0.02)


def running(server: Server) -> float:
    return server.metrics().get('smmf_requests_running{model="echo"}', 0.0)


def refused_start(server: Server) -> str:
    """What a server that does not start says."""
    server.start(wait=False)
    assert server.process is not None
    assert server.process.wait(WAIT_S) != 0
    return server.log.read_text()


# --- answers ---


def test_answers_are_those_of_the_socket_on_this_machine(server: TcpServer, client: Client) -> None:
    with Client(f"ipc://{server.run_dir}") as near:
        for some in (client, near):
            assert "".join(d.text for d in some.chat("hi", model="echo", stream=True))
        assert client.chat("hi", model="echo").text == near.chat("hi", model="echo").text
        assert client.embed("a", model="embed").vectors == near.embed("a", model="embed").vectors
        pair = ("a", ["b", "a"])
        ranked = [some.rerank(*pair, model="rerank").results for some in (client, near)]
        assert ranked[0] == ranked[1]
        scored = [some.score(*pair, model="rerank").scores for some in (client, near)]
        assert scored[0] == scored[1]
        assert client.models() == near.models()


def test_async_and_a_key_from_the_environment(
    server: TcpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMMF_SERVER_KEY", server.address.partition("?key=")[2])

    async def ask() -> tuple[str, str]:
        async with AsyncClient(server.bare_address) as fast:
            stream = await fast.chat("hi", model="echo", stream=True)
            streamed = "".join([delta.text async for delta in stream])
            answers = [fast.chat("hi", model="echo") for _ in range(200)]
            texts = {answer.text for answer in await asyncio.gather(*answers)}
            assert len(texts) == 1
            return streamed, texts.pop()

    streamed, whole = asyncio.run(ask())
    assert streamed == whole


def test_each_router_has_its_share(server: TcpServer) -> None:
    """2 ** -15 that a kernel gives all connections to one of two."""
    clients = [Client(server.address, retries=0) for _ in range(16)]
    streams = [c.chat("x", model="echo", stream=True, smmf_echo=SLOW) for c in clients]
    os.kill(server.pid_of("router"), signal.SIGKILL)
    lost = threading.Event()

    def read(stream: Any) -> None:
        try:
            for _ in stream:
                if lost.is_set():
                    break
        except ConnectionLost:
            lost.set()

    with ThreadPoolExecutor(16) as threads:
        readers = [threads.submit(read, stream) for stream in streams]
        for reader in readers:
            reader.result(WAIT_S)
    assert lost.is_set()
    going = [stream for stream in streams if not stream._reading.is_over]
    assert going
    for one in clients:
        one.close()


def test_cancelled_and_timed_out_requests_give_their_slots_back(
    server: TcpServer, client: Client
) -> None:
    until(lambda: running(server) == 0)
    stream = client.chat("x", model="echo", stream=True, smmf_echo=SLOW)
    next(stream)
    until(lambda: running(server) == 1)
    stream.cancel()
    with pytest.raises(Timeout):
        client.chat("x", model="echo", timeout=0.2, smmf_echo=SLOW)
    until(lambda: running(server) == 0)


@pytest.mark.parametrize("over", ["tcp", "ipc"])
def test_the_examples_run(server: TcpServer, over: str) -> None:
    address = server.address if over == "tcp" else f"ipc://{server.run_dir}"
    chat = printed(server, "client_chat.py", address)
    assert chat["models"] == "echo, embed, rerank"
    assert chat["streamed"].startswith("the quick brown fox")
    assert int(chat["tokens"]) > 0
    assert chat["typed"] == "Bird"
    assert chat["there and back"] == "Name a bird and the number of its legs."
    assert chat["refused"] == "model_not_found"
    many = printed(server, "client_async.py", address)
    assert (many["answers"], many["cancelled"]) == ("20", "[]")


def printed(server: Server, name: str, address: str) -> dict[str, str]:
    """The lines of an example by what stands before their colon."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), address],
        env={**server.environment, "MODEL": "echo"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


# --- keys ---


def test_a_wrong_server_key_is_told_before_the_time_is_out(server: TcpServer) -> None:
    with Client(server.bare_address, server_key=OTHER_KEY, connect_timeout=WAIT_S) as wrong:
        began = time.monotonic()
        with pytest.raises(Protocol, match="no smmf server with the key"):
            wrong.models()
        assert time.monotonic() - began < WAIT_S
        with pytest.raises(Protocol):
            wrong.chat("hi", model="echo", stream=True)


def test_the_key_is_told(server: TcpServer) -> None:
    assert server.key_file.stat().st_mode & 0o777 == 0o600
    assert server.admin("GET", "/admin/v1/health")["client_address"] == server.address
    assert f"smmf: client library on {server.address}\n" in server.log.read_text()
    told = subprocess.run(
        [sys.executable, "-m", "smmf_core.cli.main", "doctor"],
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    ).stdout
    assert server.address.partition("?key=")[2] in told


def test_a_key_file_of_ones_own_and_an_api_key_as_over_http(tmp_path: Path) -> None:
    file = tmp_path / "own.key"
    file.write_text(f"{OTHER_KEY}\n")
    file.chmod(0o644)
    server = TcpServer(tmp_path, 'zmq_key = "own.key"\napi_keys = ["secret"]\n')
    assert "others may read" in refused_start(server)
    file.chmod(0o600)
    server.key_file = file
    server.start()
    with Client(server.address, api_key="") as nobody, pytest.raises(Unauthorized):
        nobody.models()
    with Client(server.address, api_key="secret") as known:
        assert known.chat("hi", model="echo").text
    assert server.stop() == 0


@pytest.mark.parametrize("text", [None, "", "abc", "zz" * 32])
def test_a_broken_key_file_is_an_error_at_the_start(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "own.key").write_text(text)
        (tmp_path / "own.key").chmod(0o600)
    said = refused_start(TcpServer(tmp_path, 'zmq_key = "own.key"\n'))
    assert "[server] zmq_key" in said
    assert str(tmp_path / "own.key") in said


def test_other_machines_need_api_keys(tmp_path: Path) -> None:
    said = refused_start(TcpServer(tmp_path, 'zmq_host = "0.0.0.0"\n'))
    assert "[server] zmq_host 0.0.0.0" in said


def test_a_port_in_use_is_an_error(tmp_path: Path) -> None:
    server = TcpServer(tmp_path)
    with socket.create_server(("127.0.0.1", server.zmq_port)):
        assert f"port {server.zmq_port} on 127.0.0.1 is in use" in refused_start(server)


# --- who speaks something else ---


def answering(words: bytes) -> tuple[socket.socket, str]:
    """A port that says so much to everybody and closes; without words it only listens."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(words)

    if words:
        threading.Thread(target=run, daemon=True).start()
    return listener, f"tcp://127.0.0.1:{listener.getsockname()[1]}?key={OTHER_KEY}"


def test_a_port_that_speaks_something_else(tmp_path: Path) -> None:
    listener, address = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    client = Client(address, connect_timeout=WAIT_S)
    with client, pytest.raises(Protocol, match="no smmf server"):
        client.models()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_port_that_says_nothing(tmp_path: Path) -> None:
    listener, address = answering(b"")
    client = Client(address, connect_timeout=0.3)
    with listener, client, pytest.raises(ConnectionLost, match="no server answers"):
        client.models()


def test_a_port_where_nobody_listens_is_tried_in_intervals() -> None:
    """Each try is a socket: without a pause between them a process has none left after seconds."""
    asked: list[Endpoint] = []
    parts: list[Part] = []

    class Nowhere:
        def endpoint(self) -> Endpoint:
            asked.append(Endpoint(f"tcp://127.0.0.1:{fresh_port()}", bytes.fromhex(OTHER_KEY)))
            return asked[-1]

    driver = Driver(Nowhere())
    driver.ask(Exchange(Ask(1, "/v1/models", b"", ""), parts.append, (10.0, 2)))
    for now in (100.0, 101.0, 102.0):
        assert driver.turn(now) is not None
        assert driver.links[0].monitor.poll(WAIT_S * 1000)  # refused
        for _ in range(3):
            assert driver.turn(now) == pytest.approx(now + 0.05)
            assert not driver.links
    assert len(asked) == 3
    driver.turn(200.0)
    assert isinstance(parts[0], ConnectionLost)
    driver.close()


def test_strangers_on_the_port_disturb_nobody(server: TcpServer, client: Client) -> None:
    context: zmq.Context[Any] = zmq.Context()
    plain = context.socket(zmq.DEALER)  # without CURVE
    plain.connect(server.bare_address)
    plain.send(b"\x90")
    for junk in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"\xff" + bytes(9) + b"\x7f"):
        with socket.create_connection(("127.0.0.1", server.zmq_port)) as stranger:
            stranger.sendall(junk)
    assert client.chat("hi", model="echo").text
    assert not plain.poll(0)
    plain.close(linger=0)
    context.term()


# --- servers that go and come ---


def test_routers_controllers_and_servers_that_come_back_are_found(tmp_path: Path) -> None:
    """The port outlives them: a Router that is killed has given it back to the next Controller."""
    with fresh(tmp_path) as server, Client(server.address, connect_timeout=WAIT_S) as client:
        expected = client.chat("hi", model="echo").text
        stream = client.chat("x", model="echo", stream=True, smmf_echo=SLOW)
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        next(stream)
        server.start().wait_admin()
        next(stream)
        os.kill(server.pid_of("router"), signal.SIGKILL)
        with pytest.raises(ConnectionLost):
            list(stream)
        assert client.chat("hi", model="echo").text == expected
        assert server.stop() == 0
        with Client(server.address, connect_timeout=0.2) as late, pytest.raises(ConnectionLost):
            late.models()
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(client.chat, "hi", model="echo")
            server.start()  # with the same key
            assert answer.result(WAIT_S).text == expected


def test_clients_of_a_router_that_drains_go_to_another(server: TcpServer) -> None:
    clients = [Client(server.address) for _ in range(8)]
    for client in clients:
        assert client.models()
    os.kill(server.pid_of("router"), signal.SIGTERM)
    for client in clients:
        for _ in range(20):
            assert client.chat("hi", model="echo", max_tokens=2).text
        client.close()
