"""Responses' input, a text or a list of items, as the messages of a chat.

Owns the kinds of items and of content parts; must not know the other fields of a body. What an
assistant thought, said and called between two turns of others is one message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from smmf_core.api.openai.decode import invalid_type, missing, shown, unknown_value
from smmf_core.api.openai.fields import kind_of, string_of
from smmf_core.api.openai.images import Content, from_url, joined
from smmf_core.api.openai.pieces import Pieces, settled
from smmf_core.api.responses.custom import wrapped
from smmf_core.api.responses.tools import joined as joined_name
from smmf_core.errors import ApiError

_ROLES = ("user", "assistant", "system", "developer")
_LEADING = ("system", "developer")
_TEXT_PARTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_IMAGE = "input_image"
_DETAILS = ("auto", "low", "high", "original")
_THOUGHTS = ("reasoning_text", "text")
_BETWEEN = "\n"
_BETWEEN_MESSAGES = "\n\n"

Object = dict[str, Any]


def read_input(instructions: str | None, given: str | list[Object]) -> list[Object]:
    """A chat's messages, the instructions first. Raises ApiError (400)."""
    chat: list[Object] = []
    if instructions:
        chat.append(_message("system", instructions))
    if isinstance(given, str):
        chat.append({"role": "user", "content": given})
        return settled(chat)
    for i, item in enumerate(given):
        path = f"input[{i}]"
        kind = _kind(item, path)
        if kind not in _READERS:
            raise _unsupported_item(path, kind)
        _READERS[kind](chat, item, path)
    return settled(chat)


def _kind(item: Object, path: str) -> str:
    kind = item.get("type")
    if kind is None:
        return "item_reference" if "id" in item and "role" not in item else "message"
    if not isinstance(kind, str):
        raise invalid_type(f"{path}.type", "a string", kind)
    return kind


def _add_message(chat: list[Object], item: Object, path: str) -> None:
    """Templates know instructions only as one message, at the beginning, and many know no two
    turns of the user in a row."""
    role = string_of(item, "role", path)
    if role not in _ROLES:
        raise unknown_value(f"{path}.role", role, _ROLES)
    if role == "user":
        _add_user(chat, _content(item, "content", path, may_be_empty=False))
        return
    text = _text(item, "content", path, may_be_empty=role == "assistant")
    if role == "assistant":
        _assistant(chat)["content"].add(text)
    elif len(chat) == 1 and chat[0]["role"] in _LEADING:
        chat[0]["content"].add(text)
    else:
        chat.append(_message(role, text))


def _add_user(chat: list[Object], content: Content) -> None:
    if chat and chat[-1]["role"] == "user":
        chat[-1]["content"].add(content)
    else:
        chat.append(_message("user", content))


def _add_reasoning(chat: list[Object], item: Object, path: str) -> None:
    """The thoughts themselves, where they are there: a summary is none."""
    parts = item.get("content") or []
    if not isinstance(parts, list):
        raise invalid_type(f"{path}.content", "an array", parts)
    for k, part in enumerate(parts):
        place = f"{path}.content[{k}]"
        kind = kind_of(part, place)
        if kind not in _THOUGHTS:
            raise unknown_value(f"{place}.type", kind, _THOUGHTS)
        thoughts = _assistant(chat).setdefault("reasoning_content", Pieces(_BETWEEN))
        thoughts.add(string_of(part, "text", place))


def _add_function_call(chat: list[Object], item: Object, path: str) -> None:
    _add_call(chat, item, path, string_of(item, "arguments", path))


def _add_custom_call(chat: list[Object], item: Object, path: str) -> None:
    _add_call(chat, item, path, wrapped(string_of(item, "input", path)))


def _add_call(chat: list[Object], item: Object, path: str, arguments: str) -> None:
    name, namespace = string_of(item, "name", path), None
    if item.get("namespace") is not None:
        namespace = string_of(item, "namespace", path)
    function = {"name": joined_name(namespace, name), "arguments": arguments}
    call = {"id": string_of(item, "call_id", path), "type": "function", "function": function}
    _assistant(chat).setdefault("tool_calls", []).append(call)


def _add_output(chat: list[Object], item: Object, path: str) -> None:
    call = string_of(item, "call_id", path)
    answer = _content(item, "output", path, may_be_empty=True)
    chat.append({"role": "tool", "tool_call_id": call, "content": answer})


_READERS: dict[str, Callable[[list[Object], Object, str], None]] = {
    "message": _add_message,
    "reasoning": _add_reasoning,
    "function_call": _add_function_call,
    "function_call_output": _add_output,
    "custom_tool_call": _add_custom_call,
    "custom_tool_call_output": _add_output,
}


def _assistant(chat: list[Object]) -> Object:
    """The assistant's turn that the chat ends with."""
    if not chat or chat[-1]["role"] != "assistant":
        chat.append({"role": "assistant", "content": Pieces(_BETWEEN)})
    return chat[-1]


def _message(role: str, content: Content) -> Object:
    """Others of its role may follow, and be one with it."""
    return {"role": role, "content": Pieces(_BETWEEN_MESSAGES, content)}


def _text(item: Object, key: str, path: str, may_be_empty: bool) -> str:
    """A string, or the texts of parts."""
    parts = _parts(item, key, path, may_be_empty, has_images=False)
    return "".join(part for part in parts if isinstance(part, str))


def _content(item: Object, key: str, path: str, may_be_empty: bool) -> Content:
    """The same with images, where there are any."""
    return joined(_parts(item, key, path, may_be_empty, has_images=True))


def _parts(
    item: Object, key: str, path: str, may_be_empty: bool, has_images: bool
) -> list[str | Object]:
    content, path = item.get(key), f"{path}.{key}"
    if isinstance(content, str):
        return [content]
    if content is None:
        raise missing(path)
    if not isinstance(content, list):
        raise invalid_type(path, "a string or an array of content parts", content)
    if not content and not may_be_empty:
        text = "empty array. Expected an array with minimum length 1, but got an empty array."
        raise ApiError("empty_array", f"Invalid '{path}': {text}", path)
    parts: list[str | Object] = []
    for k, part in enumerate(content):
        place = f"{path}[{k}]"
        kind = kind_of(part, place)
        if kind == _IMAGE and has_images:
            parts.append(_image(part, place))
        elif kind in _TEXT_PARTS:
            parts.append(string_of(part, _TEXT_PARTS[kind], place))
        else:
            raise _unsupported_part(place, kind, has_images)
    return parts


def _image(part: Object, path: str) -> Object:
    detail = part.get("detail")
    if detail is not None and detail not in _DETAILS:
        raise unknown_value(f"{path}.detail", detail, _DETAILS)
    if part.get("file_id") is not None:
        text = f"Invalid '{path}': files are not stored here: send the image as a 'data:' URL."
        raise ApiError("unsupported_value", text, path)
    return from_url(string_of(part, "image_url", path), path)


def _unsupported_part(path: str, kind: str, has_images: bool) -> ApiError:
    known = "'input_text', 'output_text', 'refusal'"
    known += ", 'input_image'" if has_images else ""
    text = (
        f"Invalid '{path}.type': content parts of type {shown(kind)} are not supported. "
        f"Supported values are: {known}."
    )
    return ApiError("unsupported_value", text, f"{path}.type")


def _unsupported_item(path: str, kind: str) -> ApiError:
    if kind == "item_reference":
        text = (
            f"Invalid '{path}': items are not stored here, so none can be referred to. Send the "
            "item itself, as clients do that are told 'store' is false."
        )
        return ApiError("unsupported_value", text, f"{path}.type")
    known = ", ".join(f"'{name}'" for name in _READERS)
    text = f"Invalid '{path}.type': items of type {shown(kind)} are not supported."
    return ApiError("unsupported_value", f"{text} Supported values are: {known}.", f"{path}.type")
