"""Responses' tools, tool_choice and text.format as those of a chat.

Owns their shape, and that they fit together; must not enforce them on an answer.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from smmf_core.api.openai.decode import check_nesting, invalid_type, missing, shown, unknown_value
from smmf_core.api.openai.fields import string_of
from smmf_core.api.responses.custom import PARAMETERS
from smmf_core.errors import ApiError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
_MODES = ("none", "auto", "required")
_FORMATS = ("text", "json_object", "json_schema")
_TOOLS = ("function", "custom")
_BETWEEN_NAMES = "__"
_FUNCTION_FIELDS = (
    ("description", str, "a string"),
    ("parameters", dict, "an object"),
    ("strict", bool, "a boolean"),
)
_SCHEMA_FIELDS = (("description", str, "a string"), ("strict", bool, "a boolean"))

Object = dict[str, Any]


class Tool(NamedTuple):
    """What the client calls a function of the model's."""

    kind: str
    name: str
    namespace: str | None
    function: Object


Tools = dict[str, Tool]  # by the function's name


def joined(namespace: str | None, name: str) -> str:
    """What the model knows it as: for a model there are no namespaces."""
    return name if namespace is None else f"{namespace}{_BETWEEN_NAMES}{name}"


def read_tools(tools: list[Object] | None) -> Tools:
    """Raises ApiError (400) for a wrong tool, or one that only OpenAI's servers have.

    A search that may not reach the web, as Codex offers always, would find nothing: left out.
    """
    check_nesting(tools or [], "tools")
    found: Tools = {}
    for i, tool in enumerate(tools or ()):
        path = f"tools[{i}]"
        kind = string_of(tool, "type", path)
        if kind == "namespace":
            namespace = _name(tool, path)
            for k, inner in enumerate(_list(tool, "tools", path)):
                _add(found, inner, namespace, f"{path}.tools[{k}]")
        elif kind != "web_search" or tool.get("external_web_access") is not False:
            _add(found, tool, None, path)
    return found


def read_tool_choice(choice: str | Object | None, tools: Tools) -> Any:
    """Raises ApiError (400). Rules, in this order:

    1. no choice; 2. a mode, of which all but `required` need no tools; 3. a named tool; 4. allowed
    tools.
    """
    if choice is None:
        return None
    if isinstance(choice, str):
        if choice not in _MODES:
            raise unknown_value("tool_choice", choice, _MODES)
        if not tools and choice == "required":
            raise _without_tools()
        return choice if tools else None
    check_nesting(choice, "tool_choice")
    kind = string_of(choice, "type", "tool_choice")
    if kind in _TOOLS:
        return _named(choice, "tool_choice", tools)
    if kind == "allowed_tools":
        return _allowed(choice, tools)
    raise unknown_value("tool_choice.type", kind, (*_TOOLS, "allowed_tools"))


def read_format(form: Object | None) -> Object | None:
    """`text.format` as a chat's response_format. Raises ApiError (400)."""
    if form is None:
        return None
    path = "text.format"
    check_nesting(form, path)
    kind = string_of(form, "type", path)
    if kind not in _FORMATS:
        raise unknown_value(f"{path}.type", kind, _FORMATS)
    if kind != "json_schema":
        return None if kind == "text" else {"type": kind}
    schema = form.get("schema")
    if schema is None:
        raise missing(f"{path}.schema")
    if not isinstance(schema, dict):
        raise invalid_type(f"{path}.schema", "an object", schema)
    wrapper = {"name": _name(form, path), "schema": schema}
    _copy(form, wrapper, _SCHEMA_FIELDS, path)
    return {"type": kind, "json_schema": wrapper}


def _add(tools: Tools, tool: Object, namespace: str | None, path: str) -> None:
    kind = string_of(tool, "type", path)
    if kind not in _TOOLS:
        text = f"Invalid '{path}.type': tools of type {shown(kind)} are not supported."
        listed = "Supported values are: 'function', 'custom', 'namespace'."
        raise ApiError("unsupported_value", f"{text} {listed}", f"{path}.type")
    name = _name(tool, path)
    function: Object = {"name": joined(namespace, name)}
    if function["name"] in tools:
        text = f"Invalid '{path}.name': there are several tools called {shown(name)}."
        raise ApiError("invalid_value", text, f"{path}.name")
    if kind == "custom":
        _check_custom(tool, path)
        _copy(tool, function, _FUNCTION_FIELDS[:1], path)
        function["parameters"] = PARAMETERS
    else:
        _copy(tool, function, _FUNCTION_FIELDS, path)
    tools[function["name"]] = Tool(kind, name, namespace, function)


def _check_custom(tool: Object, path: str) -> None:
    form = tool.get("format")
    if form is None:
        return
    path = f"{path}.format"
    if not isinstance(form, dict):
        raise invalid_type(path, "an object", form)
    if string_of(form, "type", path) != "text":
        text = f"Invalid '{path}.type': inputs of type {shown(form['type'])} are not supported."
        raise ApiError("unsupported_value", f"{text} Supported values are: 'text'.", f"{path}.type")


def _named(choice: Object, path: str, tools: Tools) -> Object:
    name = _name(choice, path)
    if not tools:
        raise _without_tools()
    if name not in tools:
        text = f"Invalid '{path}.name': {shown(name)} is not among the given 'tools'."
        raise ApiError("invalid_value", text, f"{path}.name")
    return {"type": "function", "function": {"name": name}}


def _allowed(choice: Object, tools: Tools) -> Object:
    mode = choice.get("mode")
    if mode not in ("auto", "required"):
        raise unknown_value("tool_choice.mode", mode, ("auto", "required"))
    listed = _list(choice, "tools", "tool_choice")
    names = [_named(tool, f"tool_choice.tools[{k}]", tools) for k, tool in enumerate(listed)]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": names}}


def _without_tools() -> ApiError:
    text = "This 'tool_choice' is only allowed when 'tools' are given."
    return ApiError("invalid_value", text, "tool_choice")


def _copy(given: Object, target: Object, fields: Any, path: str) -> None:
    for key, kind, words in fields:
        value = given.get(key)
        if value is None:
            continue
        if not isinstance(value, kind):
            raise invalid_type(f"{path}.{key}", words, value)
        target[key] = value


def _list(given: Object, key: str, path: str) -> list[Object]:
    """Objects, one at least."""
    found, path = given.get(key), f"{path}.{key}"
    if found is None:
        raise missing(path)
    if not isinstance(found, list):
        raise invalid_type(path, "an array", found)
    if not found:
        text = "empty array. Expected an array with minimum length 1, but got an empty array."
        raise ApiError("empty_array", f"Invalid '{path}': {text}", path)
    for k, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise invalid_type(f"{path}[{k}]", "an object", entry)
    return found


def _name(given: Object, path: str) -> str:
    name = string_of(given, "name", path)
    if not _NAME.match(name):
        text = f"Invalid '{path}.name': {shown(name)} does not match '^[a-zA-Z0-9_-]{{1,128}}$'."
        raise ApiError("invalid_value", text, f"{path}.name")
    return name
