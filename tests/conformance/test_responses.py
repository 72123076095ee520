"""Responses with OpenAI's official client, which checks all types, against a real server.

The echo engine says " the quick brown fox ..."; with `smmf_echo.text = "echo"` it says what the
last user said; it calls the tools of a request, and follows its schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
from server import Server, echo_toml

KEY = "sk-res"
TEXT = " the quick brown fox jumps"
FIVE = {"smmf_echo": {"tokens": 5}}
LONG = {"smmf_echo": {"tokens": 40}}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SUM = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
WEATHER: Any = {"type": "function", "name": "weather", "parameters": CITY, "strict": False}
ADD: Any = {"type": "function", "name": "add", "description": "Sums.", "parameters": SUM}
PATCH: Any = {"type": "custom", "name": "patch", "description": "Edits files."}
TOOLS: Any = [WEATHER, ADD, PATCH]
FILES: Any = {"type": "namespace", "name": "files", "description": "", "tools": [PATCH, ADD]}
SEARCH: Any = {"type": "web_search", "external_web_access": False}
SCHEMA = {"type": "json_schema", "name": "sum", "schema": SUM, "strict": True}
CALL = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("responses")
    engine = {"tool_format": "hermes", "reasoning_format": "deepseek_r1"}
    (folder / "local-echo.toml").write_text(echo_toml(engine=engine))
    twice = echo_toml("twice", engine={"tool_format": "hermes", "calls": 3})
    (folder / "local-twice.toml").write_text(twice)
    slow = {"step_ms": 20.0, "tokens": 100}
    one = echo_toml("one", engine=slow, deployment={"max_concurrency": 1})
    (folder / "local-one.toml").write_text(one)
    (folder / "smmf.toml").write_text(
        f'[server]\napi_keys = ["{KEY}"]\nmax_body_mb = 1\n[limits]\nmax_queue = 1\n'
    )
    server = Server(folder).start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def client(served: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=served.base_url, api_key=KEY, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def options(said: str = "", **fields: Any) -> Any:
    """A request; with `said` the model says just that."""
    extra = {"smmf_echo": {"text": "echo"}} if said else FIVE
    return {"model": "echo", "input": said or "Hello.", "extra_body": extra, **fields}


def streamed(client: openai.OpenAI, request: Any) -> list[Any]:
    return list(client.responses.create(**request, stream=True))


def essence(response: Any) -> Any:
    """All but names and times."""
    found = response.to_dict()
    for key in ("id", "created_at", "completed_at"):
        del found[key]
    for item in found["output"]:
        assert item.pop("id")
        item.pop("call_id", None)
    return found


def kinds(response: Any) -> list[str]:
    return [item.type for item in response.output]


MATRIX: list[dict[str, Any]] = [
    {},
    {"max_output_tokens": 16, "extra_body": LONG},
    {"instructions": "Be brief.", "temperature": 0, "top_p": 0.9, "metadata": {"a": "b"}},
    {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    {"said": "Köln 漢字 🙂", "include": ["message.output_text.logprobs"]},
    {"said": "<think>Hm</think>So 漢", "include": ["message.output_text.logprobs"]},
    {"tools": TOOLS},
    {"tools": TOOLS, "model": "twice"},
    {"tools": TOOLS, "model": "twice", "parallel_tool_calls": False},
    {"tools": TOOLS, "tool_choice": "required"},
    {"tools": [FILES, SEARCH, ADD], "model": "twice"},
    {"tools": TOOLS, "tool_choice": {"type": "function", "name": "add"}},
    {"tools": TOOLS, "tool_choice": {"type": "custom", "name": "patch"}},
    {"tools": TOOLS, "tool_choice": "none"},
    {"tools": TOOLS, "max_output_tokens": 16},
    {"said": '<think>\nHm "so"\n\n</think>\n\nIt is <b>3</b>. 漢字\n'},
    {"said": "<think>never closed"},
    {"said": "<think>" + "long " * 30, "max_output_tokens": 16},
    {"said": "<think>all</think>"},
    {"said": 'No.<tool_call>{"name": "add", "arguments": {"a": 1}}', "tools": TOOLS},
    {"said": f"One {CALL} two {CALL}\n{CALL} three", "tools": TOOLS},
    {"said": f"{CALL} after", "tools": TOOLS},
    {"said": f"A {CALL} b", "tools": TOOLS, "include": ["message.output_text.logprobs"]},
    {"text": {"format": SCHEMA}},
    {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
    {"reasoning": {"effort": "low", "summary": "auto"}, "store": True, "service_tier": "auto"},
]


@pytest.mark.parametrize("fields", MATRIX)
def test_streams_and_whole_answers_agree(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    request = options(**fields)
    *events, last = streamed(client, request)
    whole = client.responses.create(**request)
    assert essence(last.response) == essence(whole)
    assert last.type == f"response.{whole.status}"
    check_order([*events, last])


def check_order(events: list[Any]) -> None:
    """Items one after the other; the deltas of each are what it is in the end."""
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [e.type for e in events[:2]] == ["response.created", "response.in_progress"]
    assert events[0].response.usage is None
    assert events[0].response.output == []
    final = events[-1].response
    assert {e.response.id for e in (*events[:2], events[-1])} == {final.id}
    for index, item in enumerate(final.output):
        of_item = [e for e in events[2:-1] if e.output_index == index]
        assert of_item == events[events.index(of_item[0]) :][: len(of_item)]
        assert of_item[0].type == "response.output_item.added"
        assert of_item[0].item.id == item.id
        assert of_item[-1].type == "response.output_item.done"
        assert of_item[-1].item == item
        assert {e.item_id for e in of_item[1:-1]} == {item.id}
        said = "".join(e.delta for e in of_item if e.type.endswith(".delta"))
        assert said == held(item)
        assert [e.type for e in of_item[1:-1] if not e.type.endswith(".delta")] == AROUND[item.type]


AROUND = {
    "message": [
        "response.content_part.added", "response.output_text.done", "response.content_part.done",
    ],
    "reasoning": [
        "response.content_part.added", "response.reasoning_text.done",
        "response.content_part.done",
    ],
    "function_call": ["response.function_call_arguments.done"],
    "custom_tool_call": ["response.custom_tool_call_input.done"],
}  # fmt: skip


def held(item: Any) -> str:
    if item.type in ("message", "reasoning"):
        return "".join(part.text for part in item.content)
    return str(item.arguments if item.type == "function_call" else item.input)


def test_an_answer(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        **options(instructions="Be brief.", tools=[ADD], tool_choice="none", user="u", store=True)
    )
    assert answer.output_text == TEXT
    assert kinds(answer) == ["message"]
    assert (answer.object, answer.status, answer.model) == ("response", "completed", "echo")
    assert answer.id.startswith("resp_")
    assert answer.instructions == "Be brief."
    assert (answer.to_dict()["store"], answer.background, answer.truncation) == (
        False, False, "disabled",
    )  # fmt: skip
    assert (answer.tool_choice, answer.tools[0].to_dict()["name"]) == ("none", "add")
    assert answer.user == "u"
    assert answer.completed_at is not None
    assert answer.completed_at >= answer.created_at > 0
    assert answer.usage is not None
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens == 5
    assert answer.usage.total_tokens == answer.usage.input_tokens + 5
    assert answer._request_id


def test_why_it_ended(client: openai.OpenAI) -> None:
    cut = client.responses.create(**options(max_output_tokens=16, extra_body=LONG))
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert cut.completed_at is None
    (message,) = cut.output
    assert message.to_dict()["status"] == "incomplete"
    thinking = client.responses.create(**options("<think>" + "long " * 30, max_output_tokens=16))
    assert (kinds(thinking), thinking.output_text) == (["reasoning"], "")


def test_thoughts_are_items(client: openai.OpenAI) -> None:
    answer = client.responses.create(**options("<think>Hm.</think>So."))
    thought, message = answer.output
    assert (thought.type, message.type) == ("reasoning", "message")
    assert held(thought) == "Hm."
    assert answer.output_text == "So."
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens > 0


def test_logprobs(client: openai.OpenAI) -> None:
    wanted: Any = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    answer = client.responses.create(**options(**wanted))
    (part,) = answer.output[0].content  # type: ignore[union-attr, misc]
    assert "".join(entry.token for entry in part.logprobs) == TEXT
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)
    deltas = [e for e in streamed(client, options(**wanted)) if e.type.endswith("text.delta")]
    assert "".join(entry.token for e in deltas for entry in e.logprobs) == TEXT


class Sum(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    a: int
    names: list[str]


def test_parsed_answers(client: openai.OpenAI) -> None:
    request = {k: v for k, v in options().items() if k != "text"}
    answer = client.responses.parse(**request, text_format=Sum)
    assert isinstance(answer.output_parsed, Sum)
    with client.responses.stream(**request, text_format=Sum) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_parsed == answer.output_parsed


def test_the_accumulator_knows_calls(client: openai.OpenAI) -> None:
    request = options(tools=[openai.pydantic_function_tool(Sum)])
    with client.responses.stream(**request) as stream:
        seen = {event.type for event in stream}
        (call,) = stream.get_final_response().output
    assert "response.function_call_arguments.delta" in seen
    assert isinstance(call.parsed_arguments, Sum)  # type: ignore[union-attr]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tool", [WEATHER, PATCH])
def test_a_turn_of_an_agent(client: openai.OpenAI, stream: bool, tool: Any) -> None:
    """The items that came back go in again as they are, with the tool's answer."""
    request = options("<think>Hm.</think>", tools=[tool], extra_body={})
    turns: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": "Go."}]}]
    request["input"] = turns
    first = streamed(client, request)[-1].response if stream else client.responses.create(**request)
    (call,) = first.output
    assert (call.type, call.name) == (
        "custom_tool_call" if tool is PATCH else "function_call", tool["name"],
    )  # fmt: skip
    assert held(call) == ("text" if tool is PATCH else '{"city": "text"}')
    thought = {"type": "reasoning", "id": "rs_1", "summary": [],
               "content": [{"type": "reasoning_text", "text": "Hm."}]}  # fmt: skip
    turns += [thought, *first.output]
    turns.append({"type": f"{call.type}_output", "call_id": call.call_id, "output": "rain"})
    second = client.responses.create(**{**request, "extra_body": FIVE})
    assert second.output_text == TEXT


def test_auto(client: openai.OpenAI) -> None:
    assert client.responses.create(**options(model="auto")).output


def test_tokens_are_counted_as_they_are_used(client: openai.OpenAI) -> None:
    prompt: Any = {
        "model": "echo", "input": "Hello.", "instructions": "Be brief.", "tools": TOOLS,
    }  # fmt: skip
    counted = client.responses.input_tokens.count(**prompt)
    answer = client.responses.create(**prompt)
    assert answer.usage is not None
    assert counted.input_tokens == answer.usage.input_tokens > 0
    assert counted.object == "response.input_tokens"
    with pytest.raises(openai.NotFoundError):
        client.responses.input_tokens.count(**{**prompt, "model": "nobody"})
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.input_tokens.count(**{**prompt, "input": [{"role": "owl"}]})
    assert refused.value.param == "input[0].role"


def test_the_wire(served: Server) -> None:
    for path in ("/v1/responses", "/api/v1/responses", "/responses"):
        status, headers, body = post(served, path, stream=True, smmf_echo={"tokens": 2})
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        events = body.decode().removesuffix("\n\n").split("\n\n")
        for number, event in enumerate(events):
            name, data = event.split("\n")
            fields = json.loads(data.removeprefix("data: "))
            assert name == f"event: {fields['type']}"
            assert fields["sequence_number"] == number
        assert b"[DONE]" not in body


IMAGE = {"type": "input_image", "image_url": "http://localhost/a.png"}


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input": None}, "missing_required_parameter", "input"),
        ({"max_output_tokens": 15}, "integer_below_min_value", "max_output_tokens"),
        ({"temperature": 2.5}, "decimal_above_max_value", "temperature"),
        ({"previous_response_id": "resp_1"}, "previous_response_not_found", None),
        ({"background": True}, "unsupported_parameter", "background"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}, IMAGE]}]},
            "unsupported_value",
            "input[0].content[1]",
        ),
        ({"tools": [{"type": "web_search"}]}, "unsupported_value", "tools[0].type"),
        ({"stream_options": {"include_obfuscation": False}}, "invalid_value", None),
        # the Worker's word
        ({"max_output_tokens": 1_000_000}, "context_length_exceeded", "input"),
        (
            {"text": {"format": {**SCHEMA, "schema": {"type": 3}}}},
            "invalid_value",
            "text.format.schema",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_input(
    served: Server, fields: dict[str, Any], code: str, param: str | None, stream: bool
) -> None:
    if "stream_options" in fields:
        stream = False
    status, headers, body = post(served, stream=stream, **fields)
    error = json.loads(body)["error"]
    assert (status, error["type"], error["code"]) == (400, "invalid_request_error", code), error
    assert error["param"] == param or (param is None and error["param"] in fields)
    assert headers["x-request-id"]


def test_nothing_is_stored(client: openai.OpenAI, served: Server) -> None:
    with pytest.raises(openai.NotFoundError, match="resp_x"):
        client.responses.retrieve("resp_x")
    with pytest.raises(openai.NotFoundError, match="resp_x"):
        client.responses.delete("resp_x")
    with pytest.raises(openai.NotFoundError):
        client.responses.cancel("resp_x")
    with pytest.raises(openai.NotFoundError):
        client.responses.input_items.list("resp_x")
    assert served.get("/v1/responses")[0] == 405


def test_errors_as_the_client_knows_them(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.responses.create(**options(model="nobody"))
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").responses.create(**options())


def test_a_full_queue(served: Server, client: openai.OpenAI) -> None:
    """One runs, one waits, which is told nothing yet; the next one is too many."""
    request = options(model="one", extra_body={}, stream=True)
    with client.responses.create(**request) as running, ThreadPoolExecutor(1) as pool:
        next(iter(running))
        waiting = pool.submit(lambda: client.responses.create(**options(model="one")))
        while served.metrics().get('smmf_requests_waiting{model="one"}') != 1:
            pass
        with pytest.raises(openai.RateLimitError) as full:
            client.responses.create(**request)
    assert "retry-after" in full.value.response.headers
    assert waiting.result().status == "completed"


def test_an_error_in_a_stream(client: openai.OpenAI) -> None:
    failing = {"smmf_echo": {"tokens": 50, "fail": "error:40", "step_ms": 20}}
    events = streamed(client, options(extra_body=failing))
    *_, error, failed = events
    assert (error.type, error.code) == ("error", "internal_error")
    assert (failed.type, failed.response.status) == ("response.failed", "failed")
    assert failed.response.error.code == "server_error"
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_what_is_counted(served: Server, client: openai.OpenAI) -> None:
    name = 'smmf_requests_total{code="200",model="echo",route="responses"}'
    before = served.metrics().get(name, 0.0)
    client.responses.create(**options())
    assert served.metrics()[name] == before + 1


def post(
    server: Server, path: str = "/v1/responses", **fields: Any
) -> tuple[int, dict[str, str], bytes]:
    body = {"model": "echo", "input": "Hello.", **fields}
    return server.request("POST", path, body, {"Authorization": f"Bearer {KEY}"})
