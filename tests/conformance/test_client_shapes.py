"""Requests as named clients shape them, beyond what their SDKs' tests cover: seen on the wire or in
their source. Each must be answered as it is, with its extra fields, headers and query strings.
"""

from __future__ import annotations

import copy
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server import Server, echo_toml

TEXT = " the quick brown fox jumps"
SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {"command": {"type": "string"}, "timeout": {"type": "number"}},
    "required": ["command"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("shapes")
    engine = {"tokens": 5, "tool_format": "hermes"}
    (folder / "local-words.toml").write_text(echo_toml("words", engine=engine))
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


def post(server: Server, path: str, body: Any, **headers: str) -> str:
    """The answer's text; its status must be 200."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    status, _, answer = server.request("POST", path, {"model": "words", **body}, named)
    assert status == 200, answer
    return answer.decode()


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


# --- load generators ---

LOAD: Any = {
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    "stop": None,
    "ignore_eos": True,
}


def test_guidellm(server: Server) -> None:
    """It asks for the usage in every chunk, and takes the first model that is listed."""
    part = {"type": "text", "text": "hi"}
    chat = {"max_completion_tokens": 8, "messages": [{"role": "user", "content": [part]}]}
    for path, body in (
        ("/v1/chat/completions", chat),
        ("/v1/completions", {"max_tokens": 8, "prompt": "hi"}),
    ):
        chunks = events(post(server, path, {**LOAD, **body}))
        used = [chunk["usage"]["completion_tokens"] for chunk in chunks if chunk["usage"]]
        assert used == sorted(used)
        assert used[-1] == 8
    assert json.loads(server.get("/v1/models")[2])["data"][0]["id"] == "words"


def test_an_empty_bearer_token_where_no_key_is_wanted(server: Server) -> None:
    """lm-eval's, with its token-array prompts and echo."""
    body = {
        "model": "words", "prompt": [[5, 6, 7]], "temperature": 0, "max_tokens": 1, "logprobs": 1,
        "seed": 1234, "echo": True,
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Authorization": "Bearer "})
    (choice,) = json.load(connection.getresponse())["choices"]
    connection.close()
    assert len(choice["logprobs"]["tokens"]) == 4


# --- coding agents ---

CACHED = {"cache_control": {"type": "ephemeral"}}
CLAUDE_CODE: Any = {
    "max_tokens": 32000,
    "stream": True,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cc_entrypoint=cli"},
        {"type": "text", "text": "You are a coding agent.", **CACHED},
    ],
    "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>Today.</system-reminder>"},
            {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ]},
    ],
    "tools": [{"name": "Bash", "description": "Run it.", "input_schema": SCHEMA, **CACHED}],
    "metadata": {"user_id": "user_1_account__session_2"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
}  # fmt: skip
ANTHROPIC = {
    "x_api_key": "unused",
    "anthropic_version": "2023-06-01",
    "anthropic_beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
    "x_app": "cli",
}


@pytest.mark.parametrize(
    "thinking", [{}, {"thinking": {"type": "enabled", "budget_tokens": 31999}},
                 {"thinking": {"type": "adaptive"}}],
)  # fmt: skip
def test_claude_code(server: Server, thinking: Any) -> None:
    first = copy.deepcopy(CLAUDE_CODE) | thinking
    path = "/v1/messages?beta=true"
    said = events(post(server, path, first, **ANTHROPIC))
    (block,) = (e["content_block"] for e in said if e["type"] == "content_block_start")
    assert (block["type"], block["name"]) == ("tool_use", "Bash")
    assert said[-2]["delta"]["stop_reason"] == "tool_use"
    first["messages"] += [
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm", "signature": "abc"},
            {"type": "text", "text": "I run it."},
            {"type": "tool_use", "id": block["id"], "name": "Bash", "input": {"command": "ls"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": block["id"], "content": "a", **CACHED},
        ]},
    ]  # fmt: skip
    told = events(post(server, path, first, **ANTHROPIC))
    assert "".join(e["delta"].get("text", "") for e in told if "delta" in e) == TEXT


def test_claude_code_counts_and_probes(server: Server) -> None:
    counted = {name: CLAUDE_CODE[name] for name in ("system", "messages", "tools")}
    text = post(server, "/v1/messages/count_tokens?beta=true", counted, **ANTHROPIC)
    assert json.loads(text)["input_tokens"] > 0
    probe = {"max_tokens": 1, "messages": [{"role": "user", "content": "quota"}]}
    text = post(server, "/v1/messages?beta=true", probe, **ANTHROPIC)
    assert json.loads(text)["stop_reason"] == "max_tokens"


def test_codex(server: Server) -> None:
    function = {"type": "function", "name": "shell", "strict": False, "parameters": SCHEMA}
    asked: Any = {
        "instructions": "You are a coding agent.",
        "input": [
            {"type": "message", "role": "developer",
             "content": [{"type": "input_text", "text": "<permissions>"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        ],
        "tools": [function],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "k",
        "text": {"verbosity": "medium"},
    }  # fmt: skip
    headers = {"accept": "text/event-stream", "openai_beta": "responses=experimental"}
    called = events(post(server, "/v1/responses", asked, **headers))[-1]["response"]
    (item,) = called["output"]
    assert (item["type"], item["name"]) == ("function_call", "shell")
    asked["input"] += [
        {"type": "reasoning", "summary": [], "encrypted_content": "abc", "content": None},
        item,
        {"type": "function_call_output", "call_id": item["call_id"], "output": '{"output": "a"}'},
    ]
    told = events(post(server, "/v1/responses", asked, **headers))
    deltas = [e["delta"] for e in told if e["type"] == "response.output_text.delta"]
    assert "".join(deltas) == TEXT


# --- chat and editor clients ---


def test_open_webui(server: Server) -> None:
    """Fields of its own, nulls for what is not set, and titles by `max_completion_tokens`."""
    asked = {
        "stream": True, "stream_options": {"include_usage": True}, "max_tokens": None,
        "temperature": None, "messages": [{"role": "user", "content": "hi"}],
        "metadata": {"chat_id": "x"}, "function_calling": "native",
    }  # fmt: skip
    said = events(post(server, "/v1/chat/completions", asked, X_OpenWebUI_User_Id="1"))
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in said[:-1]) == TEXT
    title = {"stream": False, "max_completion_tokens": 1000, "messages": asked["messages"]}
    assert json.loads(post(server, "/v1/chat/completions", title))["choices"]


def test_continue_fills_in_the_middle_by_its_own_template(server: Server) -> None:
    asked = {
        "prompt": "<fim_prefix>def f(<fim_suffix>):<fim_middle>", "max_tokens": 5,
        "temperature": 0.01, "stream": True,
        "stop": ["<fim_prefix>", "<fim_suffix>", "/src/", "#- coding: utf-8"],
    }  # fmt: skip
    said = events(post(server, "/v1/completions", asked))
    assert "".join(chunk["choices"][0]["text"] for chunk in said) == TEXT


@pytest.mark.parametrize(("path", "key"), [("/api/chat", "messages"), ("/api/generate", "prompt")])
def test_ollamas_own_curl_lines(server: Server, path: str, key: str) -> None:
    """`curl -d` names a form as the media type; Ollama's examples rely on its being taken."""
    asked = {"messages": [{"role": "user", "content": "hi"}], "prompt": "hi", "stream": False}
    body = {key: asked[key], "stream": False}
    text = post(server, path, body, Content_Type="application/x-www-form-urlencoded")
    said = json.loads(text)
    assert said["done"] is True
    assert (said.get("response") or said["message"]["content"]) == TEXT
