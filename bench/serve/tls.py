"""What HTTPS costs the server: CPU per token of paced streams, per whole answer, per connection.

The same requests by the same load generator, to one server with and to one without a certificate.
With TLS bytes pass Python's transport instead of the native send.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

import trustme

from bench.serve.asking import chat, closed, echo, errors, measure
from bench.serve.contestants import Smmf

_CLIENTS, _TOKENS, _ROUNDS = 128, 160, 3
_CONNECTIONS = 300


def tls() -> dict[str, Any]:
    """128 paced streams, 16 clients' whole answers, 300 handshakes."""
    figures: dict[str, Any] = {"streams": _CLIENTS}
    with tempfile.TemporaryDirectory(prefix="smmf-bench-") as folder:
        figures |= _measured("http", [], None)
        figures |= _measured("https", *_certificate(Path(folder)))
    return figures


def _measured(name: str, flags: list[str], trust: ssl.SSLContext | None) -> dict[str, float]:
    figures = {}
    server = Smmf({"echo": echo(tokens=_TOKENS, step_ms=5)}, *flags, trust=trust)
    try:
        figures[f"{name}_us_per_token"] = _per_token(server)
        figures[f"{name}_us_per_connection"] = _per_connection(server)
    finally:
        server.stop()
    server = Smmf({"echo": echo(tokens=16)}, *flags, trust=trust)
    try:
        figures[f"{name}_us_per_request"] = _per_request(server)
    finally:
        server.stop()
    return figures


def _certificate(folder: Path) -> tuple[list[str], ssl.SSLContext]:
    """Flags for the server, and what its clients trust."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    return ["--ssl-certfile", str(folder / "both.pem")], trust


def _per_token(server: Smmf) -> float:
    request = chat(server, _TOKENS, True)
    measure(server, closed(server, request, True, _CLIENTS, _CLIENTS))
    plan = closed(server, request, True, _CLIENTS, _CLIENTS * _ROUNDS)
    return _us_each(server, plan, _CLIENTS * _ROUNDS * _TOKENS)


def _per_request(server: Smmf) -> float:
    request, requests = chat(server, 16, False), 4000
    measure(server, closed(server, request, False, 16, requests // 10))
    return _us_each(server, closed(server, request, False, 16, requests), requests)


def _us_each(server: Smmf, plan: Any, units: int) -> float:
    cpu_s, outcomes, _ = measure(server, plan)
    if failed := errors(outcomes):
        raise RuntimeError(str(failed))
    return 1e6 * cpu_s / units


def _per_connection(server: Smmf) -> float:
    """Opened, with its handshake, and closed; no request."""
    before = server.cpu_s()
    for _ in range(_CONNECTIONS):
        with socket.create_connection(("127.0.0.1", server.port)) as plain:
            if server.trust is not None:
                server.trust.wrap_socket(plain, server_hostname="127.0.0.1").close()
    return 1e6 * (server.cpu_s() - before) / _CONNECTIONS
