"""A stream says what the whole answer says: text, thoughts, calls, logprobs, finish reason, usage.

Put together from the events by hand, in the order that the layout of streams has.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engines_env
import pytest
from engines import demo_path
from server import Server, echo_toml

Object = dict[str, Any]

FUNCTION = {
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
    },
}  # fmt: skip
OTHER = {"name": "get_time", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": function} for function in (FUNCTION, OTHER)]
NAMED = {"type": "function", "function": {"name": "get_time"}}
SCHEMA = {
    "type": "object",
    "properties": {
        "word": {"enum": ["caf\u00e9", "\u4f60\u597d", "\U0001f600"]}, "n": {"type": "integer"},
    },
    "required": ["word", "n"],
}  # fmt: skip
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
WEATHER, AS_JSON = "What is the weather in Paris?", "Answer as JSON: Ada from Utrecht is 36"
pytestmark = pytest.mark.timeout(400)
STORY = "Tell me a story about a fox named Momo."
THOUGHT = "<think>\nHm, \u4f60\u597d.\n</think>\n\nIt is 3."

CHATS: dict[str, Object] = {
    "plain": {},
    "drawn": {"temperature": 1, "seed": 11},
    "cut": {"max_tokens": 7},
    "one token": {"max_tokens": 1},
    "a stop string": {"stop": "the"},
    "stop strings, shown": {"stop": ["zz", " the"], "include_stop_str_in_output": True},
    "several": {"n": 3, "temperature": 1, "seed": 2},
    "several, stopped": {"n": 3, "temperature": 1, "seed": 2, "stop": ["e", "a"]},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "logprobs, stopped": {"logprobs": True, "top_logprobs": 2, "stop": "the"},
    "logprobs, several": {"logprobs": True, "n": 2, "temperature": 1, "seed": 4},
    "characters of bytes": {"said": "Repeat: caf\u00e9 \u4f60\u597d \U0001f600", "logprobs": True},
    "penalties": {"frequency_penalty": 1.5, "presence_penalty": 0.5, "repetition_penalty": 1.2},
    "at least": {"min_tokens": 30, "max_tokens": 40},
    "no end": {"ignore_eos": True, "max_tokens": 30},
    "tools": {"said": WEATHER, "tools": TOOLS},
    "tools, not called": {"said": "Who are you?", "tools": TOOLS, "tool_choice": "none"},
    "a call that must be": {"said": WEATHER, "tools": TOOLS, "tool_choice": "required"},
    "a named call": {"said": WEATHER, "tools": TOOLS, "tool_choice": NAMED},
    "one call": {
        "said": WEATHER, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False,
    },
    "calls, several": {
        "said": WEATHER, "tools": TOOLS, "tool_choice": "required", "n": 2, "temperature": 1.2,
        "seed": 1,
    },
    "a call that is cut": {
        "said": WEATHER, "tools": TOOLS, "tool_choice": "required", "max_tokens": 14,
    },
    "calls with logprobs": {"said": WEATHER, "tools": TOOLS, "logprobs": True},
    "an object": {"said": AS_JSON, "response_format": {"type": "json_object"}},
    "a schema": {"said": AS_JSON, "response_format": FORM},
    "a schema, drawn": {"said": AS_JSON, "response_format": FORM, "temperature": 1.5, "seed": 5},
    "a schema, cut": {"said": AS_JSON, "response_format": FORM, "max_tokens": 5},
    "a schema or a call": {"said": WEATHER, "response_format": FORM, "tools": TOOLS},
}  # fmt: skip
THINKING: dict[str, Object] = {
    "thoughts": {"said": THOUGHT},
    "thoughts, cut": {"said": THOUGHT, "max_tokens": 5},
    "thoughts, cut behind": {"said": THOUGHT, "max_tokens": 12},
    "thoughts, stopped": {"said": THOUGHT, "stop": "is"},
    "thoughts with logprobs": {"said": THOUGHT, "logprobs": True, "top_logprobs": 1},
    "thoughts, several": {"said": THOUGHT, "n": 2},
    "a thought that stays open": {"said": "<think>and so on"},
    "thoughts and a call": {
        "said": '<think>so</think>\nWell.\n<tool_call>{"name": "get_time", "arguments": {}}'
        "</tool_call>",
        "tools": TOOLS, "smmf_echo": {"text": "echo"},
    },
}  # fmt: skip
COMPLETIONS: dict[str, Object] = {
    "plain": {},
    "prompts": {"prompt": ["The", "A river", "Once"], "n": 2, "temperature": 1, "seed": 3},
    "echo": {"prompt": ["The fox", "A"], "echo": True},
    "logprobs": {"logprobs": 2, "n": 2, "temperature": 1, "seed": 3},
    "echo with logprobs": {"prompt": "The fox and the", "echo": True, "logprobs": 1},
    "stopped": {"stop": [" the", "."], "max_tokens": 40},
    "stopped with logprobs": {"stop": [" the", "."], "max_tokens": 40, "logprobs": 0},
}
REAL = "llama_cpp"
MODELS = ["echo", "demo", REAL]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("both-ways")
    (folder / "local-echo.toml").write_text(echo_toml())
    thinks = {"reasoning_format": "deepseek_r1", "text": "echo"}
    (folder / "local-thinker.toml").write_text(echo_toml("thinker", engine=thinks))
    backends = {"demo": "reference"}
    if REAL.replace("_", "-") not in engines_env.WITHOUT:
        backends[REAL] = REAL
    for name, backend in backends.items():
        path = demo_path(backend)
        text = f'[model]\nname = "{name}"\nbackend = "{backend}"\npath = "{path}"\n'
        if backend == REAL and (python := engines_env.require(REAL)) != sys.executable:
            text += f'[deployment]\npython = "{python}"\n'
        (folder / f"local-{name}.toml").write_text(text)
    started = Server(folder).start(wait=False)
    started.wait_ready(180)
    yield started
    assert started.stop() == 0


def ask(server: Server, path: str, body: Object) -> bytes:
    status, _, answer = server.request("POST", path, body)
    assert status == 200, answer
    return answer


def events_of(server: Server, path: str, body: Object) -> list[Object]:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *events, done, end = ask(server, path, {**body, **options}).decode().split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    found = [json.loads(event.removeprefix("data: ")) for event in events]
    assert len({(event["id"], event["created"], event["model"]) for event in found}) == 1
    assert all(event["usage"] is None for event in found[:-1])
    assert found[-1]["choices"] == []
    return found


def usage_of(answer: Object) -> Object:
    """But for what is left of an equal request before."""
    return {key: value for key, value in answer["usage"].items() if key != "prompt_tokens_details"}


def chat_of(events: list[Object], count: int) -> list[Object]:
    """The choices that the deltas of a stream make. Checks their order on the way."""
    choices: list[Object] = [
        {"content": "", "thought": "", "calls": [], "logprobs": [], "reason": None}
        for _ in range(count)
    ]
    parts = [event["choices"][0] for event in events]
    assert [part["index"] for part in parts[:count]] == list(range(count))
    assert all(part["delta"]["role"] == "assistant" for part in parts[:count])
    for part in parts[count:]:
        choice, delta = choices[part["index"]], part["delta"]
        assert "role" not in delta
        assert choice["reason"] is None
        choice["reason"] = part["finish_reason"]
        if choice["reason"]:
            assert delta == {}
            continue
        assert delta.get("reasoning") == delta.get("reasoning_content")
        choice["content"] += delta.get("content") or ""
        choice["thought"] += delta.get("reasoning") or ""
        choice["logprobs"] += (part["logprobs"] or {}).get("content", [])
        for call in delta.get("tool_calls", []):
            if "id" in call:
                assert call["index"] == len(choice["calls"])
                choice["calls"].append([call["id"], call["function"]["name"], ""])
            assert call["index"] == len(choice["calls"]) - 1
            choice["calls"][-1][2] += call["function"]["arguments"]
    return choices


def whole_chat(choice: Object) -> Object:
    message = choice["message"]
    assert message.get("reasoning") == message.get("reasoning_content")
    calls = [[c["id"], c["function"]["name"], c["function"]["arguments"]]
             for c in message.get("tool_calls", [])]  # fmt: skip
    return {
        "content": message["content"] or "", "thought": message.get("reasoning") or "",
        "calls": calls, "logprobs": (choice["logprobs"] or {}).get("content", []),
        "reason": choice["finish_reason"],
    }  # fmt: skip


def logprobs_apart(choices: list[Object]) -> list[float]:
    """Takes the values out: an engine that finds a prompt computed may round otherwise."""
    values = []
    for choice in choices:
        for entry in choice["logprobs"]:
            values += [one.pop("logprob") for one in (entry, *entry["top_logprobs"])]
    return values


def without_ids(choices: list[Object]) -> list[Object]:
    """Calls' ids come of the request's."""
    for choice in choices:
        assert len({call[0] for call in choice["calls"]}) == len(choice["calls"])
        choice["calls"] = [call[1:] for call in choice["calls"]]
    return choices


def same_chat(server: Server, body: Object) -> list[Object]:
    path = "/v1/chat/completions"
    whole = json.loads(ask(server, path, body))
    *events, last = events_of(server, path, body)
    wanted = without_ids([whole_chat(choice) for choice in whole["choices"]])
    found = without_ids(chat_of(events, len(wanted)))
    assert logprobs_apart(found) == pytest.approx(logprobs_apart(wanted), abs=0.01)
    assert found == wanted
    assert usage_of(last) == usage_of(whole)
    return wanted


def chat_body(model: str, fields: Object) -> Object:
    fields = dict(fields)
    messages = [{"role": "user", "content": fields.pop("said", STORY)}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 120, **fields}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", CHATS)
def test_chats(server: Server, model: str, name: str) -> None:
    if model == REAL:
        engines_env.require(REAL)
    for choice in same_chat(server, chat_body(model, CHATS[name])):
        assert choice["reason"] in ("stop", "length", "tool_calls")
        assert bool(choice["calls"]) >= (choice["reason"] == "tool_calls")
        assert "<tool_call>" not in choice["content"]
        if "logprobs" in CHATS[name] and not choice["calls"]:
            listed = "".join(entry["token"] for entry in choice["logprobs"])
            assert choice["content"].startswith(listed)
            assert listed == choice["content"] or "stop" in CHATS[name]  # which may cut a token
        if "response_format" in CHATS[name] and choice["reason"] == "stop":
            assert isinstance(json.loads(choice["content"]), dict)


@pytest.mark.parametrize("name", THINKING)
def test_thoughts(server: Server, name: str) -> None:
    (choice, *_) = same_chat(server, chat_body("thinker", THINKING[name]))
    assert choice["thought"]
    assert "think>" not in choice["thought"] + choice["content"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", COMPLETIONS)
def test_completions(server: Server, model: str, name: str) -> None:
    if model == REAL:
        engines_env.require(REAL)
    body = {"model": model, "prompt": "The", "temperature": 0, **COMPLETIONS[name]}
    whole = json.loads(ask(server, "/v1/completions", body))
    *events, last = events_of(server, "/v1/completions", body)
    assert usage_of(last) == usage_of(whole)
    found = [{"text": "", "logprobs": {}, "reason": None} for _ in whole["choices"]]
    for part in (event["choices"][0] for event in events):
        choice: Any = found[part["index"]]
        assert choice["reason"] is None
        choice["reason"] = part["finish_reason"]
        choice["text"] += part["text"]
        for key, values in (part["logprobs"] or {}).items():
            choice["logprobs"].setdefault(key, []).extend(values)
    for choice, wanted in zip(found, whole["choices"], strict=True):
        assert choice["text"] == wanted["text"]
        assert choice["reason"] == wanted["finish_reason"]
        if wanted["logprobs"] is not None:
            empty: Object = {key: [] for key in wanted["logprobs"]}
            found_here = {**empty, **choice["logprobs"]}
            for key, values in wanted["logprobs"].items():
                if key == "token_logprobs":
                    assert found_here[key] == pytest.approx(values, abs=0.01)
                elif key != "top_logprobs":
                    assert found_here[key] == values
            assert [list(top or {}) for top in found_here["top_logprobs"]] == [
                list(top or {}) for top in wanted["logprobs"]["top_logprobs"]
            ]
            assert wanted["text"].startswith("".join(wanted["logprobs"]["tokens"]))
