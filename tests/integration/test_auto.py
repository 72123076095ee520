"""`model: "auto"` on a real server: the cheapest model that meets the requirements answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Server

MODELS = {
    "small": ("generate", 1.0, 128, True),
    "large": ("generate", 5.0, 4096, True),
    "lazy": ("generate", 0.5, 64, False),
    "vectors": ("embed", 1.0, 512, True),
    "scores": ("rerank", 1.0, 512, True),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("auto")
    for name, (task, cost, context, autostart) in MODELS.items():
        lines = ["[model]", f'name = "{name}"', 'backend = "echo"', f'task = "{task}"']
        lines += [f"cost = {cost}", "[deployment]", f"autostart = {json.dumps(autostart)}"]
        lines += ["[engine]", f"max_model_len = {context}"]
        (folder / f"local-{name}.toml").write_text("\n".join(lines) + "\n")
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


def ask(server: Server, path: str, require: Any = None, **body: Any) -> tuple[int, dict[str, Any]]:
    body = {"model": "auto", **body}
    if require is not None:
        body["smmf"] = {"require": require}
    status, _, answer = server.request("POST", path, body)
    return status, json.loads(answer)


def chat(server: Server, require: Any = None, **body: Any) -> tuple[int, dict[str, Any]]:
    messages = [{"role": "user", "content": "x"}]
    return ask(server, "/v1/chat/completions", require, messages=messages, **body)


def test_the_cheapest_answers_and_says_who_it_is(server: Server) -> None:
    assert chat(server)[1]["model"] == "lazy"  # not loaded: it loads
    assert chat(server, {"context_length": 100})[1]["model"] == "small"
    assert chat(server, {"context_length": 1000})[1]["model"] == "large"
    assert (
        ask(server, "/v1/completions", {"context_length": 129}, prompt="x")[1]["model"] == "large"
    )


def test_a_stream_says_who_it_is_too(server: Server) -> None:
    messages = [{"role": "user", "content": "x"}]
    body = {"model": "auto", "messages": messages, "stream": True}
    body["smmf"] = {"require": {"context_length": 1000}}
    status, _, answer = server.request("POST", "/v1/chat/completions", body)
    assert status == 200
    assert b'"model":"large"' in answer


def test_the_route_says_the_task(server: Server) -> None:
    status, body = ask(server, "/v1/embeddings", input="x")
    assert (status, body["model"]) == (200, "vectors")
    status, body = ask(server, "/v1/rerank", query="x", documents=["y", "z"])
    assert (status, body["model"]) == (200, "scores")


def test_the_size_of_vectors_is_known_once_they_are_loaded(server: Server) -> None:
    _, body = ask(server, "/v1/embeddings", input="x")
    size = len(body["data"][0]["embedding"])
    assert ask(server, "/v1/embeddings", {"embedding_dimension": size}, input="x")[0] == 200
    status, body = ask(server, "/v1/embeddings", {"embedding_dimension": size + 1}, input="x")
    assert (status, body["error"]["code"]) == (404, "model_not_found")
    assert f"vectors of {size + 1} dimensions" in body["error"]["message"]


def test_what_nobody_has_is_named(server: Server) -> None:
    status, body = chat(server, {"vision": True})
    assert (status, body["error"]["code"]) == (404, "model_not_found")
    assert "vision" in body["error"]["message"]


def test_unknown_requirements_are_refused_with_the_known_ones(server: Server) -> None:
    status, body = chat(server, {"speed": "high"})
    assert (status, body["error"]["param"]) == (400, "smmf.require.speed")
    assert "'context_length'" in body["error"]["message"]


def test_a_named_model_must_meet_them_too(server: Server) -> None:
    status, body = chat(server, {"context_length": 1000}, model="small")
    assert (status, body["error"]["param"]) == (400, "smmf.require")
    assert chat(server, {"context_length": 1000}, model="large")[0] == 200
