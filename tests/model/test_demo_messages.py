"""The demo model for Anthropic's client: a tool used, a prompt counted, an answer continued.

Its model is loaded by the first request, which waits for it; an alias names it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from server import Server

from smmf_core.config import bundled

WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    folder: Path = tmp_path_factory.mktemp("demo")
    text = f'[model]\nname = "demo"\nbackend = "reference"\npath = "{bundled("demo")}"\n'
    (folder / "local-demo.toml").write_text(text + "[deployment]\nautostart = false\n")
    server = Server(folder).start()
    server.admin("PUT", "/admin/v1/aliases/claude", {"model": "demo"})
    base = server.base_url.removesuffix("/v1")
    with anthropic.Anthropic(base_url=base, api_key="unused", max_retries=0) as client:
        yield client
    assert server.stop() == 0


def options(text: str, **fields: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    cold = {"temperature": 0}
    return {
        "model": "claude", "max_tokens": 200, "messages": messages, "extra_body": cold, **fields,
    }  # fmt: skip


def test_the_first_request_waits_for_the_model(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(**options("Who are you?"))
    assert answer.model == "claude"
    assert "SMMF demo model" in answer.content[0].text
    assert answer.stop_reason == "end_turn"


def test_a_tool_is_used_and_its_answer_read(client: anthropic.Anthropic) -> None:
    asked = options("What is the weather in Oslo?", tools=[WEATHER])
    with client.messages.stream(**asked) as stream:
        first = stream.get_final_message()
    assert first.stop_reason == "tool_use"
    call: Any = first.content[-1]
    assert (call.name, call.input) == ("get_weather", {"city": "Oslo"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": '{"sky": "rain"}'}
    turns = [
        *asked["messages"],
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = client.messages.create(**{**asked, "messages": turns})
    assert second.stop_reason == "end_turn"
    assert second.content[0].type == "text"


def test_the_count_is_what_is_used(client: anthropic.Anthropic) -> None:
    asked = options("What is the weather in Oslo?", tools=[WEATHER], system="Be brief.")
    prompt = {key: asked[key] for key in ("model", "messages", "tools", "system")}
    usage = client.messages.create(**asked).usage
    used = usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert client.messages.count_tokens(**prompt).input_tokens == used


def test_a_begun_answer_is_continued(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**options("Who are you?")).content[0].text
    turns = [
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": whole[:8]},
    ]
    rest = client.messages.create(**{**options(""), "messages": turns}).content[0].text
    assert whole[:8] + rest == whole
