"""What the routes send, byte for byte: stream layout, headers, and the table of wrong requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai_matrix import BROKEN, CASES, USER, body_of

ROUTES = {"chat": "/chat/completions", "completion": "/completions"}


@pytest.fixture
def http(server: Any) -> Iterator[httpx.Client]:
    headers = {"content-type": "application/json"}
    with httpx.Client(base_url=server.base_url, headers=headers, timeout=60) as http:
        yield http


def _is_refusal(response: httpx.Response) -> bool:
    error = response.json()["error"]
    return response.status_code == 400 and set(error) == {"message", "type", "param", "code"}


def test_wrong_requests(http: httpx.Client) -> None:
    for case in CASES:
        response = http.post(ROUTES[case.dialect], content=body_of(case))
        assert _is_refusal(response), case
        error = response.json()["error"]
        assert (error["code"], error["param"]) == (case.code, case.param), case


@pytest.mark.parametrize("name", BROKEN)
def test_broken_bodies(http: httpx.Client, name: str) -> None:
    for route in ROUTES.values():
        response = http.post(route, content=BROKEN[name])
        assert _is_refusal(response)
        assert response.headers["x-request-id"]


def _events(text: str) -> list[Any]:
    assert text.endswith("\n\n")
    lines = text.removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_the_layout_of_a_chat_stream(http: httpx.Client, server: Any) -> None:
    body = {
        "model": server.model, "messages": [USER], "n": 3, "stream": True,
        "stream_options": {"include_usage": True}, "smmf_echo": {"tokens": 4},
    }  # fmt: skip
    response = http.post("/chat/completions", json=body)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    events = _events(response.text)
    role = {"role": "assistant", "content": "", "refusal": None}
    assert [(e["choices"][0]["index"], e["choices"][0]["delta"]) for e in events[:3]] == [
        (0, role), (1, role), (2, role),
    ]  # fmt: skip
    assert all("error" not in event for event in events)
    assert all(event["usage"] is None for event in events[:-1])
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 12
    for index in range(3):
        own = [e["choices"][0] for e in events[3:-1] if e["choices"][0]["index"] == index]
        assert all(set(choice["delta"]) == {"content"} for choice in own[:-1])
        assert own[-1] == {
            "index": index, "delta": {}, "logprobs": None, "finish_reason": "stop",
        }  # fmt: skip


def test_a_stream_without_usage_says_nothing_of_it(http: httpx.Client, server: Any) -> None:
    body = {"model": server.model, "messages": [USER], "stream": True}
    events = _events(http.post("/chat/completions", json=body).text)
    assert all("usage" not in event and event["choices"] for event in events)


def test_usage_in_every_chunk(http: httpx.Client, server: Any) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {
        "model": server.model, "messages": [USER], "stream": True, "stream_options": options,
        "smmf_echo": {"tokens": 4},
    }  # fmt: skip
    events = _events(http.post("/chat/completions", json=body).text)
    counts = [event["usage"]["completion_tokens"] for event in events if event["usage"]]
    assert counts == sorted(counts)
    assert counts[-1] == 4


def test_the_finish_of_a_completion_stream(http: httpx.Client, server: Any) -> None:
    body = {"model": server.model, "prompt": "a", "max_tokens": 4, "stream": True}
    events = _events(http.post("/completions", json=body).text)
    assert {event["object"] for event in events} == {"text_completion"}
    assert [e["choices"][0]["finish_reason"] for e in events if e["choices"][0]["finish_reason"]]
    assert events[-1]["choices"][0]["finish_reason"] == "length"
    assert "".join(event["choices"][0]["text"] for event in events) == " the quick brown fox"


def test_the_same_routes_without_and_with_other_prefixes(http: httpx.Client, server: Any) -> None:
    root = server.base_url.removesuffix("/v1")
    body = {"model": server.model, "messages": [USER]}
    for prefix in ("", "/v1", "/api/v1"):
        assert http.post(f"{root}{prefix}/chat/completions", json=body).status_code == 200
        assert http.get(f"{root}{prefix}/models").json()["object"] == "list"
