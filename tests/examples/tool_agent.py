"""An agent: the model calls functions of this program until it has its answer.

    smmf serve
    python tests/examples/tool_agent.py "How is the weather in Rome?"

OPENAI_BASE_URL and MODEL name another server and another model.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel

MODEL = os.environ.get("MODEL", "demo")
MAX_TURNS = 5  # a model that never stops calling is stopped

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "unused"),
)


class GetWeather(BaseModel):
    """Get the weather of a city."""

    city: str

    def run(self) -> Any:
        sky = {"Rome": "sunny", "Oslo": "snowy"}
        return {"temperature": 21, "condition": sky.get(self.city, "cloudy")}


class Add(BaseModel):
    """Add two numbers."""

    a: int
    b: int

    def run(self) -> Any:
        return self.a + self.b


FUNCTIONS: dict[str, type[GetWeather] | type[Add]] = {"get_weather": GetWeather, "add": Add}
TOOLS = [
    pydantic_function_tool(model, name=name, description=model.__doc__)
    for name, model in FUNCTIONS.items()
]


def call(name: str, arguments: str) -> str:
    """A call's result, or what is wrong with it: the model may try again."""
    try:
        return json.dumps(FUNCTIONS[name].model_validate_json(arguments).run())
    except (KeyError, ValueError) as error:
        return f"error: {error}"


def answer(question: str) -> str:
    messages: list[Any] = [{"role": "user", "content": question}]
    for _ in range(MAX_TURNS):
        said = client.chat.completions.create(
            model=MODEL, messages=messages, tools=TOOLS, temperature=0, max_tokens=200
        )
        message = said.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            return message.content or ""
        for tool in message.tool_calls:
            assert tool.type == "function"
            result = call(tool.function.name, tool.function.arguments)
            print(f"{tool.function.name}({tool.function.arguments}) = {result}")
            messages.append({"role": "tool", "tool_call_id": tool.id, "content": result})
    return "It has not come to an end."


if __name__ == "__main__":
    question = " ".join(sys.argv[1:]) or "How is the weather in Rome?"
    print("answer:", answer(question))
