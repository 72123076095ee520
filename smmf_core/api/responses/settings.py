"""What an answer of Responses repeats of its request.

Owns these fields; must not know an answer. A value that the request left open is the one that was
used.
"""

from __future__ import annotations

from typing import Any

from smmf_core.api.openai import Parsed
from smmf_core.api.responses.schema import Reasoning, ResponsesBody, TextConfig

_TOOLS = ("function", "custom", "namespace")  # others were left out

Object = dict[str, Any]


def settings(parsed: Parsed, asked: ResponsesBody, model: str) -> Object:
    sampling, text = parsed.submit.sampling, asked.text or TextConfig()
    reasoning = asked.reasoning or Reasoning()
    return {
        "model": model,
        "instructions": asked.instructions,
        "previous_response_id": None,
        "tools": [_tool(tool) for tool in asked.tools or () if tool["type"] in _TOOLS],
        "tool_choice": "auto" if asked.tool_choice is None else asked.tool_choice,
        "parallel_tool_calls": parsed.submit.parallel_tool_calls,
        "text": {"format": _format(text.format), "verbosity": text.verbosity or "medium"},
        "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary},
        "truncation": "disabled",
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "top_logprobs": asked.top_logprobs or 0,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "store": False,
        "background": False,
        "service_tier": "default",
        "metadata": asked.metadata or {},
        "user": asked.user,
        "safety_identifier": asked.safety_identifier,
        "prompt_cache_key": asked.prompt_cache_key,
    }


def _tool(tool: Object) -> Object:
    found = {key: tool.get(key) for key in ("type", "name", "description")}
    if tool["type"] == "namespace":
        inside = [_tool(inner) for inner in tool["tools"]]
        return {**found, "description": tool.get("description") or "", "tools": inside}
    if tool["type"] == "custom":
        return {**found, "format": {"type": "text"}}
    return {**found, "parameters": tool.get("parameters"), "strict": tool.get("strict")}


def _format(form: Object | None) -> Object:
    if form is None or form["type"] != "json_schema":
        return {"type": form["type"] if form else "text"}
    found = {key: form.get(key) for key in ("type", "name", "description", "schema")}
    return {**found, "strict": form.get("strict") is True}
