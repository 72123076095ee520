"""From answers to bytes: the exact layout of streams and of whole responses."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from smmf_core.api import openai
from smmf_core.errors import ApiError
from smmf_core.messages import (
    LENGTH,
    STOP,
    Choice,
    ModelEntry,
    Result,
    TokenBatch,
    TokenLogprob,
    Usage,
)

USAGE = Usage(prompt=10, completion=4, cached=3, reasoning=1)
USAGE_JSON = {
    "prompt_tokens": 10,
    "completion_tokens": 4,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
STREAM_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
SAME = {
    "created": 1_700_000_000,
    "model": 'team/"m":1 é',
    "system_fingerprint": "smmf-1",
}


def renderer(dialect: str = "chat", **fields: Any) -> openai.Renderer:
    prompt = {"messages": [{"role": "user", "content": "hi"}]}
    if dialect == "completion":
        prompt = {"prompt": "hi"}  # type: ignore[dict-item]
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


def text_event(render: openai.Renderer, choice: int, escaped: bytes) -> bytes:
    """A plain text event, put together as the native framing does."""
    frame, number = render.frame, str(choice).encode()
    return (
        render.prefix + number + frame.text_open + escaped + frame.text_close + b"null" + frame.tail
    )


def finish_event(render: openai.Renderer, choice: int, reason: int) -> bytes:
    frame, number = render.frame, str(choice).encode()
    return render.prefix + number + frame.finish_open + frame.reasons[reason] + frame.tail


def chunk(**fields: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-abc", "object": "chat.completion.chunk", **SAME, **fields}


def chat_choice(index: int, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}


def text_chunk(**fields: Any) -> dict[str, Any]:
    return {"id": "cmpl-abc", "object": "text_completion", **SAME, **fields}


def text_choice(index: int, text: str, reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}


ROLE = {"role": "assistant", "content": "", "refusal": None}


def test_a_chat_stream() -> None:
    render = renderer(stream=True, n=2)
    stream = render.first() + text_event(render, 1, b"a \\n") + finish_event(render, 1, LENGTH)
    assert events(stream + render.tail(USAGE)) == [
        chunk(choices=[chat_choice(0, ROLE)]),
        chunk(choices=[chat_choice(1, ROLE)]),
        chunk(choices=[chat_choice(1, {"content": "a \n"})]),
        chunk(choices=[chat_choice(1, {}, "length")]),
        "[DONE]",
    ]
    assert not render.frame.merge_finish


def test_a_chat_stream_with_usage() -> None:
    render = renderer(**STREAM_USAGE)
    stream = render.first() + text_event(render, 0, b"x") + finish_event(render, 0, STOP)
    assert events(stream + render.tail(USAGE)) == [
        chunk(choices=[chat_choice(0, ROLE)], usage=None),
        chunk(choices=[chat_choice(0, {"content": "x"})], usage=None),
        chunk(choices=[chat_choice(0, {}, "stop")], usage=None),
        chunk(choices=[], usage=USAGE_JSON),
        "[DONE]",
    ]


@pytest.mark.parametrize("options", [{"stream": True}, STREAM_USAGE])
def test_a_completion_stream(options: dict[str, Any]) -> None:
    render = renderer("completion", **options)
    usage = {"usage": None} if options == STREAM_USAGE else {}
    assert render.first() == b""
    assert render.frame.merge_finish
    last = text_event(render, 0, b"x").replace(b'"finish_reason":null', b'"finish_reason":"stop"')
    expected: list[Any] = [text_chunk(choices=[text_choice(0, "x", "stop")], **usage)]
    if usage:
        expected.append(text_chunk(choices=[], usage=USAGE_JSON))
    assert events(last + render.tail(USAGE)) == [*expected, "[DONE]"]


@pytest.mark.parametrize("dialect", ["chat", "completion"])
@pytest.mark.parametrize("options", [{"stream": True}, STREAM_USAGE])
def test_events_from_here_equal_native_ones(dialect: str, options: dict[str, Any]) -> None:
    render = renderer(dialect, n=2, **options)
    batch = TokenBatch('a "é"', [1, 2], [])
    assert render.tokens(1, batch, None) == text_event(render, 1, 'a \\"é\\"'.encode())
    assert render.choice_end(1, LENGTH, None) == finish_event(render, 1, LENGTH)


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
    messages = [
        {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        for text in ('a "é"\n', "")
    ]
    assert json.loads(renderer(n=2).response(result, USAGE)) == {
        "id": "chatcmpl-abc",
        "object": "chat.completion",
        **SAME,
        "choices": [
            {"index": 0, "message": messages[0], "logprobs": None, "finish_reason": "stop"},
            {"index": 1, "message": messages[1], "logprobs": None, "finish_reason": "length"},
        ],
        "usage": USAGE_JSON,
    }


def test_a_whole_completion() -> None:
    result = Result([Choice("a", [1], STOP), Choice("b", [2], LENGTH)])
    assert json.loads(renderer("completion", n=2).response(result, USAGE)) == text_chunk(
        choices=[text_choice(0, "a", "stop"), text_choice(1, "b", "length")], usage=USAGE_JSON
    )


# --- logprobs ---

EACUTE = "é".encode()
TOKENS = [
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
    choice = Choice("aé", [1, 2], STOP, TOKENS)
    answer = json.loads(renderer(logprobs=True, top_logprobs=2).response(Result([choice]), USAGE))
    assert answer["choices"][0]["logprobs"] == {"content": CHAT_ENTRIES, "refusal": None}


def test_chat_logprobs_in_a_stream() -> None:
    render = renderer(stream=True, logprobs=True)
    parts = [TokenBatch("a", [1], TOKENS[:1]), TokenBatch("é", [2], TOKENS[1:])]
    body = b"".join(render.tokens(0, part, None) for part in parts)
    choices = [event["choices"][0] for event in events(body)]
    assert [choice["delta"] for choice in choices] == [{"content": "a"}, {"content": "é"}]
    assert [choice["logprobs"]["content"] for choice in choices] == [
        CHAT_ENTRIES[:1],
        CHAT_ENTRIES[1:],
    ]


def test_each_choice_has_its_own_half_characters() -> None:
    render = renderer(stream=True, logprobs=True, n=2)
    order = [(0, TOKENS[0]), (1, TOKENS[0]), (0, TOKENS[1]), (1, TOKENS[1])]
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
    choice = Choice("hi youaé", [1, 2], STOP, [*prompt, *TOKENS])
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
    parts = [TokenBatch("a", [1], TOKENS[:1]), TokenBatch("é", [2], TOKENS[1:])]
    body = b"".join(render.tokens(0, part, None) for part in parts)
    offsets = [event["choices"][0]["logprobs"]["text_offset"] for event in events(body)]
    assert offsets == [[0], [1]]


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
