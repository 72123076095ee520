"""HTTPS: clients, slow ones and strangers, a certificate that is renewed, files that are wrong."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import trustme
from server import Server, echo_toml

from smmf_core import tls
from smmf_core.config import ServerConfig

WAIT_S = 60.0
MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
SLOW = {"tokens": 10_000, "step_ms": 20}
RENEWED = "renewed.test"
ENCRYPTED = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAh7uT04VUVO6gICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEENgW12t6NFnLlayZE7J5F0wEgZDU
Fuu1sn3ydQZln/Y5YeecpqDZTZQzUNvvFvmHUFpp4OzI8SygVKQqvuJwvS7ssML+
IjQDjBqLkwhtEjckXp71hvKWcIbf+zTGTph53AVMW4WXU6DfNnKGz+KdzSxCkwqN
KRDknFFUsm1xzti+wCaAEpo4w2ydUG/B18fJrPnn5WNn6V+pja8GOIhKujOCwV0=
-----END ENCRYPTED PRIVATE KEY-----
"""  # its passphrase: test


class Authority:
    """Issues certificates for this machine into a folder."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.cert, self.key, self.ca = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca)
        self.issue()

    def issue(self, *names: str) -> None:
        leaf = self._authority.issue_cert("127.0.0.1", "localhost", *names)
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        self.cert.write_bytes(chain)
        leaf.private_key_pem.write_to_path(self.key)

    @property
    def trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context


class TlsServer(Server):
    """`settings`: further lines of [server]; `more`: what follows it."""

    def __init__(self, folder: Path, settings: str = "", more: str = "") -> None:
        self.authority = Authority(folder)
        (folder / "local-echo.toml").write_text(echo_toml())
        files = 'tls_cert = "cert.pem"\ntls_key = "key.pem"\n'
        (folder / "smmf.toml").write_text(f"[server]\nmax_body_mb = 1\n{files}{settings}{more}")
        super().__init__(folder)
        self.trust = self.authority.trust

    def connect(self, receive_bytes: int = 0) -> ssl.SSLSocket:
        assert self.trust is not None
        plain = socket.socket()
        if receive_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        plain.connect(("127.0.0.1", self.port))
        plain.settimeout(WAIT_S)
        return self.trust.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """Ends with an idle client, whose pool does not look at its connections: it is not waited for
    until drain_s is over."""
    started = TlsServer(tmp_path_factory.mktemp("tls"), more="[timeouts]\ndrain_s = 3600\n")
    started.start()
    yield started
    with started.connect() as idle:
        idle.sendall(request_bytes({"max_tokens": 2, "stream": True}))
        assert b"data: [DONE]" in read_all(idle)
        assert started.stop() == 0


def until(is_so: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < WAIT_S
        time.sleep(0.02)


def running(server: Server) -> float:
    return server.metrics().get('smmf_requests_running{model="echo"}', 0.0)


def request_bytes(body: dict[str, Any], *lines: str) -> bytes:
    content = json.dumps({"model": "echo", "messages": MESSAGES, **body}).encode()
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json"]
    head += [f"Content-Length: {len(content)}", *lines]
    return "\r\n".join([*head, "", ""]).encode() + content


def read_all(connection: ssl.SSLSocket, end: bytes = b"0\r\n\r\n") -> bytes:
    """Up to the last chunk, or the end of the connection."""
    received = bytearray()
    while not received.endswith(end) and (data := connection.recv(65536)):
        received += data
    return bytes(received)


def names(connection: ssl.SSLSocket) -> list[str]:
    found: Any = connection.getpeercert()
    return [str(value) for _, value in found["subjectAltName"]]


# --- clients ---


def test_the_official_client_streams_and_not(server: TlsServer) -> None:
    assert server.trust is not None
    with httpx.Client(verify=server.trust) as http:
        client = openai.OpenAI(base_url=server.base_url, api_key="none", http_client=http)
        ask: dict[str, Any] = {"model": "echo", "messages": MESSAGES}
        whole = client.chat.completions.create(**ask).choices[0].message.content
        stream = client.chat.completions.create(**ask, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == whole
    assert f"smmf: ready on https://127.0.0.1:{server.port}/v1 " in server.log.read_text()


def test_requests_share_a_connection(server: TlsServer) -> None:
    with server.connect() as connection:
        for _ in range(20):
            connection.sendall(request_bytes({"max_tokens": 2, "stream": True}))
            assert b"data: [DONE]" in read_all(connection)
        connection.sendall(request_bytes({"max_tokens": 2, "stream": True}) * 5)  # pipelined
        received = b""
        while received.count(b"data: [DONE]") < 5:
            received += read_all(connection)


def test_old_versions_are_refused_and_http_1_is_agreed_on(server: TlsServer) -> None:
    assert server.trust is not None
    with server.connect() as connection:
        assert connection.version() in ("TLSv1.2", "TLSv1.3")
    server.trust.set_alpn_protocols(["h2", "http/1.1"])
    with server.connect() as connection:
        assert connection.selected_alpn_protocol() == "http/1.1"
    old = server.authority.trust
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as plain,
    ):
        old.wrap_socket(plain, server_hostname="127.0.0.1")


def test_strangers_disturb_nobody(server: TlsServer) -> None:
    for words in (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01" + bytes(64), b""):
        with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as stranger:
            stranger.sendall(words)
            stranger.shutdown(socket.SHUT_WR)
            try:
                while stranger.recv(4096):
                    pass
            except ConnectionError:
                continue
    assert server.chat(max_tokens=2)[0] == 200


def test_a_refused_body_is_answered(server: TlsServer) -> None:
    body = {"messages": [{"role": "user", "content": "x" * (2 << 20)}]}
    with server.connect() as connection:
        connection.sendall(request_bytes(body)[: 1 << 16])
        head = connection.recv(65536)
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in head


# --- slow ones, and those that leave ---


def test_a_slow_reader_gets_everything(server: TlsServer) -> None:
    """First the kernel, the transport and the Router hold it."""
    tokens = 20_000
    echo = {"smmf_echo": {"tokens": tokens}, "max_tokens": tokens}
    with server.connect(receive_bytes=4096) as connection:
        connection.sendall(request_bytes({**echo, "stream": True}))
        first = connection.recv(1000)
        until(lambda: running(server) == 0)  # all has been generated
        everything = first + read_all(connection)
    with server.connect() as quick:
        quick.sendall(request_bytes({**echo, "stream": True}))
        assert contents(everything) == contents(read_all(quick))


def test_who_reads_nothing_is_cut_off(server: TlsServer) -> None:
    """The transport does not take more than its socket: so the Router notices."""
    name = 'smmf_cancelled_total{model="echo",reason="slow_client"}'
    before = server.metrics().get(name, 0.0)
    endless = {"smmf_echo": {"tokens": 30_000}, "max_tokens": 30_000, "n": 60, "stream": True}
    with server.connect(receive_bytes=4096) as connection:
        connection.sendall(request_bytes(endless))
        until(lambda: server.metrics().get(name, 0.0) > before)
    assert server.chat(max_tokens=2)[0] == 200


def contents(answer: bytes) -> str:
    """The words of all chunks; the stream must be whole."""
    body = answer.partition(b"\r\n\r\n")[2]
    data = bytearray()
    while body:
        size, _, body = body.partition(b"\r\n")
        data += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    events = [line.removeprefix(b"data: ") for line in data.splitlines() if line]
    assert events[-1] == b"[DONE]"
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    return "".join(delta.get("content") or "" for delta in deltas)


def leave_politely(connection: ssl.SSLSocket) -> None:
    connection.setblocking(False)
    with pytest.raises((ssl.SSLWantReadError, ssl.SSLError)):
        connection.unwrap()  # its close_notify, and no more


def leave(connection: ssl.SSLSocket) -> None:
    connection.close()


def leave_half(connection: ssl.SSLSocket) -> None:
    connection.shutdown(socket.SHUT_WR)


def leave_at_once(connection: ssl.SSLSocket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("leaves", [leave_politely, leave, leave_half, leave_at_once])
@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_gives_the_slot_back(
    server: TlsServer, leaves: Callable[[ssl.SSLSocket], None], stream: bool
) -> None:
    until(lambda: running(server) == 0)
    connection = server.connect()
    connection.sendall(request_bytes({"stream": stream, "smmf_echo": SLOW}))
    until(lambda: running(server) == 1)
    leaves(connection)
    until(lambda: running(server) == 0)
    connection.close()


def test_a_connection_that_is_to_close_closes(server: TlsServer) -> None:
    with server.connect() as connection:
        connection.sendall(request_bytes({"max_tokens": 2}, "Connection: close"))
        answer = read_all(connection, end=b"never")
    assert b'"finish_reason"' in answer


# --- another certificate ---


def test_a_new_certificate_is_for_new_connections(tmp_path: Path) -> None:
    server = TlsServer(tmp_path)
    server.start().wait_admin()
    try:
        router = server.pid_of("router")
        with server.connect() as former:
            former.sendall(request_bytes({"stream": True, "smmf_echo": SLOW}))
            assert former.recv(100)
            server.authority.issue(RENEWED)
            told = server.admin("POST", "/admin/v1/reload")["message"]
            assert told == "nothing has changed; the certificate is read again"
            until(lambda: _is_served(server))
            assert former.recv(100)
            assert RENEWED not in names(former)
        good = server.authority.cert.read_bytes()
        server.authority.cert.write_text("nothing")
        status, answer = server.ask_admin("POST", "/admin/v1/reload")
        assert status == 400
        assert f"[server] tls_cert: {server.authority.cert}" in answer["error"]["message"]
        assert _is_served(server)
        (tmp_path / "other.pem").write_bytes(good)
        config = tmp_path / "smmf.toml"
        config.write_text(config.read_text().replace("cert.pem", "other.pem"))
        server.admin("POST", "/admin/v1/reload")
        assert server.chat(max_tokens=2)[0] == 200
        assert server.pid_of("router") == router
    finally:
        assert server.stop() == 0


def _is_served(server: TlsServer) -> bool:
    with server.connect() as connection:
        return RENEWED in names(connection)


def test_the_admin_port_of_other_machines_has_tls_too(tmp_path: Path) -> None:
    """127.1 is this machine's address, too, but not in a form that is known to be."""
    server = TlsServer(tmp_path, 'admin_host = "127.1"\napi_keys = ["secret"]\n')
    server.start()
    try:
        url = f"https://127.0.0.1:{server.admin_port}"
        known = {"SSL_CERT_FILE": str(server.authority.ca), "SMMF_API_KEY": "secret"}

        def listing(**environment: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "smmf_core.cli.main", "list", "-q", "--url", url],
                env={**server.environment, **environment},
                capture_output=True,
                text=True,
                timeout=WAIT_S,
            )

        until(lambda: listing(**known).stdout == "echo\n")
        assert "SSL_CERT_FILE" in listing(SMMF_API_KEY="secret").stderr
        server.authority.issue(RENEWED)
        assert httpx.post(
            f"{url}/admin/v1/reload",
            headers={"authorization": "Bearer secret"},
            verify=server.authority.trust,
        ).is_success
        with (
            socket.create_connection(("127.0.0.1", server.admin_port)) as plain,
            server.authority.trust.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            assert RENEWED in names(connection)
    finally:
        assert server.stop() == 0


# --- files that are wrong ---


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pems"))


def problem(cert: Path | str, key: Path | str) -> str:
    config = ServerConfig(source="smmf.toml")
    config.server.tls_cert, config.server.tls_key = str(cert), str(key)
    found = tls.problems(config)
    assert all(p.file == "smmf.toml" and p.kind == "file" for p in found)
    return "; ".join(f"{p.key}: {p.message}" for p in found)


def test_what_is_wrong_with_the_files_is_named(authority: Authority, tmp_path: Path) -> None:
    cert, key, nothing = authority.cert, authority.key, tmp_path / "nothing"
    other = Authority(tmp_path).key
    text = tmp_path / "text.pem"
    text.write_text("words")
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_text(ENCRYPTED)
    assert problem(cert, key) == problem("", "") == ""
    assert problem(nothing, key).startswith(f"[server] tls_cert: cannot read {nothing}: No such")
    assert problem(cert, nothing).startswith(f"[server] tls_key: cannot read {nothing}: No such")
    assert problem(text, key) == f"[server] tls_cert: {text} holds no certificate in PEM form"
    assert problem(key, key) == f"[server] tls_cert: {key} holds no certificate in PEM form"
    assert problem(cert, text) == f"[server] tls_key: {text} holds no private key in PEM form"
    assert problem(cert, cert) == f"[server] tls_key: {cert} holds no private key in PEM form"
    assert problem(cert, "") == f"[server] tls_cert: {cert} holds no private key in PEM form"
    assert problem(cert, other).startswith(f"[server] tls_key: the key in {other} is not that of")
    assert "is encrypted" in problem(cert, encrypted)
    assert problem("", key) == "[server] tls_key: is given without tls_cert"


def test_key_and_certificate_in_one_file(authority: Authority, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(authority.key.read_bytes() + authority.cert.read_bytes())
    assert problem(both, "") == ""


def test_wrong_files_end_the_start_and_are_found_by_check(tmp_path: Path) -> None:
    server = TlsServer(tmp_path)
    shutil.copy(server.authority.cert, server.authority.key)
    server.start(wait=False)
    assert server.process is not None
    assert server.process.wait(WAIT_S) == 1
    said = f"[server] tls_key: {server.authority.key} holds no private key"
    assert said in server.log.read_text()
    checked = subprocess.run(
        [sys.executable, "-m", "smmf_core.cli.main", "check", str(tmp_path / "smmf.toml")],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert checked.returncode == 1
    assert said in checked.stderr
