"""The rules for tools, tool_choice and response_format: their shape, and that they fit together.

Owns what may be asked; must not enforce it on an answer.
"""

from __future__ import annotations

import re
from typing import Any

from smmf_core.api.openai.decode import invalid_type, missing, shown, unknown_value
from smmf_core.api.openai.fields import object_of, string_of
from smmf_core.errors import ApiError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_MODES = ("none", "auto", "required")
_FORMATS = ("text", "json_object", "json_schema")

Object = dict[str, Any]


def check_tools(tools: list[Object] | None) -> list[Object] | None:
    """Raises ApiError (400) for a wrong tool. Some clients send `[]` for none: that is None."""
    for i, tool in enumerate(tools or ()):
        path = f"tools[{i}]"
        kind = tool.get("type")
        if kind is None:
            raise missing(f"{path}.type")
        if kind != "function":
            raise _unsupported(f"{path}.type", f"tools of type {shown(kind)}")
        function = object_of(tool, "function", path)
        _check_name(function, f"{path}.function")
        for key, types, words in (
            ("description", str, "a string"),
            ("parameters", dict, "an object"),
            ("strict", bool, "a boolean"),
        ):
            value = function.get(key)
            if value is not None and not isinstance(value, types):
                raise invalid_type(f"{path}.function.{key}", words, value)
    return tools or None


def check_tool_choice(choice: Any, tools: list[Object] | None) -> Any:
    """Raises ApiError (400). Rules, in this order:

    1. no choice; 2. a choice without tools; 3. a mode; 4. a named function; 5. allowed tools.
    """
    if choice is None:
        return None
    if tools is None:
        text = "'tool_choice' is only allowed when 'tools' are given."
        raise ApiError("invalid_value", text, "tool_choice")
    if isinstance(choice, str):
        if choice not in _MODES:
            raise unknown_value("tool_choice", choice, _MODES)
        return choice
    kind = choice.get("type")
    if kind == "function":
        _check_known(object_of(choice, "function", "tool_choice"), "tool_choice.function", tools)
    elif kind == "allowed_tools":
        _check_allowed(object_of(choice, "allowed_tools", "tool_choice"), tools)
    else:
        raise (
            missing("tool_choice.type")
            if kind is None
            else unknown_value("tool_choice.type", kind, ("function", "allowed_tools"))
        )
    return choice


def check_response_format(form: Object | None) -> Object | None:
    """Raises ApiError (400) for an unknown type or a schema that is absent or no object.

    A `schema` beside `json_object`, as llama.cpp's server takes it, is a json_schema. Whether a
    schema can be followed is the engine's to say.
    """
    if form is None:
        return None
    kind = form.get("type")
    if kind is None:
        raise missing("response_format.type")
    if kind not in _FORMATS:
        raise unknown_value("response_format.type", kind, _FORMATS)
    if kind == "json_schema":
        wrapper = object_of(form, "json_schema", "response_format")
        _check_name(wrapper, "response_format.json_schema")
        schema, strict = wrapper.get("schema"), wrapper.get("strict")
        if schema is not None and not isinstance(schema, dict):
            raise invalid_type("response_format.json_schema.schema", "an object", schema)
        if strict is not None and not isinstance(strict, bool):
            raise invalid_type("response_format.json_schema.strict", "a boolean", strict)
    elif kind == "json_object" and form.get("schema") is not None:
        schema = object_of(form, "schema", "response_format")
        return {"type": "json_schema", "json_schema": {"name": "schema", "schema": schema}}
    return None if kind == "text" else form


def _check_allowed(allowed: Object, tools: list[Object]) -> None:
    path = "tool_choice.allowed_tools"
    if allowed.get("mode") not in ("auto", "required"):
        raise unknown_value(f"{path}.mode", allowed.get("mode"), ("auto", "required"))
    names = allowed.get("tools")
    if not isinstance(names, list):
        raise invalid_type(f"{path}.tools", "an array", names)
    for k, tool in enumerate(names):
        if not isinstance(tool, dict):
            raise invalid_type(f"{path}.tools[{k}]", "an object", tool)
        place = f"{path}.tools[{k}]"
        _check_known(object_of(tool, "function", place), f"{place}.function", tools)


def _check_known(function: Object, path: str, tools: list[Object]) -> None:
    name = _check_name(function, path)
    if all(tool["function"]["name"] != name for tool in tools):
        text = f"Tool choice '{name}' is not among the given 'tools'."
        raise ApiError("invalid_value", text, "tool_choice")


def _check_name(function: Object, path: str) -> str:
    name = string_of(function, "name", path)
    if not _NAME.match(name):
        text = f"Invalid '{path}.name': {shown(name)} does not match '^[a-zA-Z0-9_-]{{1,64}}$'."
        raise ApiError("invalid_value", text, f"{path}.name")
    return name


def _unsupported(param: str, what: str) -> ApiError:
    return ApiError("unsupported_value", f"Invalid '{param}': {what} are not supported.", param)
