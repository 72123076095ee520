"""Tokens of texts and chats through a real server with echo models of each task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from server import Server, echo_toml

CHAT = [{"role": "user", "content": "green birds"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("tokens")
    (folder / "local-chat.toml").write_text(echo_toml("chat"))
    for name, task in (("near", "embed"), ("rank", "rerank")):
        lines = f'[model]\nname = "{name}"\nbackend = "echo"\ntask = "{task}"\n'
        (folder / f"local-{name}.toml").write_text(lines)
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as http:
        yield http


@pytest.mark.parametrize("prefix", ["", "/v1", "/api/v1"])
@pytest.mark.parametrize("model", ["chat", "near", "rank"])
def test_a_text_there_and_back(http: httpx.Client, prefix: str, model: str) -> None:
    text = "Gr\u00fcne V\u00f6gel \U0001f426"
    ask = {"model": model, "prompt": text, "return_token_strs": True}
    found = http.post(f"{prefix}/tokenize", json=ask).json()
    assert set(found) == {"count", "max_model_len", "tokens", "token_strs"}
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"]) == 6
    back = http.post(f"{prefix}/detokenize", json={"model": model, "tokens": found["tokens"]})
    assert back.json() == {"prompt": text}


def test_the_count_is_what_a_completion_is_billed(http: httpx.Client) -> None:
    for path, ask in (
        ("/v1/completions", {"prompt": "green birds sing"}),
        ("/v1/chat/completions", {"messages": CHAT}),
    ):
        used = http.post(path, json={"model": "chat", "max_tokens": 1, **ask}).json()["usage"]
        found = http.post("/tokenize", json={"model": "chat", **ask}).json()
        assert found["count"] == used["prompt_tokens"]
        assert found["token_strs"] is None


def test_the_count_is_what_an_embedding_is_billed(http: httpx.Client) -> None:
    used = http.post("/v1/embeddings", json={"model": "near", "input": "green birds"}).json()
    found = http.post("/tokenize", json={"model": "near", "prompt": "green birds"}).json()
    assert found["count"] == used["usage"]["prompt_tokens"]


def test_more_tokens_than_a_ring_holds(http: httpx.Client) -> None:
    ask = {"model": "chat", "prompt": "abc" * 400_000}
    found = http.post("/tokenize", json=ask).json()
    assert found["count"] == len(found["tokens"]) == 400_000 > found["max_model_len"]
    back = http.post("/detokenize", json={"model": "chat", "tokens": found["tokens"]}).json()
    assert back["prompt"] == ask["prompt"]


def test_auto_is_a_model_that_writes(http: httpx.Client) -> None:
    response = http.post("/tokenize", json={"model": "auto", "prompt": "abc"})
    assert response.headers["x-smmf-instance"] == "chat-0"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {"model": "near", "messages": CHAT}, "messages"),
        ("/tokenize", {"model": "chat"}, "prompt"),
        ("/tokenize", {"prompt": "a"}, "model"),
        ("/detokenize", {"model": "near", "tokens": [2**30]}, "tokens[0]"),
        ("/detokenize", {"model": "chat", "tokens": [0, "a"]}, "tokens[1]"),
    ],
)
def test_what_is_wrong_is_named(http: httpx.Client, path: str, body: Any, param: str) -> None:
    response = http.post(path, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_an_unknown_model(http: httpx.Client) -> None:
    response = http.post("/tokenize", json={"model": "no", "prompt": "a"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


def test_tokens_while_the_model_writes(http: httpx.Client) -> None:
    """Neither waits for the other's end."""
    ask = {
        "model": "chat", "messages": CHAT, "stream": True,
        "smmf_echo": {"tokens": 10_000, "step_ms": 5},
    }  # fmt: skip
    with http.stream("POST", "/v1/chat/completions", json=ask) as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        first = json.loads(next(lines).removeprefix("data: "))
        with ThreadPoolExecutor(8) as pool:
            asks = [{"model": "chat", "prompt": "abc" * n} for n in range(40)]
            found = list(pool.map(lambda ask: http.post("/tokenize", json=ask).json(), asks))
        assert [entry["count"] for entry in found] == list(range(40))
        assert json.loads(next(lines).removeprefix("data: "))["id"] == first["id"]
