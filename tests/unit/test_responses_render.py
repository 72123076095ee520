"""From answers to bytes: the events, whole answers and errors of Responses."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smmf_core.api import openai, responses
from smmf_core.api.responses.custom import InputReader, wrapped
from smmf_core.api.responses.errors import not_stored
from smmf_core.errors import KINDS, ApiError
from smmf_core.messages import (
    CONTENT_FILTER,
    LENGTH,
    STOP,
    TOOL_CALLS,
    Choice,
    Result,
    TokenBatch,
    TokenLogprob,
    ToolCall,
    ToolDelta,
    Usage,
)

USAGE = Usage(prompt=10, completion=4, cached=3, reasoning=1)
USAGE_JSON = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 14,
}
REQUIRED = (  # by the Open Responses specification
    "id object created_at completed_at status incomplete_details model previous_response_id "
    "instructions output error tools tool_choice truncation parallel_tool_calls text top_p "
    "presence_penalty frequency_penalty top_logprobs temperature reasoning usage max_output_tokens "
    "max_tool_calls store background service_tier metadata safety_identifier prompt_cache_key"
)
TOOLS = [{"type": "function", "name": "add"}, {"type": "custom", "name": "patch"}]
CUT = {"reason": "max_output_tokens"}


def renderer(**fields: Any) -> responses.Renderer:
    body = {"model": "m", "input": "hi", "tools": TOOLS, **fields}
    parsed = openai.finish(responses.parse(json.dumps(body).encode()), {"top_p": 0.5})
    return responses.Renderer(lambda: 1_700_000_009, parsed, "abc", 1_700_000_000, 'm"é', "smmf-1")


def events(stream: bytes) -> list[Any]:
    """The events, whose names must be their types, and numbers their places."""
    assert stream.endswith(b"\n\n")
    found = []
    for number, event in enumerate(stream.decode().removesuffix("\n\n").split("\n\n")):
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
        assert found[-1].pop("sequence_number") == number
    return found


def text(render: responses.Renderer, piece: str) -> bytes:
    return render.tokens(0, TokenBatch(piece, [], []), None)


def message(place: int, said: str, status: str = "completed") -> Any:
    part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_abc_{place}", "type": "message", "status": status, "role": "assistant",
        "content": [part],
    }  # fmt: skip


def thought(place: int, said: str, status: str = "completed") -> Any:
    content = [{"type": "reasoning_text", "text": said}]
    return {
        "id": f"rs_abc_{place}", "type": "reasoning", "status": status, "summary": [],
        "content": content,
    }  # fmt: skip


def whole(choice: Choice, **fields: Any) -> Any:
    return json.loads(renderer(**fields).response(Result([choice]), USAGE))


def streamed(render: responses.Renderer, *parts: bytes, reason: int = STOP) -> list[Any]:
    return events(b"".join(parts) + render.choice_end(0, reason, None) + render.tail(USAGE))


def test_the_events_of_a_stream() -> None:
    render = renderer()
    found = streamed(
        render, render.first(), render.admitted(10), render.reasoning(0, "Hm", None),
        text(render, ""), text(render, "A "), text(render, "漢\u2028"),
    )  # fmt: skip
    kinds = [event["type"].removeprefix("response.") for event in found]
    assert kinds == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    place = {"item_id": "msg_abc_1", "output_index": 1, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    said = {"type": "response.output_text.delta", **place, "delta": "A ", "logprobs": []}
    done = {**said, "type": "response.output_text.done", "text": "A 漢\u2028"}
    del done["delta"]
    assert found[8]["item"] == {**message(1, "", "in_progress"), "content": []}
    assert found[9] == {"type": "response.content_part.added", **place, "part": part}
    assert (found[10], found[12]) == (said, done)
    assert found[13]["part"] == {**part, "text": "A 漢\u2028"}
    assert found[14]["item"] == message(1, "A 漢\u2028")
    assert found[4] == {
        "type": "response.reasoning_text.delta", "item_id": "rs_abc_0", "output_index": 0,
        "content_index": 0, "delta": "Hm",
    }  # fmt: skip
    begun, ended = found[0]["response"], found[-1]["response"]
    assert (begun["status"], begun["output"], begun["usage"]) == ("in_progress", [], None)
    assert found[1]["response"] == begun
    assert ended["output"] == [thought(0, "Hm"), message(1, "A 漢\u2028")]
    assert (ended["status"], ended["usage"]) == ("completed", USAGE_JSON)


def test_the_events_of_calls() -> None:
    render = renderer()
    deltas = [
        ToolDelta(0, "call_a", "add", '{"a"'), ToolDelta(0, "", "", ":1}"),
        ToolDelta(1, "call_b", "patch", '{"input": "x\\'), ToolDelta(1, "", "", 'ny"}'),
    ]  # fmt: skip
    found = streamed(render, render.first(), render.tool_deltas(0, deltas, None), reason=TOOL_CALLS)
    add = {
        "id": "fc_a", "type": "function_call", "status": "completed", "call_id": "call_a",
        "name": "add", "arguments": '{"a":1}',
    }  # fmt: skip
    patch = {
        "id": "ctc_b", "type": "custom_tool_call", "status": "completed", "call_id": "call_b",
        "name": "patch", "input": "x\ny",
    }  # fmt: skip
    first, second = (
        {"item_id": item["id"], "output_index": n} for n, item in ((0, add), (1, patch))
    )
    assert found[2:-1] == [
        {"type": "response.output_item.added", "output_index": 0,
         "item": {**add, "status": "in_progress", "arguments": ""}},
        {"type": "response.function_call_arguments.delta", **first, "delta": '{"a"'},
        {"type": "response.function_call_arguments.delta", **first, "delta": ":1}"},
        {"type": "response.function_call_arguments.done", **first, "name": "add",
         "arguments": '{"a":1}'},
        {"type": "response.output_item.done", "output_index": 0, "item": add},
        {"type": "response.output_item.added", "output_index": 1,
         "item": {**patch, "status": "in_progress", "input": ""}},
        {"type": "response.custom_tool_call_input.delta", **second, "delta": "x"},
        {"type": "response.custom_tool_call_input.delta", **second, "delta": "\ny"},
        {"type": "response.custom_tool_call_input.done", **second, "input": "x\ny"},
        {"type": "response.output_item.done", "output_index": 1, "item": patch},
    ]  # fmt: skip
    assert found[-1]["response"]["output"] == [add, patch]
    calls = [ToolCall("call_a", "add", '{"a":1}'), ToolCall("call_b", "patch", '{"input":"x\\ny"}')]
    assert whole(Choice("", [], TOOL_CALLS, tool_calls=calls)) == found[-1]["response"]


def test_a_call_in_a_namespace() -> None:
    space = {"type": "namespace", "name": "files", "tools": TOOLS}
    call = ToolCall("call_a", "files__patch", '{"input":"x"}')
    found = whole(Choice("", [], TOOL_CALLS, tool_calls=[call]), tools=[space])
    assert found["output"] == [
        {"id": "ctc_a", "type": "custom_tool_call", "status": "completed", "call_id": "call_a",
         "name": "patch", "namespace": "files", "input": "x"},
    ]  # fmt: skip
    (echoed,) = found["tools"]
    assert (echoed["name"], len(echoed["tools"]), echoed["description"]) == ("files", 2, "")


def test_calls_are_where_they_came() -> None:
    """Text around a call is two messages, streaming or not."""
    render = renderer()
    call = ToolDelta(0, "call_a", "add", "{}")
    found = streamed(
        render, render.first(), text(render, "ab"), render.tool_deltas(0, [call], None),
        text(render, "c"), reason=TOOL_CALLS,
    )  # fmt: skip
    choice = Choice("abc", [], TOOL_CALLS, tool_calls=[ToolCall("call_a", "add", "{}", 2)])
    output = whole(choice)["output"]
    assert output == found[-1]["response"]["output"]
    assert [output[0], output[2]] == [message(0, "ab"), message(2, "c")]


@pytest.mark.parametrize(
    ("choice", "output", "status", "details"),
    [
        (Choice("a", [], STOP), [message(0, "a")], "completed", None),
        (Choice("", [], STOP), [message(0, "")], "completed", None),
        (Choice("a", [], LENGTH), [message(0, "a", "incomplete")], "incomplete", CUT),
        (Choice("", [], LENGTH), [], "incomplete", CUT),
        (
            Choice("", [], LENGTH, reasoning="t"), [thought(0, "t", "incomplete")], "incomplete",
            CUT,
        ),
        (
            Choice("", [], STOP, reasoning="t"), [thought(0, "t"), message(1, "")], "completed",
            None,
        ),
        (
            Choice("a", [], CONTENT_FILTER), [message(0, "a", "incomplete")], "incomplete",
            {"reason": "content_filter"},
        ),
    ],
)  # fmt: skip
def test_how_answers_end(choice: Choice, output: Any, status: str, details: Any) -> None:
    found = whole(choice)
    assert (found["output"], found["status"]) == (output, status)
    assert found["incomplete_details"] == details
    assert found["completed_at"] == (1_700_000_009 if status == "completed" else None)
    render = renderer()
    last = streamed(
        render, render.first(), render.reasoning(0, choice.reasoning, None),
        text(render, choice.text), reason=choice.reason,
    )[-1]  # fmt: skip
    assert last == {"type": f"response.{status}", "response": found}


def test_a_whole_answer_repeats_the_request() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    found = whole(
        Choice("a", [], STOP),
        instructions="Be brief.", max_output_tokens=99, temperature=0, store=True, user="u",
        metadata={"a": "b"}, text={"format": schema, "verbosity": "low"},
        reasoning={"effort": "low"}, tool_choice="none", prompt_cache_key="k",
        parallel_tool_calls=False, service_tier="flex",
    )  # fmt: skip
    assert set(REQUIRED.split()) <= set(found)
    assert found["id"] == "resp_abc"
    assert (found["object"], found["model"]) == ("response", 'm"é')
    assert (found["created_at"], found["completed_at"]) == (1_700_000_000, 1_700_000_009)
    assert (found["instructions"], found["max_output_tokens"]) == ("Be brief.", 99)
    assert (found["temperature"], found["top_p"], found["store"]) == (0, 0.5, False)
    assert (found["metadata"], found["user"]) == ({"a": "b"}, "u")
    assert found["text"] == {
        "format": {**schema, "description": None, "strict": False}, "verbosity": "low",
    }  # fmt: skip
    assert found["reasoning"] == {"effort": "low", "summary": None}
    assert (found["tool_choice"], found["parallel_tool_calls"]) == ("none", False)
    assert [tool["name"] for tool in found["tools"]] == ["add", "patch"]
    assert (found["service_tier"], found["prompt_cache_key"]) == ("default", "k")
    assert (found["error"], found["usage"]) == (None, USAGE_JSON)


def test_logprobs_go_with_their_text() -> None:
    """Half a character's token waits for the rest."""
    wanted = {"include": ["message.output_text.logprobs"]}
    tokens = [TokenLogprob(raw, -0.5, []) for raw in (b"a", b"\xc3", b"\xa9")]
    render = renderer(**wanted)
    found = streamed(
        render, render.first(), render.tokens(0, TokenBatch("a", [1], tokens[:1]), None),
        render.tokens(0, TokenBatch("", [2], tokens[1:2]), None),
        render.tokens(0, TokenBatch("é", [3], tokens[2:]), None),
    )  # fmt: skip
    deltas = [event for event in found if event["type"].endswith("text.delta")]
    assert [[entry["token"] for entry in e["logprobs"]] for e in deltas] == [["a"], ["", "é"]]
    (item,) = found[-1]["response"]["output"]
    assert [e["bytes"] for e in item["content"][0]["logprobs"]] == [[97], [0xC3], [0xA9]]
    assert whole(Choice("aé", [1, 2, 3], STOP, tokens), **wanted) == found[-1]["response"]


def test_a_stream_that_begins_again() -> None:
    render = renderer()
    render.first()
    text(render, "lost")
    found = streamed(render, render.first(), text(render, "a"))
    assert found[-1]["response"]["output"] == [message(0, "a")]


def test_a_keep_alive_is_an_event() -> None:
    render = renderer()
    found = streamed(
        render, render.first(), text(render, "a"), render.keepalive(), text(render, "b")
    )
    assert found[5]["type"] == "response.in_progress"
    assert found[-1]["response"]["output"] == [message(0, "ab")]


# --- errors ---


@pytest.mark.parametrize("code", KINDS)
def test_errors_in_a_stream(code: str) -> None:
    render = renderer()
    stream = render.first() + text(render, "a")
    stream += render.error_event(ApiError(code, "No 'messages'.", "messages"))
    error, failed = events(stream)[-2:]
    assert error == {"type": "error", "code": code, "message": "No 'input'.", "param": "input"}
    answer = failed["response"]
    assert (failed["type"], answer["status"]) == ("response.failed", "failed")
    assert answer["error"]["message"] == "No 'input'."
    kind = answer["error"]["code"]
    expected = "server_error" if KINDS[code].status >= 500 else "invalid_prompt"
    assert kind == ("rate_limit_exceeded" if KINDS[code].status == 429 else expected)


@pytest.mark.parametrize(
    ("param", "name"),
    [
        ("messages", "input"),
        ("max_tokens", "max_output_tokens"),
        ("response_format", "text.format"),
        ("response_format.json_schema.schema", "text.format.schema"),
        ("tools[2].function.parameters", "tools[2].parameters"),
        ("model", "model"),
        (None, None),
    ],
)
def test_errors_name_the_fields_of_this_api(param: str | None, name: str | None) -> None:
    error = ApiError("invalid_value", f"Wrong '{param}'.", param, 3)
    found = json.loads(responses.ERRORS.body(error, "req_1"))["error"]
    assert (found["param"], found["code"]) == (name, "invalid_value")
    assert found["message"] == f"Wrong '{name}'."
    assert responses.ERRORS.status(error) == 400


def test_paths_of_stored_answers() -> None:
    for path in ("/v1/responses/resp_1", "/responses/resp_1/cancel"):
        error = not_stored(path)
        assert error is not None
        assert (error.status, "resp_1" in error.message) == (404, True)
    assert not_stored("/v1/responses/input_tokens") is None
    assert not_stored("/v1/other") is None


# --- the text of custom tools ---


def read(*pieces: str) -> str:
    reader = InputReader()
    return "".join([reader.push(piece) for piece in pieces]) + reader.finish()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"input": "a\\n\\"b\\" \\u00e9 \\/"}', 'a\n"b" é /'),
        (' {"patch":"x"} ', "x"),
        ('{"input": "cut', "cut"),
        ('{"input": "cut\\', "cut"),
        ('{"input": "\\ud83d\\ude42"}', "🙂"),
        ('{"input": "\\ud83d!"}', "\ufffd!"),
        ('{"input": "\\ud83d"}', "\ufffd"),
        ('{"input": "\\ud83d', "\ufffd"),
        ('{"input": "\\ude42 \\uzzzz"}', "\ufffd uzzzz"),
        ('{"n": 1, "input": "late"}', "late"),
        ('{"n": 1}', '{"n": 1}'),
        ('"alone"', "alone"),
        ("plain words", "plain words"),
        ("", ""),
    ],
)
def test_the_text_of_a_custom_call(arguments: str, expected: str) -> None:
    assert read(arguments) == read(*arguments) == expected


@given(st.text(), st.lists(st.integers(0, 60)))
def test_texts_of_custom_calls_in_any_pieces(said: str, cuts: list[int]) -> None:
    for ascii_only in (False, True):
        arguments = json.dumps({"input": said}, ensure_ascii=ascii_only)
        places = sorted({0, len(arguments), *(min(cut, len(arguments)) for cut in cuts)})
        assert read(*(arguments[a:b] for a, b in pairwise(places))) == said
    if said.isprintable():
        assert read(wrapped(said)) == said


@given(st.text(alphabet='{}":\\u0d8cnabe3 input', max_size=60))
def test_broken_arguments_read_the_same_in_any_pieces(arguments: str) -> None:
    for start in ("", '{"input": "'):
        assert read(start + arguments) == read(*start, *arguments)
