"""The control socket's two ends over real sockets: whole messages, descriptors, reconnects."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from smmf_core.control_messages import (
    Drain,
    FromChild,
    Heartbeat,
    Hello,
    ModelEntry,
    ModelLoad,
    Registry,
    RouterReport,
    ToChild,
    Welcome,
)
from smmf_core.messages import PROTOCOL
from smmf_core.wire.control import (
    PACKET_BYTES,
    RETRY_S,
    Channel,
    ControlClient,
    ControlServer,
    heartbeat_packet,
    spec_digest,
)

Pair = tuple[Channel, Channel]


def hello() -> tuple[Hello, list[int]]:
    return Hello(PROTOCOL, "b", "worker", 3, 1, os.getpid(), "", "loading", []), []


def channel(sock: socket.socket, union: object) -> Channel:
    return Channel(sock, msgspec.msgpack.Decoder(union))


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The Controller's end and the child's."""
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ends = channel(a, FromChild), channel(b, ToChild)
    yield ends
    for end in ends:
        end.close()


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
def server(run_dir: Path) -> Iterator[ControlServer]:
    made = ControlServer(run_dir)
    yield made
    made.close()


def exchange(sender: Channel, receiver: Channel, count: int) -> list[object]:
    """Flush and receive in turns until `count` messages are there."""
    got: list[object] = []
    for _ in range(10_000):
        got += [message for message, _ in receiver.receive()]
        sender.flush()
        if len(got) == count and not sender.is_blocked:
            return got
    raise AssertionError(f"{len(got)} of {count}")


def test_a_registry_of_a_thousand_models_in_order_with_others(pair: Pair) -> None:
    controller, child = pair
    defaults = {"stop": ["x" * 50] * 40}
    models = [
        ModelEntry(i, f"m{i}", [], "generate", "echo", "ready", "", 0, 1, "rr", 0, 0, defaults, [])
        for i in range(1000)
    ]
    registry = Registry(7, models, [])
    assert len(msgspec.msgpack.encode(registry)) > 20 * PACKET_BYTES
    controller.send(Drain(1.0))
    controller.send(registry)
    controller.send(Drain(2.0))
    assert controller.is_blocked, "more than the kernel's buffer takes at once"
    assert exchange(controller, child, 3) == [Drain(1.0), registry, Drain(2.0)]


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_sizes_around_a_packet(pair: Pair, extra: int) -> None:
    controller, child = pair
    empty = len(msgspec.msgpack.encode(Welcome(1, b"x" * 1000))) - 1000
    welcome = Welcome(1, b"x" * (PACKET_BYTES - empty + extra))
    assert len(msgspec.msgpack.encode(welcome)) == PACKET_BYTES + extra
    controller.send(welcome)
    assert exchange(controller, child, 1) == [welcome]


def test_heartbeats_come_between_the_parts_of_a_message(pair: Pair) -> None:
    """The native thread sends on the Channel's socket without the Channel."""
    controller, child = pair
    reading, writing = os.pipe()
    loads = [ModelLoad(n, 0, 0, n) for n in range(200_000)]
    report = RouterReport(loads, [], 0, "ready", b"")
    child.send(report, [writing])
    assert child.is_blocked, "more than the kernel's buffer takes at once"
    beats = 0
    got: list[object] = []
    while report not in got:
        for message, fds in controller.receive():
            got.append(message)
            for fd in fds:
                os.close(fd)
        os.write(child.fd, heartbeat_packet())
        beats += 1
        child.flush()
    got += [message for message, _ in controller.receive()]
    assert got.count(Heartbeat()) == beats > 1
    assert len(got) == beats + 1
    os.close(reading)
    os.close(writing)


def test_descriptors_arrive_working_and_closed_on_exec(pair: Pair) -> None:
    controller, child = pair
    reading, writing = os.pipe()
    controller.send(Welcome(1, b""), [writing])
    os.close(writing)
    [(_, [received])] = child.receive()
    os.write(received, b"hi")
    assert os.read(reading, 10) == b"hi"
    assert not os.get_inheritable(received)
    os.close(received)
    os.close(reading)


def test_descriptors_of_a_message_that_waits_may_be_closed_at_once(pair: Pair) -> None:
    controller, child = pair
    reading, writing = os.pipe()
    while not controller.is_blocked:
        controller.send(Welcome(1, b"x" * PACKET_BYTES))
    controller.send(Welcome(2, b"y" * 3 * PACKET_BYTES), [writing])
    os.close(writing)
    last: list[int] = []
    while not last:
        last = [fd for _, fds in child.receive() for fd in fds]
        controller.flush()
    os.write(last[0], b"z")
    assert os.read(reading, 1) == b"z"
    os.close(last[0])
    os.close(reading)


def test_nothing_leaks_when_a_channel_closes_with_messages_waiting(pair: Pair) -> None:
    controller, child = pair
    before = open_fds()
    null = os.open(os.devnull, os.O_RDONLY)
    while not controller.is_blocked:
        controller.send(Welcome(1, b"x" * PACKET_BYTES))
    controller.send(Drain(1.0), [null])
    os.close(null)
    controller.close()
    child.close()
    assert open_fds() == before - 2


def test_end_of_file_comes_after_the_last_words(pair: Pair) -> None:
    controller, child = pair
    report = RouterReport([], [], 0, "ready", b"m")
    child.send(report)
    child.close()
    assert [message for message, _ in controller.receive()] == [report]
    assert controller.closed
    controller.send(Drain(1.0))  # to nobody: no error


def test_last_words_are_heard_also_of_one_that_did_not_listen(pair: Pair) -> None:
    """The kernel tells first that what was sent to it is lost."""
    controller, child = pair
    report = RouterReport([], [], 0, "ready", b"m")
    controller.send(Drain(1.0))
    child.send(report)
    child.close()
    assert [message for message, _ in controller.receive()] == [report]
    assert controller.closed


@pytest.mark.parametrize("junk", [b"\x00\xc1", b"\x00" + msgspec.msgpack.encode(["Nobody"])])
def test_a_malformed_message_ends_the_connection(junk: bytes) -> None:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    receiving = channel(a, FromChild)
    with b:
        b.send(junk)
        assert receiving.receive() == []
    assert receiving.closed


def test_a_client_says_hello_and_learns_its_spec(server: ControlServer, run_dir: Path) -> None:
    client = ControlClient(run_dir, hello)
    assert client.fd == -1
    assert client.connect(0.0)
    assert client.lost_since is None
    [accepted] = server.accept()
    assert accepted.peer() == (os.getpid(), os.geteuid())
    assert [message for message, _ in accepted.receive()] == [hello()[0]]
    accepted.send(Welcome(PROTOCOL, b"spec"))
    assert [message for message, _ in client.receive()] == [Welcome(PROTOCOL, b"spec")]
    assert client.spec_hash == spec_digest(b"spec")
    client.close()
    accepted.close()


def test_a_client_knows_since_when_it_is_alone(run_dir: Path) -> None:
    client = ControlClient(run_dir, hello)
    assert not client.connect(5.0)
    assert not client.connect(9.0)
    assert client.lost_since == 5.0
    server = ControlServer(run_dir)
    assert not client.connect(9.0 + RETRY_S / 2), "too soon after the last attempt"
    assert client.connect(9.0 + 2 * RETRY_S)
    assert client.lost_since is None
    [accepted] = server.accept()
    accepted.close()
    server.close()
    assert client.receive() == []
    assert client.fd == -1
    assert not client.send(hello()[0])
    assert not client.connect(20.0)
    assert client.lost_since == 20.0


def test_a_dead_controllers_socket_is_replaced(run_dir: Path) -> None:
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    dead.bind(str(run_dir / "control.sock"))
    dead.close()
    server = ControlServer(run_dir)
    client = ControlClient(run_dir, hello)
    assert client.connect(0.0)
    for accepted in server.accept():
        accepted.close()
    client.close()
    server.close()
    assert list(run_dir.iterdir()) == []


def test_a_full_socket_loses_reports_but_no_part_of_one(
    server: ControlServer, run_dir: Path
) -> None:
    client = ControlClient(run_dir, hello)
    client.connect(0.0)
    [accepted] = server.accept()
    report = RouterReport([], [], 0, "ready", b"m" * 3 * PACKET_BYTES)
    sent = sum(client.send(report) for _ in range(200))
    assert 0 < sent < 200
    got: list[object] = []
    for _ in range(sent * 4):
        got += [message for message, _ in accepted.receive()]
        client.send(report)
    assert len(got) > sent
    assert all(message == report for message in got[1:])
    client.close()
    accepted.close()


def union_names(union: Callable[..., object]) -> set[str]:
    return {kind.__name__ for kind in union.__args__}  # type: ignore[attr-defined]


def test_the_two_directions_have_no_message_in_common() -> None:
    assert not union_names(ToChild) & union_names(FromChild)
