"""From answers to bytes: the exact layout of streams and of whole responses."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from smmf_core.api import openai
from smmf_core.control_messages import ModelEntry
from smmf_core.errors import ApiError
from smmf_core.messages import (
    ADMIT,
    CHOICE_END,
    LENGTH,
    REASONING,
    STOP,
    TOKENS,
    TOOL_CALLS,
    Choice,
    Result,
    TokenBatch,
    TokenLogprob,
    ToolCall,
    ToolDelta,
    Usage,
)
from smmf_core.native import _ring
from smmf_core.native._frames import StreamTable

USAGE = Usage(prompt=10, completion=4, cached=3, reasoning=1)
USAGE_JSON = {
    "prompt_tokens": 10,
    "completion_tokens": 4,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
STREAM_USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
SAME: dict[str, Any] = {
    "created": 1_700_000_000,
    "model": 'team/"m":1 é',
    "system_fingerprint": "smmf-1",
}


def renderer(dialect: str = "chat", **fields: Any) -> openai.Renderer:
    prompt: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    if dialect == "completion":
        prompt = {"prompt": "hi"}
    body = {"model": SAME["model"], **prompt, **fields}
    parsed = openai.finish(openai.parse(dialect, json.dumps(body).encode()), {})
    return openai.Renderer(parsed, "abc", 1_700_000_000, parsed.model, "smmf-1")


def events(stream: bytes) -> list[Any]:
    """The events of a stream; the sentinel stays a string."""
    assert stream.endswith(b"\n\n")
    lines = stream.decode().removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") for line in lines)
    texts = [line.removeprefix("data: ") for line in lines]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


class Native:
    """A real ring and StreamTable with one stream: a Worker's records in, what is sent out."""

    def __init__(self, render: openai.Renderer) -> None:
        self._eventfds = os.eventfd(0), os.eventfd(0)
        memfd = _ring.create(1 << 16, 4)
        self._writer = _ring.RingWriter(memfd, *self._eventfds)
        self._reader = _ring.RingReader(memfd, *self._eventfds)
        os.close(memfd)
        self._table = StreamTable(1 << 20)
        self._table.open(
            1, 0, -1, render.frame, render.prefix, b"", render.first(), False, 0.0
        )  # fmt: skip

    def sent(self, *records: tuple[int, int, int, bytes]) -> bytes:
        """Bytes of one loop turn; records are (kind, choice, count, payload)."""
        batch = [(kind, 1, 0, choice, count, data) for kind, choice, count, data in records]
        assert self._writer.write(batch) == len(batch)
        self._table.drain(self._reader, 0.0, [])
        return b"".join(rest for _, rest in self._table.flush())

    def close(self) -> None:
        self._writer.close()
        self._reader.close()
        for fd in self._eventfds:
            os.close(fd)


@pytest.fixture
def native() -> Iterator[Callable[[openai.Renderer], Native]]:
    opened: list[Native] = []

    def make(render: openai.Renderer) -> Native:
        opened.append(Native(render))
        return opened[-1]

    yield make
    for stream in opened:
        stream.close()


ADMITTED = (ADMIT, 0, 10, bytes(4))


def text(choice: int, text: str) -> tuple[int, int, int, bytes]:
    return (TOKENS, choice, 1, bytes(4) + text.encode())


def end(choice: int, reason: int) -> tuple[int, int, int, bytes]:
    return (CHOICE_END, choice, reason, b"")


def chunk(**fields: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-abc", "object": "chat.completion.chunk", **SAME, **fields}


def chat_choice(index: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


def text_chunk(**fields: Any) -> dict[str, Any]:
    return {"id": "cmpl-abc", "object": "text_completion", **SAME, **fields}


def text_choice(index: int, text: str, reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


ROLE = {"role": "assistant", "content": "", "refusal": None}


MakeNative = Callable[[openai.Renderer], Native]


def test_a_chat_stream(native: MakeNative) -> None:
    render = renderer(stream=True, n=2)
    stream = native(render).sent(ADMITTED, text(1, "a \n"), end(1, LENGTH))
    assert events(stream + render.tail(USAGE)) == [
        chunk(choices=[chat_choice(0, ROLE)]),
        chunk(choices=[chat_choice(1, ROLE)]),
        chunk(choices=[chat_choice(1, {"content": "a \n"})]),
        chunk(choices=[chat_choice(1, {}, "length")]),
        "[DONE]",
    ]


def test_a_chat_stream_with_usage(native: MakeNative) -> None:
    render = renderer(**STREAM_USAGE)
    stream = native(render).sent(ADMITTED, text(0, "x"), end(0, STOP))
    assert events(stream + render.tail(USAGE)) == [
        chunk(choices=[chat_choice(0, ROLE)], usage=None),
        chunk(choices=[chat_choice(0, {"content": "x"})], usage=None),
        chunk(choices=[chat_choice(0, {}, "stop")], usage=None),
        chunk(choices=[], usage=USAGE_JSON),
        "[DONE]",
    ]


def test_a_completion_stream_ends_in_its_last_text(native: MakeNative) -> None:
    render = renderer("completion", stream=True)
    stream = native(render).sent(ADMITTED, text(0, "x"), end(0, STOP))
    assert events(stream + render.tail(USAGE)) == [
        text_chunk(choices=[text_choice(0, "x", "stop")]),
        "[DONE]",
    ]


def test_a_completion_stream_with_usage_and_a_late_end(native: MakeNative) -> None:
    render = renderer("completion", **STREAM_USAGE)
    stream = native(render)
    body = stream.sent(ADMITTED, text(0, "x")) + stream.sent(end(0, LENGTH))
    assert events(body + render.tail(USAGE)) == [
        text_chunk(choices=[text_choice(0, "x")], usage=None),
        text_chunk(choices=[text_choice(0, "", "length")], usage=None),
        text_chunk(choices=[], usage=USAGE_JSON),
        "[DONE]",
    ]


@pytest.mark.parametrize("dialect", ["chat", "completion"])
@pytest.mark.parametrize("options", [{"stream": True}, STREAM_USAGE])
def test_events_from_here_equal_native_ones(
    native: MakeNative, dialect: str, options: dict[str, Any]
) -> None:
    render = renderer(dialect, n=2, **options)
    stream = native(render)
    assert stream.sent(ADMITTED) == render.first()
    batch = TokenBatch('a "é"', [1, 2], [])
    assert render.tokens(1, batch, None) == stream.sent(text(1, 'a "é"'))
    assert render.choice_end(1, LENGTH, None) == stream.sent(end(1, LENGTH))


def test_continuous_usage_stands_in_every_event() -> None:
    render = renderer(**STREAM_USAGE)
    body = render.tokens(0, TokenBatch("a", [], []), USAGE) + render.choice_end(0, STOP, USAGE)
    assert [event["usage"] for event in events(body)] == [USAGE_JSON, USAGE_JSON]


@pytest.mark.parametrize("dialect", ["chat", "completion"])
def test_a_keepalive_changes_nothing(dialect: str) -> None:
    (event,) = events(renderer(dialect, stream=True).keepalive())
    expected = chat_choice(0, {}) if dialect == "chat" else text_choice(0, "")
    assert event["choices"] == [expected]
    assert "error" not in event


def test_an_error_ends_a_stream() -> None:
    error = ApiError("worker_lost", "gone", None)
    assert events(renderer(stream=True).error_event(error)) == [
        {
            "error": {
                "message": "gone",
                "type": "server_error",
                "param": None,
                "code": "worker_lost",
            }
        },
        "[DONE]",
    ]


def test_a_whole_chat_answer() -> None:
    result = Result([Choice('a "é"\n', [1], STOP), Choice("", [], LENGTH)])
    messages: list[dict[str, Any]] = [
        {"role": "assistant", "content": content, "refusal": None, "annotations": []}
        for content in ('a "é"\n', "")
    ]
    assert json.loads(renderer(n=2).response(result, USAGE)) == {
        "id": "chatcmpl-abc",
        "object": "chat.completion",
        **SAME,
        "choices": [
            {"index": 0, "message": messages[0], "logprobs": None, "finish_reason": "stop"},
            {"index": 1, "message": messages[1], "logprobs": None, "finish_reason": "length"},
        ],
        "service_tier": "default",
        "usage": USAGE_JSON,
    }


def test_a_whole_completion() -> None:
    result = Result([Choice("a", [1], STOP), Choice("b", [2], LENGTH)])
    assert json.loads(renderer("completion", n=2).response(result, USAGE)) == text_chunk(
        choices=[text_choice(0, "a", "stop"), text_choice(1, "b", "length")], usage=USAGE_JSON
    )


# --- logprobs ---

EACUTE = "é".encode()
DESCRIBED = [
    TokenLogprob(b"a" + EACUTE[:1], -0.5, [(b"a" + EACUTE[:1], -0.5), (b"b", -math.inf)]),
    TokenLogprob(EACUTE[1:], math.nan, [(b"\xff", -2.0)]),
]
CHAT_ENTRIES = [
    {
        "token": "a",
        "logprob": -0.5,
        "bytes": [97, 195],
        "top_logprobs": [
            {"token": "a", "logprob": -0.5, "bytes": [97, 195]},
            {"token": "b", "logprob": -9999.0, "bytes": [98]},
        ],
    },
    {
        "token": "é",
        "logprob": -9999.0,
        "bytes": [169],
        "top_logprobs": [{"token": "\ufffd", "logprob": -2.0, "bytes": [255]}],
    },
]


def test_chat_logprobs() -> None:
    choice = Choice("aé", [1, 2], STOP, DESCRIBED)
    answer = json.loads(renderer(logprobs=True, top_logprobs=2).response(Result([choice]), USAGE))
    assert answer["choices"][0]["logprobs"] == {"content": CHAT_ENTRIES, "refusal": None}


def test_chat_logprobs_in_a_stream() -> None:
    render = renderer(stream=True, logprobs=True)
    parts = [TokenBatch("a", [1], DESCRIBED[:1]), TokenBatch("é", [2], DESCRIBED[1:])]
    body = b"".join(render.tokens(0, part, None) for part in parts)
    choices = [event["choices"][0] for event in events(body)]
    assert [choice["delta"] for choice in choices] == [{"content": "a"}, {"content": "é"}]
    assert [choice["logprobs"]["content"] for choice in choices] == [
        CHAT_ENTRIES[:1],
        CHAT_ENTRIES[1:],
    ]


def test_each_choice_has_its_own_half_characters() -> None:
    render = renderer(stream=True, logprobs=True, n=2)
    order = [(0, DESCRIBED[0]), (1, DESCRIBED[0]), (0, DESCRIBED[1]), (1, DESCRIBED[1])]
    said = {0: "", 1: ""}
    for choice, token in order:
        (event,) = events(render.tokens(choice, TokenBatch("", [1], [token]), None))
        said[choice] += event["choices"][0]["logprobs"]["content"][0]["token"]
    assert said == {0: "aé", 1: "aé"}


def test_a_broken_last_character_is_in_both_texts() -> None:
    half = [TokenLogprob(EACUTE[:1], -1.0, [])]
    choice = Choice("\ufffd", [1], LENGTH, half)
    answer = json.loads(renderer(logprobs=True).response(Result([choice]), USAGE))
    assert answer["choices"][0]["logprobs"]["content"][0]["token"] == "\ufffd"
    body = renderer(stream=True, logprobs=True).tokens(0, TokenBatch("\ufffd", [], half), None)
    assert events(body)[0]["choices"][0]["logprobs"]["content"][0]["token"] == "\ufffd"


def test_completion_logprobs_with_echo() -> None:
    prompt = [TokenLogprob(b"hi", None, []), TokenLogprob(b" you", -3.0, [(b" me", -0.1)])]
    choice = Choice("hi youaé", [1, 2], STOP, [*prompt, *DESCRIBED])
    render = renderer("completion", echo=True, logprobs=1)
    answer = json.loads(render.response(Result([choice]), USAGE))
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["hi", " you", "a", "é"],
        "token_logprobs": [None, -3.0, -0.5, -9999.0],
        "top_logprobs": [
            None,
            {" me": -0.1, " you": -3.0},
            {"a": -0.5, "b": -9999.0},
            {"\ufffd": -2.0, "é": -9999.0},
        ],
        "text_offset": [0, 2, 6, 7],
    }


def test_completion_offsets_go_on_in_a_stream() -> None:
    render = renderer("completion", stream=True, logprobs=0)
    parts = [TokenBatch("a", [1], DESCRIBED[:1]), TokenBatch("é", [2], DESCRIBED[1:])]
    body = b"".join(render.tokens(0, part, None) for part in parts)
    offsets = [event["choices"][0]["logprobs"]["text_offset"] for event in events(body)]
    assert offsets == [[0], [1]]


# --- thoughts and calls of tools ---

CALLS = [ToolCall("call_a", "add", '{"a": "é"}'), ToolCall("call_b", "f", "{}")]


def message(choice: Choice) -> Any:
    return json.loads(renderer().response(Result([choice]), USAGE))["choices"][0]


def test_a_message_with_calls_only_has_no_content() -> None:
    found = message(Choice("", [], TOOL_CALLS, tool_calls=CALLS))
    assert found["finish_reason"] == "tool_calls"
    assert found["message"]["content"] is None
    assert found["message"]["tool_calls"] == [
        {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
        for c in CALLS
    ]
    assert "reasoning" not in found["message"]


def test_a_message_with_thoughts_has_them_under_both_names() -> None:
    found = message(Choice("four", [], STOP, reasoning="Hm\n"))["message"]
    assert (found["content"], found["reasoning"], found["reasoning_content"]) == (
        "four", "Hm\n", "Hm\n",
    )  # fmt: skip
    assert "tool_calls" not in found
    assert message(Choice("", [], LENGTH, reasoning="Hm"))["message"]["content"] == ""


def test_calls_in_a_stream_say_who_they_are_once() -> None:
    deltas = [
        ToolDelta(1, "call_b", "f", ""),
        ToolDelta(1, "", "", '{"a'),
        ToolDelta(1, "", "", ""),
    ]
    found = events(renderer(**STREAM_USAGE).tool_deltas(2, deltas, None))
    assert [event["choices"][0]["delta"] for event in found] == [
        {"tool_calls": [{
            "index": 1, "id": "call_b", "type": "function",
            "function": {"name": "f", "arguments": ""},
        }]},
        {"tool_calls": [{"index": 1, "function": {"arguments": '{"a'}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": ""}}]},
    ]  # fmt: skip
    for event in found:
        assert (event["choices"][0]["index"], event["usage"]) == (2, None)
        assert event["choices"][0]["finish_reason"] is None


def test_thoughts_in_a_stream_are_framed_alike_here_and_natively(native: MakeNative) -> None:
    render = renderer(stream=True)
    said = 'Hm "so" é\n'
    sent = events(native(render).sent(ADMITTED, (REASONING, 0, 1, bytes(4) + said.encode())))
    assert sent[1:] == events(render.reasoning(0, said, None))
    (choice,) = sent[1]["choices"]
    assert choice == chat_choice(0, {"reasoning_content": said, "reasoning": said})


# --- models ---


def entry(index: int, name: str, aliases: list[str], context_length: int = 64) -> ModelEntry:
    return ModelEntry(
        index=index, name=name, aliases=aliases, task="generate", backend="echo", state="ready",
        reason="", created=5, context_length=context_length, strategy="round_robin", max_queue=0,
        max_queue_tokens=0, defaults={}, capabilities=["chat"],
    )  # fmt: skip


def test_models_come_in_order_and_aliases_last() -> None:
    entries = [entry(0, "org/b", ["z"]), entry(1, "a", ["y", "x"], 0)]
    listed = json.loads(openai.render_models(entries))
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["org/b", "a", "z", "y", "x"]
    assert [model["root"] for model in listed["data"]] == ["org/b", "a", "org/b", "a", "a"]
    assert [model["max_model_len"] for model in listed["data"][:2]] == [64, None]


def test_one_model_as_it_was_asked_for() -> None:
    assert json.loads(openai.render_model(entry(0, "org/b", ["z"]), "z")) == {
        "id": "z",
        "object": "model",
        "created": 5,
        "owned_by": "smmf",
        "root": "org/b",
        "max_model_len": 64,
        "status": "ready",
        "task": "generate",
        "capabilities": ["chat"],
    }
