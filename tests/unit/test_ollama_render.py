"""From answers to Ollama's lines and objects, framed natively or not, and its models and errors."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from streams import ADMIT, CHOICE_END, HEAD, KEY, LENGTH, REASONING, TOOL, Bench

from smmf_core.api import ollama, openai
from smmf_core.api.dialect import Times
from smmf_core.control_messages import ModelEntry
from smmf_core.errors import KINDS, ApiError
from smmf_core.messages import (
    CONTENT_FILTER,
    STOP,
    TOOL_CALLS,
    Choice,
    Result,
    TokenBatch,
    Tokenized,
    TokenLogprob,
    ToolCall,
    ToolDelta,
    Usage,
    Vectors,
)

USAGE = Usage(prompt=10, completion=4, cached=3, reasoning=1)
TIMES = Times(1.5, 0.25, 0.5, 0.75)
WHEN = "2023-11-14T22:13:20.000000Z"
START = {"model": 'm"é', "created_at": WHEN}
END = {
    "total_duration": 1_500_000_000,
    "load_duration": 250_000_000,
    "prompt_eval_count": 10,
    "prompt_eval_duration": 500_000_000,
    "eval_count": 4,
    "eval_duration": 750_000_000,
}
KINDS_OF = {
    "chat": (ollama.ChatRenderer, ollama.parse_chat),
    "generate": (ollama.GenerateRenderer, ollama.parse_generate),
}


def renderer(kind: str = "chat") -> Any:
    make, parse = KINDS_OF[kind]
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "prompt": "hi"}
    found = parse(json.dumps(body).encode())
    made = make(openai.finish(found, {}), "1", 1_700_000_000, 'm"é', "smmf-1")  # type: ignore[arg-type]
    made.times = TIMES
    assert made.first() == made.admitted(10) == b""
    return made


def lines(stream: bytes) -> list[Any]:
    assert stream.endswith(b"\n")
    return [json.loads(line) for line in stream[:-1].split(b"\n")]


def said(kind: str, text: str, **more: Any) -> dict[str, Any]:
    if kind == "chat":
        return {**START, "message": {"role": "assistant", "content": text, **more}}
    return {**START, "response": text, **more}


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.mark.parametrize("kind", KINDS_OF)
def test_a_native_stream_on_the_wire(bench: Bench, kind: str) -> None:
    made = renderer(kind)
    fd = bench.router.fileno()
    bench.table.open(KEY, 1, fd, made.frame, made.prefix, HEAD, made.first(), False, 1.0)
    bench.put(ADMIT)
    bench.text('Hm "so"', kind=REASONING)
    bench.text("It")
    bench.text(" is\n3")
    bench.put(CHOICE_END, count=LENGTH)
    assert bench.drain()[1:] == [(KEY, CHOICE_END, 0, LENGTH, b"")]
    assert made.choice_end(0, LENGTH, None) == b""
    bench.table.append(KEY, made.tail(USAGE), True)
    wire = bench.wire()
    assert lines(wire.removeprefix(HEAD)) == [
        {**said(kind, "", thinking='Hm "so"'), "done": False},
        {**said(kind, "It is\n3"), "done": False},
        {**said(kind, ""), "done": True, "done_reason": "length", **END},
    ]
    assert bench.table.ended(KEY)


@pytest.mark.parametrize("kind", KINDS_OF)
def test_python_frames_as_the_native_side_does(bench: Bench, kind: str) -> None:
    """After a call: no text may overtake it."""
    native, made = renderer(kind), renderer(kind)
    fd = bench.router.fileno()
    bench.table.open(KEY, 1, fd, native.frame, native.prefix, HEAD, b"", False, 1.0)
    bench.put(ADMIT)
    bench.text("thought", kind=REASONING)
    bench.text("text \u00fc\u0001")
    bench.put(TOOL)
    wire = bench.wire().removeprefix(HEAD)
    text = made.tokens(0, TokenBatch("text \u00fc\u0001", [], []), None)
    assert lines(wire) == lines(made.reasoning(0, "thought", None) + text)


def test_calls_are_told_whole() -> None:
    made = renderer()
    assert made.tool_deltas(0, [ToolDelta(0, "c0", "add", '{"a"')], None) == b""
    assert made.tool_deltas(0, [ToolDelta(0, "", "", ":1}")], None) == b""
    begun = made.tool_deltas(0, [ToolDelta(1, "c1", "sub", "{}")], None)
    end = made.choice_end(0, TOOL_CALLS, None) + made.tail(USAGE)
    add = {"id": "c0", "function": {"index": 0, "name": "add", "arguments": {"a": 1}}}
    sub = {"id": "c1", "function": {"index": 1, "name": "sub", "arguments": {}}}
    assert lines(begun) == [{**said("chat", "", tool_calls=[add]), "done": False}]
    assert lines(end) == [
        {**said("chat", "", tool_calls=[sub]), "done": False},
        {**said("chat", ""), "done": True, "done_reason": "stop", **END},
    ]
    calls = [ToolCall("c0", "add", '{"a":1}'), ToolCall("c1", "sub", "{}")]
    whole = json.loads(made.response(Result([Choice("", [], TOOL_CALLS, tool_calls=calls)]), USAGE))
    assert whole["message"]["tool_calls"] == [add, sub]


def test_text_after_a_call_ends_it() -> None:
    made = renderer()
    made.tool_deltas(0, [ToolDelta(0, "c0", "add", '{"a":1}')], None)
    call, text = lines(made.tokens(0, TokenBatch("so", [], []), None))
    assert call["message"]["tool_calls"][0]["id"] == "c0"
    assert text["message"] == {"role": "assistant", "content": "so"}
    made.tool_deltas(0, [ToolDelta(1, "c1", "add", "{}")], None)
    call, thought = lines(made.reasoning(0, "hm", None))
    assert call["message"]["tool_calls"][0]["id"] == "c1"
    assert thought["message"]["thinking"] == "hm"


@pytest.mark.parametrize("cut", ['{"a":', "[1]", "nonsense", '"text"'])
def test_a_call_that_was_cut_is_none(cut: str) -> None:
    made = renderer()
    made.tool_deltas(0, [ToolDelta(0, "c0", "add", cut)], None)
    assert made.choice_end(0, LENGTH, None) == b""
    choice = Choice("", [], LENGTH, tool_calls=[ToolCall("c0", "add", cut)])
    assert "tool_calls" not in json.loads(made.response(Result([choice]), USAGE))["message"]


@pytest.mark.parametrize("kind", KINDS_OF)
@pytest.mark.parametrize(
    ("reason", "told"),
    [(STOP, "stop"), (LENGTH, "length"), (TOOL_CALLS, "stop"), (CONTENT_FILTER, "content_filter")],
)
def test_whole_answers(kind: str, reason: int, told: str) -> None:
    choice = Choice("It is.", [], reason, reasoning="Hm.")
    whole = renderer(kind).response(Result([choice]), USAGE)
    more = {"done": True, "done_reason": told, **END}
    assert json.loads(whole) == {**said(kind, "It is.", thinking="Hm."), **more}


def test_logprobs_whole_and_streaming() -> None:
    described = [TokenLogprob(b"It", -0.5, [(b"It", -0.5), (b"I", -1.0)])]
    entry = {
        "token": "It", "logprob": -0.5, "bytes": [73, 116],
        "top_logprobs": [
            {"token": "It", "logprob": -0.5, "bytes": [73, 116]},
            {"token": "I", "logprob": -1.0, "bytes": [73]},
        ],
    }  # fmt: skip
    (line,) = lines(renderer().tokens(0, TokenBatch("It", [5], described), None))
    assert line == {**said("chat", "It"), "logprobs": [entry], "done": False}
    choice = Choice("It", [5], STOP, logprobs=described)
    whole = json.loads(renderer().response(Result([choice]), USAGE))
    assert whole["logprobs"] == [entry]


def test_durations_are_never_zero() -> None:
    made = renderer()
    made.times = Times()
    end = json.loads(made.tail(USAGE))
    assert [value for key, value in end.items() if key.endswith("duration")] == [1, 1, 1, 1]


def test_signs_of_life_and_errors_in_a_stream() -> None:
    made = renderer()
    assert lines(made.keepalive()) == [{**said("chat", ""), "done": False}]
    error = ApiError("worker_lost", "The worker died.")
    assert lines(made.error_event(error)) == [{"error": "The worker died."}]


# --- errors ---


@pytest.mark.parametrize("code", KINDS)
def test_every_error_has_its_own_status(code: str) -> None:
    error = ApiError(code, "So it is.", "messages")
    assert ollama.ERRORS.status(error) == error.status
    assert set(json.loads(ollama.ERRORS.body(error, "r"))) == {"error"}


def test_an_error_names_its_parameter() -> None:
    def told(*said: str) -> str:
        return str(json.loads(ollama.ERRORS.body(ApiError(*said), ""))["error"])

    assert told("invalid_value", "It is wrong.", "format") == "format: It is wrong."
    assert told("invalid_value", "Invalid 'format': no.", "format") == "Invalid 'format': no."
    assert "not found" in told("model_not_found", "The model `x` does not exist.", "model")


# --- embeddings ---


def test_embeddings_as_arrays() -> None:
    wanted = ollama.parse_embed(b'{"model":"m","input":["a","b"]}', "1")
    wanted.renderer.model = 'm"é'
    wanted.renderer.times = TIMES  # type: ignore[attr-defined]
    vectors = Vectors(struct.pack("<4f", 0.5, -1, 2, 0.1), 2, [1, 1])
    assert json.loads(wanted.renderer.response(vectors, Usage(2, 0))) == {
        "model": 'm"é',
        "embeddings": [[0.5, -1.0], [2.0, 0.1]],
        "total_duration": 1_500_000_000,
        "load_duration": 250_000_000,
        "prompt_eval_count": 2,
    }
    old = ollama.parse_embeddings(b'{"model":"m","prompt":"a"}', "1").renderer
    one = Vectors(struct.pack("<2f", 0.5, -1), 2, [1])
    assert json.loads(old.response(one, Usage(1, 0))) == {"embedding": [0.5, -1.0]}


def test_nothing_was_embedded() -> None:
    nothing = Tokenized(0, 10, b"[]", b"")
    new = ollama.parse_embed(b'{"model":"m"}', "1").renderer
    old = ollama.parse_embeddings(b'{"model":"m"}', "1").renderer
    assert json.loads(new.response(nothing, Usage(0, 0))) == {"model": "m", "embeddings": []}
    assert json.loads(old.response(nothing, Usage(0, 0))) == {"embedding": []}


# --- models ---


def entry(name: str, **fields: Any) -> ModelEntry:
    known: dict[str, Any] = {
        "index": 0, "name": name, "aliases": [], "task": "generate", "backend": "llama_cpp",
        "state": "ready", "reason": "", "created": 1_700_000_000, "context_length": 4096,
        "strategy": "round_robin", "max_queue": 1, "max_queue_tokens": 1, "defaults": {},
        "capabilities": ["chat", "completion", "tools", "reasoning", "logprobs"],
    }  # fmt: skip
    return ModelEntry(**{**known, **fields})


def test_tags_have_every_name() -> None:
    models = [
        entry("Qwen2.5-7B", aliases=["default"], adapters=["sql"]),
        entry("org/embed:v2", task="embed", backend="embed", capabilities=[]),
        entry("rank", task="rerank", capabilities=["rerank"]),
    ]
    found = json.loads(ollama.render_tags(models))["models"]
    names = ["Qwen2.5-7B:latest", "org/embed:v2", "rank:latest", "default:latest", "Qwen2.5-7B:sql"]
    assert [model["name"] for model in found] == [model["model"] for model in found] == names
    assert [model["capabilities"] for model in found[:3]] == [
        ["completion", "tools", "thinking"],
        ["embedding"],
        [],
    ]
    parents = [model["details"]["parent_model"] for model in found]
    assert parents == ["", "", "", "Qwen2.5-7B", "Qwen2.5-7B"]
    assert (found[0]["modified_at"], found[0]["details"]["format"]) == (WHEN, "gguf")
    few = json.loads(ollama.render_tags(models, {"rank", "Qwen2.5-7B:sql"}))["models"]
    assert [model["name"] for model in few] == ["rank:latest", "Qwen2.5-7B:sql"]
    digests = {model["digest"] for model in found}
    assert len(digests) == 5
    assert {len(digest) for digest in digests} == {64}


def test_ps_tells_when_a_model_goes() -> None:
    loaded = [(entry("a"), None), (entry("b"), -1.0), (entry("c"), 60.0)]
    found = json.loads(ollama.render_ps(loaded, 1_700_000_000))["models"]
    ends = [model["expires_at"] for model in found]
    assert ends == ["2199-01-01T00:00:00.000000Z"] * 2 + ["2023-11-14T22:14:20.000000Z"]
    assert [model["context_length"] for model in found] == [4096] * 3


def test_show_tells_what_is_known() -> None:
    defaults = {"temperature": 0.5, "max_tokens": 9, "stop": ["a", 'b"'], "ignore_eos": True}
    found = json.loads(ollama.render_show(entry("x", defaults=defaults, dimensions=8), "x:latest"))
    assert found["parameters"].split("\n") == [
        "num_ctx 4096", "num_predict 9", "temperature 0.5", 'stop "a"', 'stop "b\\""',
    ]  # fmt: skip
    assert found["modelfile"].startswith("FROM x\nPARAMETER num_ctx 4096\n")
    assert found["model_info"] == {
        "general.architecture": "llama_cpp",
        "general.basename": "x",
        "llama_cpp.context_length": 4096,
        "llama_cpp.embedding_length": 8,
    }
    assert found["capabilities"] == ["completion", "tools", "thinking"]
    assert found["details"]["parent_model"] == ""
    known = json.loads(ollama.render_show(entry("Qwen2.5-7B-Instruct"), "x"))
    assert known["details"]["family"].startswith("qwen2")


@pytest.mark.parametrize(
    ("body", "name"), [(b'{"model":"a"}', "a"), (b'{"name":"a","verbose":true}', "a")]
)
def test_whom_a_body_is_about(body: bytes, name: str) -> None:
    assert ollama.find_name(body) == name


@pytest.mark.parametrize("body", [b"{}", b"", b'{"model":""}', b'{"model":5}'])
def test_a_body_about_nobody_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        ollama.find_name(body)
    assert caught.value.status == 400
