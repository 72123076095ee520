"""Messages' turns and their content blocks as the messages of a chat.

Owns the kinds of blocks; must not know the other fields of a body. Texts of one turn are joined
by a line's end: chat templates take one string, or parts where there are images.
"""

from __future__ import annotations

from typing import Any

import msgspec

from smmf_core.api.openai.decode import invalid_type, missing, shown, unknown_value
from smmf_core.api.openai.fields import kind_of, string_of
from smmf_core.api.openai.images import Content, from_base64, from_url, joined
from smmf_core.api.openai.pieces import Pieces, settled
from smmf_core.errors import ApiError

_ROLES = ("user", "assistant", "system")
_SOURCES = ("base64", "url")
_BETWEEN = "\n"
_FAILED = "Error: "  # chats have no other way to say that a tool failed

Object = dict[str, Any]


def read_messages(system: str | list[Object] | None, messages: list[Object]) -> list[Object]:
    """A chat's messages; turns of one role in a row are one. Raises ApiError (400)."""
    chat: list[Object] = []
    if system:
        _add_part(chat, "system", read_texts(system, "system"))
    for i, message in enumerate(messages):
        path = f"messages[{i}]"
        role = message.get("role")
        if role is None:
            raise missing(f"{path}.role")
        if not isinstance(role, str):
            raise invalid_type(f"{path}.role", "a string", role)
        if role not in _ROLES:
            raise unknown_value(f"{path}.role", role, _ROLES)
        content = message.get("content")
        if content is None:
            raise missing(f"{path}.content")
        _add_turn(chat, role, content, f"{path}.content")
    return settled(chat)


def read_texts(content: Any, path: str) -> str:
    """A string, or the texts of blocks of which no other kind is allowed."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid_type(path, "a string or an array of content blocks", content)
    texts = []
    for k, block in enumerate(content):
        place = f"{path}[{k}]"
        kind = kind_of(block, place)
        if kind != "text":
            raise _unsupported(place, kind, "'text'")
        texts.append(string_of(block, "text", place))
    return _BETWEEN.join(texts)


def _read_answer(content: Any, path: str) -> Content:
    """A tool's: texts and images."""
    if not isinstance(content, list):
        return read_texts(content, path)
    parts: list[str | Object] = []
    for k, block in enumerate(content):
        place = f"{path}[{k}]"
        kind = kind_of(block, place)
        if kind == "text":
            parts.append(string_of(block, "text", place))
        elif kind == "image":
            parts.append(_image(block, place))
        else:
            raise _unsupported(place, kind, "'text' and 'image'")
    return joined(parts, _BETWEEN)


def _image(block: Object, path: str) -> Object:
    source = block.get("source")
    kind = source.get("type") if isinstance(source, dict) else None
    if not isinstance(source, dict) or kind not in _SOURCES:
        text = "its source must be base64: {'type': 'base64', 'media_type': ..., 'data': ...}."
        raise ApiError("unsupported_value", f"Invalid '{path}': {text}", path)
    if kind == "url":
        return from_url(source.get("url"), path)
    return from_base64(source.get("data"), path, source.get("media_type") or "")


def _add_turn(chat: list[Object], role: str, content: Any, path: str) -> None:
    if role == "assistant":
        _add_assistant(chat, content, path)
    elif role == "system":
        _add_part(chat, role, read_texts(content, path))
    elif isinstance(content, list):
        _add_user(chat, content, path)
    else:
        text = read_texts(content, path)
        if not text:
            raise _empty(path)
        _add_part(chat, role, text)


def _add_user(chat: list[Object], content: list[Any], path: str) -> None:
    """Tools' answers are messages of their own, in the blocks' order."""
    if not content:
        raise _empty(path)
    for k, block in enumerate(content):
        place = f"{path}[{k}]"
        kind = kind_of(block, place)
        if kind == "text":
            _add_part(chat, "user", string_of(block, "text", place))
        elif kind == "image":
            _add_part(chat, "user", _image(block, place))
        elif kind == "tool_result":
            given = block.get("content")
            answer = _read_answer("" if given is None else given, f"{place}.content")
            if block.get("is_error") is True:
                answer = joined([_FAILED, answer])
            call = string_of(block, "tool_use_id", place)
            chat.append({"role": "tool", "tool_call_id": call, "content": answer})
        else:
            raise _unsupported(place, kind, "'text', 'image' and 'tool_result'")


def _add_assistant(chat: list[Object], content: Any, path: str) -> None:
    if isinstance(content, str):
        _add_part(chat, "assistant", content)
        return
    if not isinstance(content, list):
        raise invalid_type(path, "a string or an array of content blocks", content)
    said = _add_part(chat, "assistant", "")
    for k, block in enumerate(content):
        place = f"{path}[{k}]"
        kind = kind_of(block, place)
        if kind == "text":
            said["content"].add(string_of(block, "text", place))
        elif kind == "thinking":
            thoughts = said.setdefault("reasoning_content", Pieces(_BETWEEN))
            thoughts.add(string_of(block, "thinking", place))
        elif kind == "tool_use":
            said.setdefault("tool_calls", []).append(_call(block, place))
        elif kind != "redacted_thinking":  # only who wrote that can read it
            raise _unsupported(place, kind, "'text', 'thinking' and 'tool_use'")


def _call(block: Object, path: str) -> Object:
    given = block.get("input")
    if given is None:
        raise missing(f"{path}.input")
    if not isinstance(given, dict):
        raise invalid_type(f"{path}.input", "an object", given)
    function = {
        "name": string_of(block, "name", path),
        "arguments": msgspec.json.encode(given).decode(),
    }
    return {"id": string_of(block, "id", path), "type": "function", "function": function}


def _add_part(chat: list[Object], role: str, part: str | Object) -> Object:
    """Returns the message that has it: the last one, where that is of this role."""
    if not chat or chat[-1]["role"] != role:
        chat.append({"role": role, "content": Pieces(_BETWEEN)})
    chat[-1]["content"].add(part)
    return chat[-1]


def _unsupported(path: str, kind: str, known: str) -> ApiError:
    reason = f"content blocks of type {shown(kind)} are not supported here, only {known} are."
    return ApiError("unsupported_value", f"Invalid '{path}': {reason}", path)


def _empty(path: str) -> ApiError:
    return ApiError("invalid_value", f"Invalid '{path}': a user's turn must not be empty.", path)
