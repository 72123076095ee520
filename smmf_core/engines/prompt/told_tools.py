"""Tools for chat templates that know none: told to the model in words, in the hermes form.

Owns the words, and how calls and their results look in a conversation then; must not read answers.
"""

from __future__ import annotations

import json
from typing import Any

from smmf_core.engines.prompt.parts import as_parts, prefixed

FORM = "hermes"  # worker.parse
_WORDS = (
    "You can call these functions:\n{tools}\n\nTo call one, answer with\n"
    '<tool_call>\n{{"name": "the function\'s name", "arguments": {{...}}}}\n</tool_call>\n'
    "and nothing else; else answer as always."
)

Message = dict[str, Any]


def with_tools(messages: list[Message], tools: list[Message]) -> list[Message]:
    """The messages, of texts and images only: the tools stand before the first question, a call is
    what the assistant said, and results are what the user says next."""
    told: list[Message] = []
    for message in messages:
        plain = _plain(message)
        if message["role"] == "tool" and _ends_with_results(told):
            told[-1]["content"] = _followed(told[-1]["content"], plain["content"])
        else:
            told.append(plain)
    first = next((message for message in told if message["role"] == "user"), None)
    if first is not None:
        shown = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
        first["content"] = prefixed(f"{_WORDS.format(tools=shown)}\n\n", first["content"])
    return told


def _plain(message: Message) -> Message:
    content = message.get("content") or ""
    if message["role"] == "tool":
        shown = _followed(prefixed("<tool_response>\n", content), "</tool_response>")
        return {"role": "user", "content": shown}
    calls = [_call(call["function"]) for call in message.get("tool_calls") or ()]
    kept = {key: value for key, value in message.items() if key != "tool_calls"}
    for call in calls:
        content = _followed(content, call) if content else call
    return {**kept, "content": content}


def _call(function: Message) -> str:
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments or {}, ensure_ascii=False)
    name = json.dumps(function.get("name"))
    return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'


def _ends_with_results(told: list[Message]) -> bool:
    if not told:
        return False
    last = as_parts(told[-1]["content"])[-1:]
    return bool(last) and str(last[0].get("text")).endswith("</tool_response>")


def _followed(content: Any, more: Any) -> Any:
    """Contents, one a line."""
    if isinstance(content, str) and isinstance(more, str):
        return f"{content}\n{more}"
    return [*as_parts(content), *as_parts(prefixed("\n", more))]
