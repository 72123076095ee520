"""Calls that are forced on the demo model in forms that it was not trained on: the grammar writes
them, the parser reads them, whole and streamed, with arguments of the schema's types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openai import OpenAI
from server import Server

from smmf_core.config import bundled

FORMATS = ("glm45", "qwen3_coder", "llama4_pythonic")
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Rome", "Oslo \u00e9"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 12},
        "units": {"type": "array", "items": {"enum": ["C", "F"]}, "maxItems": 2},
        "sure": {"type": "boolean"},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "get_time"}},
]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    folder: Path = tmp_path_factory.mktemp("formats")
    for form in FORMATS:
        text = f'[model]\nname = "{form}"\nbackend = "reference"\npath = "{bundled("demo")}"\n'
        (folder / f"local-{form}.toml").write_text(f'{text}[engine]\ntool_format = "{form}"\n')
    server = Server(folder).start()
    with OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as client:
        yield client
    assert server.stop() == 0


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_forced_call(client: OpenAI, form: str, choice: Any) -> None:
    for seed in range(3):
        asked: Any = {
            "model": form, "messages": [{"role": "user", "content": "The weather in Rome?"}],
            "tools": TOOLS, "tool_choice": choice, "seed": seed, "max_tokens": 300,
            "parallel_tool_calls": False,
        }  # fmt: skip
        (whole,) = client.chat.completions.create(**asked).choices
        with client.chat.completions.stream(**asked) as events:
            for _ in events:
                pass
            (streamed,) = events.get_final_completion().choices
        (call,), (again,) = whole.message.tool_calls or [], streamed.message.tool_calls or []
        assert (again.function.name, again.function.arguments) == (
            call.function.name, call.function.arguments,
        )  # fmt: skip
        assert whole.message.content is None
        assert not streamed.message.content
        assert whole.finish_reason == streamed.finish_reason
        assert whole.finish_reason == ("stop" if choice == NAMED else "tool_calls")
        if call.function.name == "get_weather":
            jsonschema.validate(json.loads(call.function.arguments), PARAMETERS)
        else:
            assert (choice, call.function.arguments) == ("required", "{}")
