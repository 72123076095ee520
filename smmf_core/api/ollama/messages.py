"""Ollama's messages and tools as those of a chat.

Owns their shape: arguments are objects, calls may have no ids, and a tool's answer may name its
tool only.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from smmf_core.api.openai.decode import check_nesting, invalid_type, missing, unknown_value
from smmf_core.api.openai.images import Content, from_base64, from_url, joined
from smmf_core.errors import ApiError

_ROLES = ("system", "user", "assistant", "tool")
_SHOWN_IMAGES = ("user", "tool")
_SCHEME_CHARACTERS = 8  # within which a URL has its colon; base64 has none

Object = dict[str, Any]
Call = tuple[str, str]  # id and name


def read_messages(messages: list[Object]) -> list[Object]:
    """Raises ApiError (400) with the path of what is wrong."""
    chat: list[Object] = []
    waiting = _Waiting([])
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        role = _role(message, path)
        text = _string(message, "content", path)
        said: Object = {"role": role, "content": text}
        if message.get("images"):
            said["content"] = with_images(role, text, message["images"], f"{path}.images")
        if role == "assistant":
            waiting = _Waiting(_add_assistant(said, message, i))
        elif role == "tool":
            said["tool_call_id"], name = _answered(message, path, waiting)
            if name:
                said["name"] = name
        chat.append(said)
    return chat


def read_tools(tools: list[Object] | None) -> list[Object] | None:
    """`type` may be left out: all are functions."""
    return [{"type": "function", **tool} for tool in tools] if tools else None


def with_images(role: str, text: str, images: Any, path: str) -> Content:
    """The images come first, as with Ollama: each is base64, or a `data:` URL."""
    if role not in _SHOWN_IMAGES:
        reason = f"Invalid '{path}': only messages of the user and of tools may have images."
        raise ApiError("unsupported_value", reason, path)
    if not isinstance(images, list):
        raise invalid_type(path, "an array", images)
    parts = [_image(image, f"{path}[{k}]") for k, image in enumerate(images)]
    return joined([*parts, text])


def is_begun(chat: list[Object]) -> bool:
    """Whether the last message is the beginning of the answer."""
    last = chat[-1]
    return last["role"] == "assistant" and bool(last["content"]) and "tool_calls" not in last


def _role(message: Object, path: str) -> str:
    role = message.get("role")
    if role is None:
        raise missing(f"{path}.role")
    if not isinstance(role, str):
        raise invalid_type(f"{path}.role", "a string", role)
    if role.lower() not in _ROLES:
        raise unknown_value(f"{path}.role", role, _ROLES)
    return role.lower()


def _image(image: Any, path: str) -> Object:
    is_url = isinstance(image, str) and ":" in image[:_SCHEME_CHARACTERS]
    return from_url(image, path) if is_url else from_base64(image, path)


def _add_assistant(said: Object, message: Object, i: int) -> list[Call]:
    """Its thoughts and calls. Returns the calls that tools are to answer."""
    path = f"messages[{i}]"
    thinking = _string(message, "thinking", path)
    if thinking:
        said["reasoning_content"] = thinking
    given = message.get("tool_calls")
    if not given:
        return []
    if not isinstance(given, list):
        raise invalid_type(f"{path}.tool_calls", "an array", given)
    said["tool_calls"] = [
        _call(call, f"{path}.tool_calls[{k}]", f"call_{i}_{k}") for k, call in enumerate(given)
    ]
    return [(call["id"], call["function"]["name"]) for call in said["tool_calls"]]


def _call(call: Any, path: str, new_id: str) -> Object:
    if not isinstance(call, dict):
        raise invalid_type(path, "an object", call)
    function = call.get("function")
    if function is None:
        raise missing(f"{path}.function")
    if not isinstance(function, dict):
        raise invalid_type(f"{path}.function", "an object", function)
    name = _string(function, "name", f"{path}.function")
    if not name:
        raise missing(f"{path}.function.name")
    arguments = function.get("arguments")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise invalid_type(f"{path}.function.arguments", "an object", arguments)
    check_nesting(arguments, f"{path}.function.arguments")
    written = msgspec.json.encode(arguments).decode()
    return {
        "id": _string(call, "id", path) or new_id,
        "type": "function",
        "function": {"name": name, "arguments": written},
    }


class _Waiting:
    """An assistant's calls that no tool has answered. To find one takes the same time however many
    there are."""

    def __init__(self, calls: list[Call]) -> None:
        self._names = dict(calls)  # by id
        self._ids = deque(self._names)
        self._by_name: dict[str, deque[str]] = {}
        for call_id, name in self._names.items():
            self._by_name.setdefault(name, deque()).append(call_id)

    def take(self, call_id: str) -> Call | None:
        name = self._names.pop(call_id, None)
        return None if name is None else (call_id, name)

    def take_first(self, name: str) -> Call | None:
        """Of the tool that is named; "": of all."""
        ids = self._by_name.get(name, deque()) if name else self._ids
        while ids:
            if found := self.take(ids.popleft()):
                return found
        return None


def _answered(message: Object, path: str, waiting: _Waiting) -> Call:
    """Which call a tool's message answers; it waits no longer.

    1 the one whose id it gives; 2 the first of the tool that it names; 3 else the first one.
    """
    given_id = _string(message, "tool_call_id", path)
    name = _string(message, "tool_name", path)
    found = waiting.take(given_id) if given_id else waiting.take_first(name)
    return found or (given_id or f"call_{path}", name)


def _string(parent: Object, key: str, path: str) -> str:
    value = parent.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise invalid_type(f"{path}.{key}", "a string", value)
    return value
