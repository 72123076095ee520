"""Tools and thoughts with the official client against a real server, one echo model per format.

The echo engine calls the tools of a request as its model's family writes calls; with
`smmf_echo.text = "echo"` it says what the last user said, markup and all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
from server import Server, echo_toml

FORMATS = [
    "hermes", "llama3_json", "mistral", "deepseek_v3", "glm4", "internlm", "phi", "glm45",
    "qwen3_coder", "llama4_pythonic",
]  # fmt: skip
USER: Any = {"role": "user", "content": "How is the weather in Köln, and what is 1 + 2?"}


class GetWeather(pydantic.BaseModel):
    city: str
    days: int


class Add(pydantic.BaseModel):
    a: int
    b: int


TOOLS = [openai.pydantic_function_tool(GetWeather), openai.pydantic_function_tool(Add)]
WEATHER = {"city": "text", "days": 0}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder: Path = tmp_path_factory.mktemp("tools")
    for name in FORMATS:
        (folder / f"local-{name}.toml").write_text(echo_toml(name, engine={"tool_format": name}))
    thinker = echo_toml("thinker", engine={"reasoning_format": "deepseek_r1"})
    (folder / "local-thinker.toml").write_text(thinker)
    server = Server(folder).start()
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        yield client
    assert server.stop() == 0


def options(model: str = "hermes", said: str = "", **fields: Any) -> Any:
    """A request; with `said` the model says just that."""
    messages = [{"role": "user", "content": said} if said else USER]
    echo = {"text": "echo"} if said else {"calls": 2}
    return {
        "model": model, "messages": messages, "tools": TOOLS, "extra_body": {"smmf_echo": echo},
        **fields,
    }  # fmt: skip


def said_of(message: Any) -> tuple[Any, ...]:
    calls = [(c.type, c.function.name, c.function.arguments) for c in message.tool_calls or []]
    return message.content or "", getattr(message, "reasoning", None), calls


def streamed(client: openai.OpenAI, request: Any) -> Any:
    """The final completion of the official accumulator."""
    with client.chat.completions.stream(
        **request, stream_options={"include_usage": True}
    ) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion()


MATRIX: list[dict[str, Any]] = [
    *({"model": name} for name in FORMATS),
    {"tool_choice": "required"},
    {"tool_choice": {"type": "function", "function": {"name": "Add"}}},
    {"tool_choice": "none"},
    {"tool_choice": "auto", "parallel_tool_calls": False},
    {"n": 3},
    {"logprobs": True, "top_logprobs": 1},
    {"said": "Let me see.\n<tool_call>" + '{"name": "Add", "arguments": {"a": 1, "b": 2}}'},
    {"said": "No call: <tool_call> is how I would. 漢字 \\ \n"},
    {"said": '[TOOL_CALLS]Add[ARGS]{"a": 1, "b": 2}', "model": "mistral"},
    {"model": "thinker", "said": '<think>\nHm "so"\n\n</think>\n\nIt is <b>3</b>.\n'},
    {"model": "thinker", "said": "<think>never closed"},
    {"model": "thinker", "said": 'No.<tool_call>{"name": "Add", "arguments": {"b": 1, "a": 2}}'},
]


@pytest.mark.parametrize("fields", MATRIX)
def test_streams_and_whole_answers_agree(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    request = options(**fields)
    whole = client.chat.completions.create(**request)
    stream = streamed(client, request)
    assert stream.usage == whole.usage
    assert len(stream.choices) == len(whole.choices) == fields.get("n", 1)
    for one, other in zip(stream.choices, whole.choices, strict=True):
        assert said_of(one.message) == said_of(other.message)
        assert one.finish_reason == other.finish_reason
        assert one.logprobs == other.logprobs or not other.logprobs.content


@pytest.mark.parametrize("model", FORMATS)
@pytest.mark.parametrize("stream", [False, True])
def test_parallel_calls(client: openai.OpenAI, model: str, stream: bool) -> None:
    request = options(model)
    make = streamed if stream else lambda c, r: c.chat.completions.create(**r)
    (choice,) = make(client, request).choices
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    first, second = choice.message.tool_calls
    assert (first.function.name, json.loads(first.function.arguments)) == ("GetWeather", WEATHER)
    assert (second.function.name, json.loads(second.function.arguments)) == (
        "Add", {"a": 0, "b": 0},
    )  # fmt: skip
    assert first.id != second.id
    assert first.id.startswith("call_")


def test_the_deltas_of_a_stream(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(**options(), stream=True))
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert chunks[-1].choices[0].delta.to_dict() == {}
    deltas = [d for c in chunks for d in c.choices[0].delta.tool_calls or []]
    for index in (0, 1):
        first, *rest = (d for d in deltas if d.index == index)
        assert first.id
        assert first.function
        assert (first.type, first.function.arguments) == ("function", "")
        assert len(rest) > 1
        for delta in rest:
            assert delta.function
            assert (delta.id, delta.type, delta.function.name) == (None, None, None)
    assert not any(c.choices[0].delta.content for c in chunks)
    assert all(c.choices[0].delta.tool_calls != [] for c in chunks)


def test_one_call_at_most(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**options(parallel_tool_calls=False))
    calls = answer.choices[0].message.tool_calls or []
    assert len(calls) == 1
    assert answer.choices[0].finish_reason == "tool_calls"


def test_a_named_function(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "Add"}}
    (choice,) = client.chat.completions.create(**options(tool_choice=named)).choices
    assert [call.function.name for call in choice.message.tool_calls or []] == ["Add"]
    assert choice.finish_reason == "stop"


def test_a_call_that_is_cut(client: openai.OpenAI) -> None:
    for limit in (3, 9, 20):
        request = options(max_tokens=limit)
        (whole,) = client.chat.completions.create(**request).choices
        chunks = list(client.chat.completions.create(**request, stream=True))
        assert whole.finish_reason == chunks[-1].choices[0].finish_reason == "length"
        arguments = "".join(
            (d.function.arguments or "") if d.function else ""
            for c in chunks
            for d in c.choices[0].delta.tool_calls or []
        )
        calls: Any = whole.message.tool_calls or []
        assert arguments == "".join(call.function.arguments for call in calls)


def test_parsed_arguments(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(**options())
    calls = answer.choices[0].message.tool_calls or []
    assert [call.function.parsed_arguments for call in calls] == [
        GetWeather(city="text", days=0), Add(a=0, b=0),
    ]  # fmt: skip


def test_a_turn_of_an_agent(client: openai.OpenAI) -> None:
    """The message that came back goes in again as it is, with the tool's answer."""
    first = client.chat.completions.create(**options("thinker"))
    message = first.choices[0].message
    assert message.content is None
    assert message.tool_calls
    answers: Any = [
        {"role": "tool", "tool_call_id": call.id, "content": "3"} for call in message.tool_calls
    ]
    second = client.chat.completions.create(
        model="thinker", messages=[USER, message, *answers], tools=TOOLS,
        extra_body={"smmf_echo": {"tokens": 3}},
    )  # fmt: skip
    assert second.choices[0].message.content == " the quick brown"
    assert second.choices[0].finish_reason == "stop"


def test_thoughts(client: openai.OpenAI) -> None:
    request = options("thinker", "<think>\nHm.\nSo.\n</think>\n\nThree.")
    whole = client.chat.completions.create(**request)
    message: Any = whole.choices[0].message
    assert (message.content, message.reasoning, message.reasoning_content) == (
        "Three.", "Hm.\nSo.", "Hm.\nSo.",
    )  # fmt: skip
    assert whole.usage
    assert whole.usage.completion_tokens_details
    assert 0 < (whole.usage.completion_tokens_details.reasoning_tokens or 0) < 12
    deltas: Any = [
        c.choices[0].delta for c in client.chat.completions.create(**request, stream=True)
    ]
    for name in ("reasoning", "reasoning_content"):
        assert "".join(getattr(delta, name, "") for delta in deltas) == "Hm.\nSo."
    assert "".join(delta.content or "" for delta in deltas) == "Three."
    back: Any = {"role": "assistant", "content": "Three.", "reasoning_content": "Hm.\nSo."}
    client.chat.completions.create(
        model="thinker", messages=[USER, back, USER], extra_body={"smmf_echo": {"tokens": 1}}
    )


def test_models_say_what_they_can(client: openai.OpenAI) -> None:
    able = {model.id: getattr(model, "capabilities", []) for model in client.models.list()}
    assert all("tools" in able[name] for name in FORMATS)
    assert "reasoning" in able["thinker"]
    assert "reasoning" not in able["hermes"]
