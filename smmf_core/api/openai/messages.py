"""The rules for a chat's messages, and their normal form for the chat template.

Owns roles, contents and tool-call shapes; must not render templates. Content parts of text become
one string, with images a list of parts; unknown keys pass.
"""

from __future__ import annotations

from typing import Any

from smmf_core.api.openai.decode import check_nesting, invalid_type, missing, shown, unknown_value
from smmf_core.api.openai.images import Content, from_url, joined
from smmf_core.errors import ApiError
from smmf_core.messages import Image

ROLES = ("developer", "system", "user", "assistant", "tool", "function")
_DETAILS = ("auto", "low", "high", "original")
_SHOWN_IMAGES = ("user", "tool")  # whose parts may be images
_INSTEAD_OF_CONTENT = (
    "tool_calls", "function_call", "refusal", "reasoning_content", "reasoning", "audio",
)  # fmt: skip

Message = dict[str, Any]


def check_messages(messages: list[Message]) -> None:
    """Validate and normalise in place. Raises ApiError (400) with the path of what is wrong."""
    for i, message in enumerate(messages):
        role = message.get("role")
        if role not in ROLES:
            raise _bad_role(i, role)
        if role != "user" and role != "system":
            _check_role(i, role, message)
        if type(message.get("content")) is not str:
            message["content"] = _content(i, role, message)
        if role == "function" or (role == "assistant" and "function_call" in message):
            _modernise(role, message)
        if len(message) > 2:
            check_nesting(message, f"messages[{i}]")


def _bad_role(i: int, role: Any) -> ApiError:
    param = f"messages[{i}].role"
    if role is None:
        return missing(param)
    if not isinstance(role, str):
        return invalid_type(param, "a string", role)
    return unknown_value(param, role, ROLES)


def _check_role(i: int, role: str, message: Message) -> None:
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise _absent_or_not_string(f"messages[{i}].tool_call_id", message.get("tool_call_id"))
    if role == "function" and not isinstance(message.get("name"), str):
        raise _absent_or_not_string(f"messages[{i}].name", message.get("name"))
    if role == "assistant":
        for key in ("reasoning_content", "reasoning"):
            thought = message.get(key)
            if thought is not None and not isinstance(thought, str):
                raise invalid_type(f"messages[{i}].{key}", "a string", thought)
        if (function := message.get("function_call")) is not None:
            _check_function(f"messages[{i}].function_call", function)
    calls = message.get("tool_calls")
    if calls is None:
        message.pop("tool_calls", None)
        return
    if not isinstance(calls, list):
        raise invalid_type(f"messages[{i}].tool_calls", "an array", calls)
    if not calls:
        del message["tool_calls"]
    for k, call in enumerate(calls):
        _check_call(f"messages[{i}].tool_calls[{k}]", call)


def _check_call(path: str, call: Any) -> None:
    if not isinstance(call, dict):
        raise invalid_type(path, "an object", call)
    function = call.get("function")
    if function is None:
        raise missing(f"{path}.function")
    _check_function(f"{path}.function", function)


def _check_function(path: str, function: Any) -> None:
    if not isinstance(function, dict):
        raise invalid_type(path, "an object", function)
    for key in ("name", "arguments"):
        if not isinstance(function.get(key), str):
            raise _absent_or_not_string(f"{path}.{key}", function.get(key))


def _modernise(role: str, message: Message) -> None:
    """A function's call and its answer as a tool's, which chat templates know."""
    if role == "function":
        message["role"] = "tool"
        message.setdefault("tool_call_id", message["name"])
        return
    function = message.pop("function_call")
    if function is not None and "tool_calls" not in message:
        call = {"id": function["name"], "type": "function", "function": function}
        message["tool_calls"] = [call]


def _absent_or_not_string(param: str, value: Any) -> ApiError:
    return missing(param) if value is None else invalid_type(param, "a string", value)


def _content(i: int, role: str, message: Message) -> Content:
    """Rules, in this order: 1. parts: their texts joined; 2. nothing, where an assistant said
    something else, or its refusal; 3. anything else is wrong."""
    content = message.get("content")
    param = f"messages[{i}].content"
    if content and isinstance(content, list):
        return joined([_part(f"{param}[{j}]", part, role) for j, part in enumerate(content)])
    says_more = role == "assistant" and any(message.get(key) for key in _INSTEAD_OF_CONTENT)
    if content in (None, []) and says_more:
        refusal = message.get("refusal")
        return refusal if isinstance(refusal, str) else ""
    if content == []:
        text = "empty array. Expected an array with minimum length 1, but got an empty array."
        raise ApiError("empty_array", f"Invalid '{param}': {text}", param)
    if "content" not in message:
        raise missing(param)
    raise invalid_type(param, "a string or an array of content parts", content)


def _part(param: str, part: Any, role: str) -> str | Message:
    """A text, or the part of an image."""
    if not isinstance(part, dict):
        raise invalid_type(param, "an object", part)
    kind = part.get("type")
    if kind is None:
        raise missing(f"{param}.type")
    if isinstance(part.get("image"), Image):
        return part  # another dialect has read it
    if kind == "image_url" and role in _SHOWN_IMAGES:
        return _image(param, part)
    if kind != "text" and not (kind == "refusal" and role == "assistant"):
        known = "'text' and 'image_url' are" if role in _SHOWN_IMAGES else "'text' is"
        reason = f"content parts of type {shown(kind)} are not supported here, only {known}."
        raise ApiError("unsupported_value", f"Invalid '{param}': {reason}", param)
    text = part.get(kind)
    if not isinstance(text, str):
        raise _absent_or_not_string(f"{param}.{kind}", text)
    return text


def _image(param: str, part: Message) -> Message:
    """Its URL may stand in an object, with a level of detail: each model has its own."""
    given = part.get("image_url")
    if isinstance(given, dict):
        detail = given.get("detail")
        if detail is not None and detail not in _DETAILS:
            raise unknown_value(f"{param}.image_url.detail", detail, _DETAILS)
        given = given.get("url")
    if given is None:
        raise missing(f"{param}.image_url.url")
    return from_url(given, param)
