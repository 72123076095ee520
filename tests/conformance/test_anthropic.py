"""Messages with Anthropic's official client against a real server, and its errors on the wire.

The echo engine says " the quick brown fox ..."; with `smmf_echo.text = "echo"` it says what the
last user said; it calls the tools of a request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import pytest
from server import Server, echo_toml

KEY = "sk-ant"
USER: Any = {"role": "user", "content": "How is the weather in Köln?"}
OLD = {"temperature", "top_p", "top_k"}  # of the former version: its client is gone
TEXT = " the quick brown fox jumps"
FIVE = {"smmf_echo": {"tokens": 5}}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SUM = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOLS: Any = [
    {"name": "weather", "description": "Of a city.", "input_schema": CITY},
    {"name": "add", "input_schema": SUM},
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("anthropic")
    engine = {"tool_format": "hermes", "reasoning_format": "deepseek_r1"}
    (folder / "local-echo.toml").write_text(echo_toml(engine=engine))
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
def client(served: Server) -> Iterator[anthropic.Anthropic]:
    base = served.base_url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=base, api_key=KEY, max_retries=0) as client:
        yield client


def options(said: str = "", **fields: Any) -> Any:
    """A request; with `said` the model says just that."""
    extra = {"smmf_echo": {"text": "echo"}} if said else dict(FIVE)
    for name in OLD & fields.keys():
        extra[name] = fields.pop(name)
    messages = [{"role": "user", "content": said}] if said else [USER]
    return {
        "model": "echo", "max_tokens": 4096, "messages": messages, "extra_body": extra, **fields,
    }  # fmt: skip


def streamed(client: anthropic.Anthropic, request: Any) -> Any:
    """The final message of the official accumulator."""
    with client.messages.stream(**request) as stream:
        for _ in stream:
            pass
        return stream.get_final_message()


def essence(message: Any) -> Any:
    found = message.to_dict()
    del found["id"]
    for block in found["content"]:
        block.pop("id", None)
    return found


MATRIX: list[dict[str, Any]] = [
    {},
    {"max_tokens": 3},
    {"system": "Be brief.", "temperature": 0.5, "top_p": 0.9, "top_k": 3},
    {"stop_sequences": ["zebra", " fox"]},
    {"tools": TOOLS},
    {"tools": TOOLS, "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
    {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "add"}},
    {"tools": TOOLS, "tool_choice": {"type": "none"}},
    {"tools": TOOLS, "max_tokens": 9},
    {"said": '<think>\nHm "so"\n\n</think>\n\nIt is <b>3</b>. 漢字\n'},
    {"said": "<think>never closed"},
    {"said": 'No.<tool_call>{"name": "add", "arguments": {"a": 1}}', "tools": TOOLS},
    {"output_config": {"format": {"type": "json_schema", "schema": SUM}}},
]


@pytest.mark.parametrize("fields", MATRIX)
def test_streams_and_whole_answers_agree(
    client: anthropic.Anthropic, fields: dict[str, Any]
) -> None:
    request = options(**fields)
    assert essence(streamed(client, request)) == essence(client.messages.create(**request))


def test_a_message(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(**options(metadata={"user_id": "u"}))
    (block,) = answer.content
    assert (block.type, getattr(block, "text", "")) == ("text", TEXT)
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "echo")
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.id.startswith("msg_")
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens == 5
    assert answer._request_id


def test_the_events_of_a_stream(client: anthropic.Anthropic) -> None:
    request = options(said="<think>Hm.</think>So.")
    events: list[Any] = list(client.messages.create(**request, stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 2
    assert events[0].message.usage.input_tokens > 0
    starts = [event for event in events if event.type == "content_block_start"]
    assert [(e.index, e.content_block.type) for e in starts] == [(0, "thinking"), (1, "text")]
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    assert "".join(getattr(delta, "thinking", "") for delta in deltas) == "Hm."
    assert "".join(getattr(delta, "text", "") for delta in deltas) == "So."
    assert [delta.signature for delta in deltas if delta.type == "signature_delta"] != [""]


def test_the_wire(served: Server) -> None:
    status, headers, body = post(served, stream=True, smmf_echo={"tokens": 2})
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert headers["request-id"] == headers["x-request-id"]
    events = body.decode().removesuffix("\n\n").split("\n\n")
    names = []
    for event in events:
        name, data = event.split("\n")
        names.append(name.removeprefix("event: "))
        assert json.loads(data.removeprefix("data: "))["type"] == names[-1]
    assert "ping" in names
    assert b"[DONE]" not in body


@pytest.mark.parametrize("stream", [False, True])
def test_why_it_ended(client: anthropic.Anthropic, stream: bool) -> None:
    def ended(**fields: Any) -> tuple[str, str | None]:
        request = options(**fields)
        answer = streamed(client, request) if stream else client.messages.create(**request)
        return answer.stop_reason, answer.stop_sequence

    assert ended() == ("end_turn", None)
    assert ended(max_tokens=3) == ("max_tokens", None)
    assert ended(stop_sequences=["zebra", "n f"]) == ("stop_sequence", "n f")
    assert ended(said="<think>a b", stop_sequences=["b"]) == ("stop_sequence", "b")
    assert ended(tools=TOOLS) == ("tool_use", None)
    named = {"type": "tool", "name": "add"}
    assert ended(tools=TOOLS, tool_choice=named) == ("tool_use", None)


@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_of_an_agent(client: anthropic.Anthropic, stream: bool) -> None:
    """The message that came back goes in again as it is, with the tool's answer."""
    request = options(tools=TOOLS)
    first = streamed(client, request) if stream else client.messages.create(**request)
    (call,) = first.content
    assert (call.type, call.name, call.input) == ("tool_use", "weather", {"city": "text"})
    answer = {"type": "tool_result", "tool_use_id": call.id, "content": "rain", "is_error": True}
    assistant = {"role": "assistant", "content": first.content}
    turns = [USER, assistant, {"role": "user", "content": [answer]}]
    second = client.messages.create(**options(tools=TOOLS, messages=turns))
    assert second.stop_reason == "end_turn"
    assert second.content[0].text == TEXT


def test_auto_and_a_prefill(client: anthropic.Anthropic) -> None:
    turns = [USER, {"role": "assistant", "content": "It is"}]
    answer = client.messages.create(**options(model="auto", messages=turns))
    assert answer.content[0].text == TEXT


def test_tokens_are_counted_as_they_are_used(client: anthropic.Anthropic) -> None:
    prompt: Any = {"model": "echo", "messages": [USER], "system": "Be brief.", "tools": TOOLS}
    counted = client.messages.count_tokens(**prompt)
    used = client.messages.create(**prompt, max_tokens=9).usage.input_tokens
    assert counted.input_tokens == used > 0
    with pytest.raises(anthropic.NotFoundError):
        client.messages.count_tokens(**{**prompt, "model": "nobody"})
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.role"):
        client.messages.count_tokens(**{**prompt, "messages": [{"content": "x"}]})
    assert client.messages.count_tokens(**{**prompt, "model": "auto"}).input_tokens == used


IMAGE = {"type": "image", "source": {"type": "url", "url": "http://localhost/a.png"}}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "owl", "content": "hi"}]}, "messages[0].role"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9000}}, "thinking.budget_tokens"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"max_tokens": 1_000_000}, "messages"),  # the Worker's word
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_input(served: Server, fields: dict[str, Any], named: str, stream: bool) -> None:
    status, headers, body = post(served, stream=stream, **fields)
    answer = json.loads(body)
    assert status == 400
    assert (answer["type"], answer["error"]["type"]) == ("error", "invalid_request_error")
    assert named in answer["error"]["message"]
    assert answer["request_id"] == headers["request-id"]
    assert set(answer["error"]) == {"type", "message"}


def test_errors_as_the_client_knows_them(served: Server, client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(**options(model="nobody"))
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.AuthenticationError):
        client.with_options(api_key="wrong").messages.create(**options())
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**options(temperature=2))


@pytest.mark.parametrize(
    ("method", "body", "status", "kind"),
    [
        ("GET", None, 405, "invalid_request_error"),
        ("POST", b"{", 400, "invalid_request_error"),
        ("POST", b" " * (1 << 20) + b"{}", 413, "request_too_large"),
    ],
)
def test_errors_found_before_the_body_is_read(
    served: Server, method: str, body: bytes | None, status: int, kind: str
) -> None:
    found, headers, answer = served.request(method, "/v1/messages", body, {"x-api-key": KEY})
    error = json.loads(answer)
    assert (found, error["type"], error["error"]["type"]) == (status, "error", kind)
    assert error["request_id"] == headers["request-id"]


def test_a_full_queue_is_overload(served: Server, client: anthropic.Anthropic) -> None:
    """One runs, one waits, which is told nothing yet; the next one is too many."""
    request = options(model="one", extra_body={}, stream=True)
    with client.messages.create(**request) as running, ThreadPoolExecutor(1) as pool:
        next(iter(running))
        waiting = pool.submit(lambda: client.messages.create(**options(model="one", extra_body={})))
        while served.metrics().get('smmf_requests_waiting{model="one"}') != 1:
            pass
        with pytest.raises(anthropic.APIStatusError) as full:
            client.messages.create(**request)
    assert full.value.status_code == 529
    assert full.value.type == "overloaded_error"
    assert "retry-after" in full.value.response.headers
    assert waiting.result().stop_reason == "end_turn"


def test_an_error_in_a_stream(client: anthropic.Anthropic) -> None:
    failing = {"smmf_echo": {"tokens": 5, "fail": "error:3"}}
    with pytest.raises(anthropic.APIStatusError) as raised:
        list(client.messages.create(**options(extra_body=failing), stream=True))
    assert raised.value.body["error"]["type"] == "api_error"  # type: ignore[index]


def test_what_is_counted(served: Server, client: anthropic.Anthropic) -> None:
    name = 'smmf_requests_total{code="200",model="echo",route="messages"}'
    before = served.metrics().get(name, 0.0)
    client.messages.create(**options())
    assert served.metrics()[name] == before + 1


def post(server: Server, **fields: Any) -> tuple[int, dict[str, str], bytes]:
    body = {"model": "echo", "max_tokens": 64, "messages": [USER], **fields}
    return server.request("POST", "/v1/messages", body, {"x-api-key": KEY})


def test_models_in_the_form_of_its_client(served: Server) -> None:
    base = served.base_url.removesuffix("/v1")
    strict: Any = {"_strict_response_validation": True}
    with anthropic.Anthropic(base_url=base, api_key=KEY, max_retries=0, **strict) as client:
        found = {model.id: model for model in client.models.list()}
        assert list(found) == ["echo", "one"]
        one = client.models.retrieve("echo")
        assert one == found["echo"]
        assert (one.type, one.display_name, one.capabilities) == ("model", "echo", None)
        assert one.created_at.tzinfo
        for ask in (client.models.retrieve, client.messages.batches.retrieve):
            with pytest.raises(anthropic.NotFoundError) as missing:
                ask("nobody")
            assert missing.value.type == "not_found_error"
    answer = json.loads(served.request("GET", "/v1/models", headers={"x-api-key": KEY})[2])
    assert answer["object"] == "list"  # others get OpenAI's
    assert isinstance(answer["data"][0]["capabilities"], list)
