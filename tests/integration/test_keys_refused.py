"""What is refused about API keys, in which words: by verbs, the admin API, the configuration."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import refused, smmf
from server import Server, echo_toml


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "local-echo.toml").write_text(echo_toml())
    server = Server(tmp_path)
    yield server
    if server.process is not None:
        assert server.stop() == 0


def test_wrong_use_is_told_with_the_range(server: Server) -> None:
    server.start()
    for body, message in (
        ({"roles": ["boss"]}, "roles: expected some of inference, read, admin, got 'boss'"),
        ({"requests_per_minute": 0}, "requests_per_minute: expected an integer >= 1"),
        ({"expires_at": "soon"}, "expires_at: expected a span"),
        ({"rolles": []}, "there is no field 'rolles'"),
        ({"name": "two\nlines"}, "name: expected printable characters only"),
    ):
        status, answer = server.ask_admin("POST", "/admin/v1/keys", body)
        assert (status, message in answer["error"]["message"]) == (400, True), answer
    _, answer = server.ask_admin("POST", "/admin/v1/keys", {"max_concurrency": 0})
    assert answer["error"]["param"] == "max_concurrency"
    deep = http.client.HTTPConnection("127.0.0.1", server.admin_port, timeout=60)
    deep.request("POST", "/admin/v1/keys", "[" * 100_000, {"Content-Type": "application/json"})
    assert deep.getresponse().status == 400
    deep.close()
    moved = {"host": "127.0.0.1", "port": server.port, "api_keys": [""]}
    status, answer = server.ask_admin("POST", "/admin/v1/router", moved)
    assert (status, answer["error"]["param"]) == (400, "api_keys")
    status, answer = server.ask_admin("GET", "/admin/v1/usage?by=colour")
    assert (status, answer["error"]["message"]) == (
        400,
        "by: expected some of key, model, day, got 'colour'",
    )
    assert refused(server, "keys", "revoke", "nobody") == "There is no key nobody."
    done = smmf(server, "keys", "create", "--tokens-per-minute", "0")
    assert done.returncode == 2
    assert "'0' is not a whole number from 1 to 1000000000" in done.stderr
    models = ["echo", "echo:latest", "elsewhere"]
    told = server.admin("POST", "/admin/v1/keys", {"models": models})["message"]
    assert told == "the key is shown this once; there is no model elsewhere yet"


def test_wrong_use_is_told_in_the_same_words_without_a_server(server: Server) -> None:
    message = refused(server, "keys", "create", "x" * 101, "--server", "default")
    assert message == "name: expected a string of length <= 100"


def test_a_configured_key_may_be_of_any_text(server: Server, tmp_path: Path) -> None:
    (tmp_path / "smmf.toml").write_text('[server]\napi_keys = ["schl\u00fcssel"]\n')
    server.start()
    headers = {"Authorization": b"Bearer " + "schl\u00fcssel".encode()}
    for port in (server.port, server.admin_port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        path = "/v1/models" if port == server.port else "/admin/v1/keys"
        connection.request("GET", path, headers=headers)
        assert connection.getresponse().status == 200
        connection.close()
