"""Messages' tools and tool_choice as those of a chat.

Owns their shape, and that they fit together; must not enforce them on an answer.
"""

from __future__ import annotations

import re
from typing import Any

from smmf_core.api.anthropic.schema import ToolChoice
from smmf_core.api.openai.decode import invalid_type, missing, shown
from smmf_core.errors import ApiError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
_MODES = {"auto": "auto", "any": "required", "none": "none"}

Object = dict[str, Any]


def read_tools(tools: list[Object] | None) -> list[Object] | None:
    """Raises ApiError (400) for a wrong tool, or one that only Anthropic's servers have."""
    found: dict[str, Object] = {}
    for i, tool in enumerate(tools or ()):
        read = _tool(tool, f"tools[{i}]")
        name = read["function"]["name"]
        if name in found:
            text = f"Invalid 'tools[{i}].name': there are several tools called {shown(name)}."
            raise ApiError("invalid_value", text, f"tools[{i}].name")
        found[name] = read
    return list(found.values()) or None


def read_tool_choice(choice: ToolChoice | None, tools: list[Object] | None) -> Any:
    """Raises ApiError (400) for a choice among no tools, or of a tool that is not there."""
    if choice is None:
        return None
    if tools is None:
        if choice.type == "none":
            return None
        text = "'tool_choice' is only allowed when 'tools' are given."
        raise ApiError("invalid_value", text, "tool_choice")
    if choice.type != "tool":
        return _MODES[choice.type]
    if choice.name is None:
        raise missing("tool_choice.name")
    if all(tool["function"]["name"] != choice.name for tool in tools):
        text = f"Invalid 'tool_choice.name': {shown(choice.name)} is not among the given 'tools'."
        raise ApiError("invalid_value", text, "tool_choice.name")
    return {"type": "function", "function": {"name": choice.name}}


def _tool(tool: Object, path: str) -> Object:
    kind = tool.get("type")
    if kind not in (None, "custom"):
        text = f"Invalid '{path}.type': tools of type {shown(kind)} are not supported."
        raise ApiError("unsupported_value", text, f"{path}.type")
    name, schema = tool.get("name"), tool.get("input_schema")
    if name is None or schema is None:
        raise missing(f"{path}.{'name' if name is None else 'input_schema'}")
    if not isinstance(name, str):
        raise invalid_type(f"{path}.name", "a string", name)
    if not _NAME.match(name):
        text = f"Invalid '{path}.name': {shown(name)} does not match '^[a-zA-Z0-9_-]{{1,128}}$'."
        raise ApiError("invalid_value", text, f"{path}.name")
    if not isinstance(schema, dict):
        raise invalid_type(f"{path}.input_schema", "an object", schema)
    if schema.get("type", "object") != "object":
        text = f"Invalid '{path}.input_schema.type': it must be 'object'."
        raise ApiError("invalid_value", text, f"{path}.input_schema.type")
    function: Object = {"name": name, "parameters": schema}
    for key, type_, words in (("description", str, "a string"), ("strict", bool, "a boolean")):
        value = tool.get(key)
        if value is None:
            continue
        if not isinstance(value, type_):
            raise invalid_type(f"{path}.{key}", words, value)
        function[key] = value
    return {"type": "function", "function": function}
