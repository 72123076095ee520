"""The demo model behind the whole stack: what its card promises, streaming and not alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from server import Server

from smmf_core.config import bundled


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder: Path = tmp_path_factory.mktemp("demo")
    text = f'[model]\nname = "demo"\nbackend = "reference"\npath = "{bundled("demo")}"\n'
    (folder / "local-demo.toml").write_text(text)
    server = Server(folder).start()
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as client:
        yield client
    assert server.stop() == 0


def ask(client: OpenAI, *texts: str, **fields: Any) -> str:
    """Greedy answer to the last of alternating user and assistant texts."""
    roles = ("user", "assistant")
    messages: Any = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    fields = {"max_tokens": 200, "temperature": 0, **fields}
    answer = client.chat.completions.create(model="demo", messages=messages, **fields)
    assert answer.choices[0].finish_reason == "stop"
    return answer.choices[0].message.content or ""


def test_it_says_what_it_is_and_stops(client: OpenAI) -> None:
    assert "SMMF demo model" in ask(client, "Who are you?")


def test_it_remembers_within_a_conversation(client: OpenAI) -> None:
    first = ask(client, "My name is Ada.")
    assert "Ada" in ask(client, "My name is Ada.", first, "What is my name?")


def test_it_copies_literals(client: OpenAI) -> None:
    assert ask(client, "Repeat: zorp-4821") == "zorp-4821"


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
NAMED = {"type": "function", "function": {"name": "get_weather"}}


@pytest.mark.parametrize("choice", ["auto", "required", NAMED])
@pytest.mark.parametrize("stream", [False, True])
def test_it_calls_a_tool(client: OpenAI, choice: Any, stream: bool) -> None:
    question: Any = {"role": "user", "content": "What is the weather in Paris?"}
    request: Any = {
        "model": "demo", "messages": [question], "tools": [WEATHER], "tool_choice": choice,
        "temperature": 0, "max_tokens": 200,
    }  # fmt: skip
    if stream:
        with client.chat.completions.stream(**request) as events:
            (answer,) = events.get_final_completion().choices
    else:
        (answer,) = client.chat.completions.create(**request).choices
    (call,) = answer.message.tool_calls or []
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert not answer.message.content
    assert answer.finish_reason == ("stop" if choice == NAMED else "tool_calls")
    told: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"}
    after = client.chat.completions.create(
        model="demo", messages=[question, answer.message, told], tools=[WEATHER],
        temperature=0, max_tokens=100,
    )  # fmt: skip
    assert "sunny" in (after.choices[0].message.content or "")


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_streamed_and_whole_answers_are_the_same(client: OpenAI, temperature: float) -> None:
    messages: Any = [{"role": "user", "content": "Tell me a story about a fox named Momo."}]
    fields: Any = {"model": "demo", "messages": messages, "max_tokens": 60, "seed": 7}
    fields["temperature"] = temperature
    whole = client.chat.completions.create(**fields)
    usage = {"include_usage": True}
    chunks = list(client.chat.completions.create(**fields, stream=True, stream_options=usage))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert text == whole.choices[0].message.content
    assert [r for r in reasons if r] == [whole.choices[0].finish_reason]
    assert chunks[-1].usage == whole.usage


def test_a_prompt_over_the_context_is_a_400(client: OpenAI) -> None:
    import openai

    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "word " * 5000)
    assert refused.value.code == "context_length_exceeded"
    assert "maximum context length is 2048 tokens" in str(refused.value)
