"""From answers to bytes: Messages' events, whole answers and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from smmf_core.api import anthropic, openai
from smmf_core.errors import KINDS, ApiError
from smmf_core.messages import (
    LENGTH,
    STOP,
    TOOL_CALLS,
    Choice,
    Result,
    TokenBatch,
    ToolCall,
    ToolDelta,
    Usage,
)

USAGE = Usage(prompt=10, completion=4, cached=3, reasoning=1)
USAGE_JSON = {
    "input_tokens": 7,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 3,
    "output_tokens": 4,
    "output_tokens_details": {"thinking_tokens": 1},
    "service_tier": "standard",
}
HEAD = {"id": "msg_abc", "type": "message", "role": "assistant", "model": 'm"é'}


def renderer(**fields: Any) -> anthropic.Renderer:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    parsed = openai.finish(anthropic.parse(json.dumps({**body, **fields}).encode()), {})
    parsed.submit.request_id = "req_1"
    render = anthropic.Renderer(parsed, "abc", 1_700_000_000, 'm"é', "smmf-1")
    assert render.first() == b""
    return render


def events(stream: bytes) -> list[Any]:
    """The events, whose names must be their types."""
    assert stream.endswith(b"\n\n")
    found = []
    for event in stream.decode().removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def ending(reason: str | None, stop: str | None = None) -> dict[str, Any]:
    return {"stop_reason": reason, "stop_sequence": stop, "stop_details": None}


def text(render: anthropic.Renderer, piece: str) -> bytes:
    return render.tokens(0, TokenBatch(piece, [], []), None)


def start(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def test_a_stream_with_all_kinds_of_blocks() -> None:
    render = renderer()
    stream = render.admitted(10)
    stream += render.reasoning(0, "Hm", None) + render.reasoning(0, '."\n', None)
    stream += text(render, "") + text(render, "A ") + text(render, "漢\u2028")
    first = [ToolDelta(0, "call_a", "add", ""), ToolDelta(0, "", "", '{"a":')]
    stream += render.tool_deltas(0, first, None)
    second = [ToolDelta(0, "", "", "1}"), ToolDelta(1, "call_b", "f", "{}")]
    stream += render.tool_deltas(0, second, None)
    stream += text(render, "Done.") + render.choice_end(0, TOOL_CALLS, None) + render.tail(USAGE)
    usage = {
        **USAGE_JSON, "input_tokens": 10, "cache_read_input_tokens": 0, "output_tokens": 0,
        "output_tokens_details": {"thinking_tokens": 0},
    }  # fmt: skip
    call = {"type": "tool_use", "input": {}}
    assert events(stream) == [
        {
            "type": "message_start",
            "message": {**HEAD, "content": [], **ending(None), "usage": usage},
        },
        {"type": "ping"},
        start(0, {"type": "thinking", "thinking": "", "signature": ""}),
        delta(0, type="thinking_delta", thinking="Hm"),
        delta(0, type="thinking_delta", thinking='."\n'),
        delta(0, type="signature_delta", signature="smmf"),
        stop(0),
        start(1, {"type": "text", "text": ""}),
        delta(1, type="text_delta", text="A "),
        delta(1, type="text_delta", text="漢\u2028"),
        stop(1),
        start(2, {**call, "id": "call_a", "name": "add"}),
        delta(2, type="input_json_delta", partial_json='{"a":'),
        delta(2, type="input_json_delta", partial_json="1}"),
        stop(2),
        start(3, {**call, "id": "call_b", "name": "f"}),
        delta(3, type="input_json_delta", partial_json="{}"),
        stop(3),
        start(4, {"type": "text", "text": ""}),
        delta(4, type="text_delta", text="Done."),
        stop(4),
        {"type": "message_delta", "delta": ending("tool_use"), "usage": USAGE_JSON},
        {"type": "message_stop"},
    ]


def test_an_empty_stream() -> None:
    render = renderer()
    assert render.choice_end(0, STOP, None) == b""
    assert events(render.tail(USAGE))[0]["delta"] == ending("end_turn")


def test_a_stream_that_begins_again() -> None:
    """Its Worker died before anything was sent."""
    render = renderer()
    render.admitted(10)
    text(render, "lost")
    assert render.first() == b""
    assert events(text(render, "x"))[0] == start(0, {"type": "text", "text": ""})


def test_a_whole_answer() -> None:
    calls = [
        ToolCall("call_a", "add", '{"a": "é"}'),
        ToolCall("call_b", "f", '{"cut": '),
        ToolCall("call_c", "f", "[1]"),
    ]
    choice = Choice("Text.", [], STOP, reasoning="Hm.", tool_calls=calls)
    answer = json.loads(renderer().response(Result([choice]), USAGE))
    call = {"type": "tool_use", "name": "f", "input": {}}
    assert answer == {
        **HEAD,
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "smmf"},
            {"type": "text", "text": "Text."},
            {"type": "tool_use", "id": "call_a", "name": "add", "input": {"a": "é"}},
            {**call, "id": "call_b"},
            {**call, "id": "call_c"},
        ],
        **ending("tool_use"),
        "usage": USAGE_JSON,
    }


@pytest.mark.parametrize(
    ("reason", "said", "expected"),
    [
        (STOP, "", ending("end_turn")),
        (STOP, "END", ending("stop_sequence", "END")),
        (STOP, "<|im_end|>", ending("end_turn")),  # the family's own
        (LENGTH, "", ending("max_tokens")),
    ],
)
def test_why_it_ended(reason: int, said: str, expected: dict[str, Any]) -> None:
    choice = Choice("x", [], reason, stop=said)
    answer = json.loads(renderer(stop_sequences=["END"]).response(Result([choice]), USAGE))
    assert {key: answer[key] for key in expected} == expected
    render = renderer(stop_sequences=["END"])
    if said:
        render.stopped_by(said)
    render.choice_end(0, reason, None)
    assert events(render.tail(USAGE))[0]["delta"] == expected


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("invalid_value", 400, "invalid_request_error"),
        ("invalid_api_key", 401, "authentication_error"),
        ("permission_denied", 403, "permission_error"),
        ("model_not_found", 404, "not_found_error"),
        ("request_too_large", 413, "request_too_large"),
        ("rate_limit_exceeded", 429, "rate_limit_error"),
        ("queue_full", 529, "overloaded_error"),
        ("model_loading", 529, "overloaded_error"),
        ("queue_timeout", 529, "overloaded_error"),
        ("internal_error", 500, "api_error"),
        ("worker_lost", 502, "api_error"),
        ("inference_timeout", 504, "timeout_error"),
    ],
)
def test_errors(code: str, status: int, kind: str) -> None:
    error = ApiError(code, "It is wrong.", "top_k")
    assert anthropic.ERRORS.status(error) == status
    body = {
        "type": "error",
        "error": {"type": kind, "message": "top_k: It is wrong."},
        "request_id": "req_1",
    }
    assert json.loads(anthropic.ERRORS.body(error, "req_1")) == body
    assert events(renderer().error_event(error)) == [body]


def test_every_error_has_a_type_and_names_its_field_once() -> None:
    for code in KINDS:
        error = ApiError(code, "Invalid 'top_k'.", "top_k")
        said = json.loads(anthropic.ERRORS.body(error, "r"))["error"]
        assert said["message"] == "Invalid 'top_k'."
        is_clients = anthropic.ERRORS.status(error) < 500
        assert is_clients or said["type"] in ("api_error", "timeout_error", "overloaded_error")
