"""The form that an answer is held to, in vLLM's terms: JSON, a schema, or a call of a tool.

Owns what is asked of the grammar; must not import vLLM, which compiles and follows it.
"""

from __future__ import annotations

import json
from typing import Any

from smmf_core.engines.grammar.form import is_free, wanted_schema
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

_TAGGED = ("", "hermes")  # tool formats: JSON between tags
_BARE = ("llama3_json",)  # JSON alone
_TAGS = ("<tool_call>", "</tool_call>")


def answer_form(submit: Submit, tool_format: str) -> dict[str, Any]:
    """Arguments of vLLM's StructuredOutputsParams, {} for a free answer.

    1. A tool that must be called. 2. The response format.
    """
    functions = forced_functions(submit)
    if functions:
        return _call_form(functions, tool_format)
    form = submit.response_format
    if form is None or form["type"] == "text":
        return {}
    schema = (form.get("json_schema") or {}).get("schema")
    return {"json_object": True} if schema is None else {"json": json.dumps(schema)}


def check_form(submit: Submit, has_grammars: bool, tool_format: str) -> None:
    """Raises ApiError for a form that this model cannot be held to."""
    is_forced = bool(forced_functions(submit))
    param = "tool_choice" if is_forced else "response_format"
    if not has_grammars and (is_forced or submit.response_format is not None):
        text = "This model runs without vLLM's tokenizer: its answers take no form."
        raise ApiError("unsupported_value", text, param)
    if is_forced and tool_format not in (*_TAGGED, *_BARE):
        text = f"Calls in the format {tool_format!r} cannot be forced: use tool_choice 'auto'."
        raise ApiError("unsupported_value", text, param)
    if not is_free(submit):
        wanted_schema(submit.response_format or {})


def forced_functions(submit: Submit) -> list[dict[str, Any]]:
    """The functions of which one must be called; [] when a call is not forced."""
    choice = submit.tool_choice
    functions = [tool["function"] for tool in submit.tools or ()]
    if choice == "required":
        return functions
    if not isinstance(choice, dict):
        return []
    if choice["type"] == "function":
        names = [choice["function"]["name"]]
    elif choice["allowed_tools"]["mode"] == "required":
        names = [tool["function"]["name"] for tool in choice["allowed_tools"]["tools"]]
    else:
        return []
    return [function for function in functions if function["name"] in names]


def _call_form(functions: list[dict[str, Any]], tool_format: str) -> dict[str, Any]:
    if tool_format in _BARE:
        return {"json": json.dumps(_calls_schema(functions, "parameters"))}
    begin, end = _TAGS
    content = {"type": "json_schema", "json_schema": _calls_schema(functions, "arguments")}
    tag = {"type": "tag", "begin": begin, "content": content, "end": end}
    return {"structural_tag": json.dumps({"type": "structural_tag", "format": tag})}


def _calls_schema(functions: list[dict[str, Any]], arguments: str) -> dict[str, Any]:
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function["name"]},
                arguments: {"type": "object", **(function.get("parameters") or {})},
            },
            "required": ["name", arguments],
            "additionalProperties": False,
        }
        for function in functions
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}
