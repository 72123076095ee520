"""Ollama's API on the wire: its lines, its models, loads and unloads, and its errors."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import ollama
import pytest
from ollama_models import FIVE, HEADERS, NAMES, TEXT, USER, WAIT_S, lines, make_server, post
from server import Server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = make_server(tmp_path_factory.mktemp("ollama")).start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def client(served: Server) -> Iterator[ollama.Client]:
    with ollama.Client(f"http://127.0.0.1:{served.port}", headers=HEADERS) as client:
        yield client


def test_lines_on_the_wire(served: Server) -> None:
    status, headers, body = post(served, "/api/chat", model="echo", messages=[USER], options=FIVE)
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert headers["transfer-encoding"] == "chunked"
    first, *_, last = lines(body)
    assert list(first) == ["model", "created_at", "message", "done"]
    assert list(last) == [
        "model", "created_at", "message", "done", "done_reason", "total_duration", "load_duration",
        "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
    ]  # fmt: skip
    _, headers, body = post(
        served, "/api/chat", model="echo", messages=[USER], options=FIVE, stream=False
    )
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["message"] == {"role": "assistant", "content": TEXT}


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_an_error_in_a_stream_is_its_last_line(served: Server, path: str) -> None:
    failing = {"tokens": 50, "fail": "error:40", "step_ms": 20}
    asked = {"model": "echo", "messages": [USER], "prompt": "Say", "smmf_echo": failing}
    status, _, body = post(served, path, **asked)
    *parts, last = lines(body)
    assert (status, list(last)) == (200, ["error"])
    assert last["error"]
    assert len(parts) > 5
    assert not any(part["done"] for part in parts)


def test_the_client_raises_an_error_in_a_stream(client: ollama.Client) -> None:
    seen = []
    with pytest.raises(ollama.ResponseError) as caught:
        seen.extend(client.chat("failing", [USER], stream=True))
    assert caught.value.error


def test_a_client_that_goes_is_forgotten(served: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    body = json.dumps({"model": "one", "messages": [USER]})
    connection.request("POST", "/api/chat", body, HEADERS)
    connection.getresponse().readline()
    connection.close()
    until = time.monotonic() + WAIT_S
    name = 'smmf_cancelled_total{model="one",reason="disconnect"}'
    while served.metrics().get(name, 0.0) < 1:
        assert time.monotonic() < until
        time.sleep(0.02)


# --- models ---


def test_models(client: ollama.Client, served: Server) -> None:
    names = [model.model for model in client.list().models]
    assert names == [f"{n}:latest" for n in NAMES]
    shown = client.show("echo")
    assert shown.capabilities == ["completion", "tools", "thinking"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["echo.context_length"] > 0
    assert client.show("vectors:latest").capabilities == ["embedding"]
    running = {model.model for model in client.ps().models}
    assert {"echo:latest", "vectors:latest"} <= running
    for method in ("GET", "HEAD"):
        for path, said in (("/", b"Ollama is running"), ("/api/version", b'{"version":')):
            status, _, body = served.request(method, path, None, HEADERS)
            assert status == 200
            assert body.startswith(said) if method == "GET" else body == b""


def running(client: ollama.Client) -> set[str]:
    return {model.model or "" for model in client.ps().models}


def wait_until_gone(client: ollama.Client, name: str) -> None:
    until = time.monotonic() + WAIT_S
    while name in running(client):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_models_are_loaded_and_unloaded_without_a_prompt(client: ollama.Client) -> None:
    assert client.generate("lazy", keep_alive=0).done_reason == "unload"
    assert "lazy:latest" not in running(client)
    assert client.chat("lazy", []).done_reason == "load"
    assert "lazy:latest" in running(client)
    assert client.generate("lazy", keep_alive=0).done_reason == "unload"
    wait_until_gone(client, "lazy:latest")
    loaded = client.generate("lazy", keep_alive="10m")
    assert (loaded.done, loaded.done_reason, loaded.response) == (True, "load", "")
    (model,) = (model for model in client.ps().models if model.model == "lazy:latest")
    assert model.expires_at is not None
    assert model.expires_at.year < 2199


def test_an_unload_is_no_word_on_the_next_load(client: ollama.Client) -> None:
    assert client.chat("lazy", [USER], options=FIVE).message.content == TEXT
    assert client.chat("lazy", [], keep_alive=0).done_reason == "unload"
    wait_until_gone(client, "lazy:latest")
    assert client.chat("lazy", [USER], options=FIVE).message.content == TEXT
    for _ in range(3):  # reports of it reach the Controller in between
        time.sleep(0.5)
        assert "lazy:latest" in running(client)


@pytest.mark.parametrize(
    ("path", "method", "named"),
    [
        ("/api/pull", "POST", "smmf add"),
        ("/api/create", "POST", "smmf add"),
        ("/api/copy", "POST", "smmf add"),
        ("/api/push", "POST", "not pushed"),
        ("/api/delete", "DELETE", "smmf rm"),
    ],
)
def test_what_operators_do_elsewhere(served: Server, path: str, method: str, named: str) -> None:
    status, _, body = served.request(method, path, {"model": "absent"}, HEADERS)
    assert status == (404 if path == "/api/pull" else 501)
    assert named in json.loads(body)["error"]


def test_a_model_that_is_here_need_not_be_pulled(client: ollama.Client) -> None:
    assert client.pull("echo").status == "success"
    assert [part.status for part in client.pull("echo", stream=True)] == ["success"]


# --- errors ---


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/chat", {"model": "absent", "messages": [USER]}, 404),
        ("/api/generate", {"model": "absent"}, 404),
        ("/api/generate", {"model": "absent", "keep_alive": 0}, 404),
        ("/api/embed", {"model": "absent", "input": "a"}, 404),
        ("/api/show", {"model": "absent"}, 404),
        ("/api/absent", {}, 404),
        ("/api/tags", {}, 405),
        ("/api/chat", {"model": "vectors", "messages": [USER]}, 400),
        ("/api/chat", {"model": "vectors"}, 400),
        ("/api/embed", {"model": "echo", "input": "a"}, 400),
        ("/api/chat", {"model": "echo", "messages": [{**USER, "images": ["aGk="]}]}, 400),
        ("/api/generate", {"model": "echo", "prompt": "a", "template": "x"}, 400),
        ("/api/generate", {"model": "echo", "prompt": "a", "suffix": "x"}, 400),
        ("/api/generate", {"model": "echo", "prompt": "a", "context": [1]}, 400),
        ("/api/chat", {"model": "echo", "messages": [USER], "options": {"top_p": 2}}, 400),
        ("/api/chat", {"model": "echo", "messages": [USER], "format": "xml"}, 400),
        ("/api/chat", {"model": "echo", "messages": [USER], "options": {"seed": "x"}}, 400),
        ("/api/chat", b"{", 400),
        ("/api/chat", b"x" * (2 << 20), 413),
    ],
)  # fmt: skip
def test_errors_in_ollamas_form(served: Server, path: str, body: Any, status: int) -> None:
    found, headers, answer = served.request("POST", path, body, HEADERS)
    assert (found, headers["content-type"]) == (status, "application/json")
    error = json.loads(answer)
    assert list(error) == ["error"]
    assert 0 < len(error["error"]) < 400
    assert headers["x-request-id"]


def test_a_model_that_is_not_here_is_not_found(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("absent", [USER])
    assert caught.value.status_code == 404
    assert "not found" in caught.value.error


def test_a_key_is_needed(served: Server) -> None:
    for path in ("/api/chat", "/api/tags", "/api/version"):
        method = "POST" if path == "/api/chat" else "GET"
        status, _, body = served.request(method, path, {} if method == "POST" else None)
        assert status == 401
        assert list(json.loads(body)) == ["error"]
    assert served.get("/")[0] == 200


def new_key(served: Server, **wanted: Any) -> dict[str, str]:
    """The headers of a key that the Router knows."""
    connection = http.client.HTTPConnection("127.0.0.1", served.admin_port, timeout=60)
    connection.request("POST", "/admin/v1/keys", json.dumps({"name": "k", **wanted}), HEADERS)
    headers = {"Authorization": f"Bearer {json.loads(connection.getresponse().read())['key']}"}
    connection.close()
    until = time.monotonic() + WAIT_S
    while served.request("GET", "/api/version", None, headers)[0] != 200:
        assert time.monotonic() < until
    return headers


def test_a_key_for_one_model(served: Server) -> None:
    headers = new_key(served, models=["echo"])
    for path in ("/api/tags", "/api/ps"):
        found = json.loads(served.request("GET", path, None, headers)[2])["models"]
        assert [model["name"] for model in found] == ["echo:latest"]
    allowed = {"model": "echo", "messages": [USER], "stream": False, "options": FIVE}
    assert served.request("POST", "/api/chat", allowed, headers)[0] == 200
    parrot = {"model": "parrot"}
    for path, body in (
        ("/api/chat", {**parrot, "messages": [USER]}),
        ("/api/generate", {**parrot, "keep_alive": 0}),
        ("/api/generate", parrot),
        ("/api/show", parrot),
        ("/api/pull", parrot),
    ):
        status, _, answer = served.request("POST", path, body, headers)
        assert (status, list(json.loads(answer))) == (403, ["error"])


def test_a_keys_limits(served: Server) -> None:
    headers = new_key(served, requests_per_minute=1)
    asked = {"model": "echo", "messages": [USER], "options": FIVE}
    status, first, _ = served.request("POST", "/api/chat", asked, headers)
    assert (status, first["x-ratelimit-limit-requests"]) == (200, "1")
    status, second, answer = served.request("POST", "/api/chat", asked, headers)
    assert (status, list(json.loads(answer))) == (429, ["error"])
    assert int(second["retry-after"]) <= 60


def test_dbgpts_paths_are_not_ollamas(served: Server) -> None:
    status, _, body = served.request("GET", "/api/v1/models", None, HEADERS)
    assert (status, json.loads(body)["object"]) == (200, "list")
    status, _, body = served.request("GET", "/api/v1/absent", None, HEADERS)
    assert json.loads(body)["error"]["code"] == "unknown_url"


def test_a_full_queue(served: Server) -> None:
    open_ = []
    try:
        for _ in range(2):  # one runs, one waits
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
            body = json.dumps({"model": "one", "messages": [USER]})
            connection.request("POST", "/api/chat", body, HEADERS)
            open_.append(connection)
        open_[0].getresponse().readline()
        until = time.monotonic() + WAIT_S
        while True:
            found, headers, answer = post(
                served, "/api/chat", model="one", messages=[USER], options={"num_predict": 1}
            )
            if found == 429:
                break
            assert time.monotonic() < until
        assert list(json.loads(answer)) == ["error"]
        assert int(headers["retry-after"]) <= 60
    finally:
        for connection in open_:
            connection.close()
