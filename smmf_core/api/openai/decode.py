"""From body bytes to a typed body, or an ApiError in OpenAI's words that names the field.

Owns the translation of msgspec's errors; must not hold rules about certain fields. No message
repeats more than SHOWN_CHARS of what the client sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

import msgspec

from smmf_core.errors import ApiError

SHOWN_CHARS = 60
MAX_DEPTH = 128  # far above any JSON schema in use, far below the interpreter's stack
_SHOWN_BITS = 128
_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1
_PATH = re.compile(r"^(.*?)(?: - at `\$(.*)`)?$", re.DOTALL)
_TYPE = re.compile(r"^Expected `([^`]+)`, got `([^`]+)`$")
_BOUND = re.compile(r"^Expected `(int|float)` (<=|>=|<|>) (\S+)$")
_LENGTH = re.compile(r"^Expected `(array|str)` of length (<=|>=) (\d+)$")
_MISSING = re.compile(r"^Object missing required field `(\w+)`$")
_TYPE_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}

T = TypeVar("T", bound=msgspec.Struct)


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode and validate. Raises ApiError (400). Of duplicate keys the last one counts."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        return _second_try(decoder.type, body, error)
    except msgspec.DecodeError as error:
        raise invalid_json(str(error).removeprefix("JSON is malformed: ")) from None
    except UnicodeDecodeError:
        raise invalid_json("it is not valid UTF-8") from None
    except RecursionError:
        raise invalid_json("it is nested too deeply") from None


def invalid_json(why: str) -> ApiError:
    return ApiError("invalid_json", f"We could not parse the JSON body of your request: {why}.")


def missing(param: str) -> ApiError:
    text = f"Missing required parameter: '{param}'."
    return ApiError("missing_required_parameter", text, param)


def invalid_type(param: str, expected: str, value: Any) -> ApiError:
    return _wrong_type(param, expected, _word_for(value))


def unknown_value(param: str, value: Any, known: tuple[str, ...]) -> ApiError:
    listed = ", ".join(f"'{name}'" for name in known)
    text = f"Invalid value: {shown(value)}. Supported values are: {listed}."
    return ApiError("invalid_value", text, param)


def unsupported(param: str) -> ApiError:
    text = f"Unsupported parameter: '{param}' is not supported, but for what changes nothing."
    return ApiError("unsupported_parameter", text, param)


def shown(value: Any) -> str:
    """A value as a message shows it: at most SHOWN_CHARS of it, containers only by their type."""
    if isinstance(value, str):
        return clip(f"'{value[: SHOWN_CHARS + 1]}'")
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return "a huge integer"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value).removesuffix(".0")
    return _word_for(value)


def check_nesting(value: Any, param: str) -> None:
    """Free-form JSON goes on to a Worker as msgpack: bounded depth, integers of 64 bits.

    Raises ApiError (400).
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        below = []
        for container in level:
            for child in container.values() if type(container) is dict else container:
                kind = type(child)
                if kind is dict or kind is list:
                    below.append(child)
                elif kind is int and not _INT64_MIN <= child <= _UINT64_MAX:
                    text = f"Invalid '{param}': it holds an integer of more than 64 bits."
                    raise ApiError("invalid_value", text, param)
        if not below:
            return
        level = below
    text = f"Invalid '{param}': it is nested deeper than {MAX_DEPTH} levels."
    raise ApiError("invalid_value", text, param)


def clip(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."


def _second_try(kind: type[T], body: bytes, error: msgspec.ValidationError) -> T:
    """Integers written as `16.0` become integers; what is still wrong is translated, with the
    value that was given."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _translated(str(error), None, kind) from None
    if not isinstance(document, dict):
        raise _translated(str(error), document, kind) from None
    _make_integers(document)
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as second:
        raise _translated(str(second), document, kind) from None


def _make_integers(document: dict[str, Any]) -> None:
    """In place, at any depth: JSON Schema's integers are numbers without a fraction."""
    containers: list[Any] = [document]
    while containers:
        container = containers.pop()
        pairs = container.items() if type(container) is dict else enumerate(container)
        for key, value in pairs:
            kind = type(value)
            if kind is float and value.is_integer():
                container[key] = int(value)
            elif kind is dict or kind is list:
                containers.append(value)


def _translated(text: str, document: Any, kind: type[msgspec.Struct]) -> ApiError:
    """`kind.refused`, where there is one: fields that only what changes nothing is taken of."""
    match = _PATH.match(text)
    assert match is not None  # the pattern matches any string
    reason, path = match[1], (match[2] or "").lstrip(".")
    param = path.replace("[...]", "")
    value = _find(document, path)
    name = re.split(r"[.\[]", param)[0]
    if name in getattr(kind, "refused", ()):
        return unsupported(name)
    if found := _MISSING.match(reason):
        return missing(f"{param}.{found[1]}" if param else found[1])
    if (found := _TYPE.match(reason)) and not path:
        return invalid_json(f"expected an object, but got {_TYPE_WORDS[found[2]]} instead")
    if found:
        return _wrong_type(param, _words(found[1]), _TYPE_WORDS.get(found[2], found[2]))
    if found := _BOUND.match(reason):
        return _out_of_bounds(param, found[1], found[2], found[3], value)
    if found := _LENGTH.match(reason):
        return _wrong_length(param, found[1], found[2], found[3], value)
    if reason.startswith("Invalid enum value"):
        return unknown_value(param, value, _choices(kind, param))
    return ApiError("invalid_value", f"Invalid '{param}': {clip(reason)}.", param or None)


def _choices(kind: type[msgspec.Struct], param: str) -> tuple[str, ...]:
    """The words that a field may be, at any depth."""
    found: list[Any] = [kind]
    for name in re.sub(r"\[[^]]*\]", "", param).split("."):
        structs = [s for s in found if isinstance(s, type) and issubclass(s, msgspec.Struct)]
        fields = [field for struct in structs for field in msgspec.structs.fields(struct)]
        found = [part for field in fields if field.name == name for part in _parts(field.type)]
    return tuple(value for value in found if isinstance(value, str))


def _parts(kind: Any) -> Iterator[Any]:
    """What a type consists of: the members of a union, the words of a literal."""
    inside = get_args(kind)
    if not inside:
        yield kind
    for part in inside:
        yield from _parts(part)


def _wrong_type(param: str, expected: str, got: str) -> ApiError:
    text = f"Invalid type for '{param}': expected {expected}, but got {got} instead."
    return ApiError("invalid_type", text, param)


def _out_of_bounds(param: str, kind: str, sign: str, bound: str, value: Any) -> ApiError:
    noun = "integer" if kind == "int" else "decimal"
    side, code = (
        ("above maximum", "above_max") if sign[0] == "<" else ("below minimum", "below_min")
    )
    limit = bound.removesuffix(".0")
    text = f"Invalid '{param}': {noun} {side} value. Expected a value {sign} {limit}"
    got = "." if value is None else f", but got {shown(value)} instead."
    return ApiError(f"{noun}_{code}_value", text + got, param)


def _wrong_length(param: str, kind: str, sign: str, bound: str, value: Any) -> ApiError:
    """1. An empty array, 2. an array that is too long, 3. an empty string."""
    if kind == "array" and sign == ">=":
        text = f"empty array. Expected an array with minimum length {bound}"
        return ApiError("empty_array", f"Invalid '{param}': {text}, but got an empty array.", param)
    if kind == "array":
        text = f"array too long. Expected an array with maximum length {bound}"
        got = f", but got an array with length {len(value)} instead." if value else "."
        return ApiError("array_above_max_length", f"Invalid '{param}': {text}{got}", param)
    text = f"Invalid '{param}': empty string. Expected a string with minimum length {bound}."
    return ApiError("invalid_value", text, param)


def _words(kinds: str) -> str:
    names = [kind for kind in kinds.split(" | ") if kind != "null"]
    return " or ".join(_TYPE_WORDS.get(name, name) for name in names)


def _word_for(value: Any) -> str:
    names = {dict: "object", list: "array", type(None): "null"}
    name = names.get(type(value), type(value).__name__)
    return _TYPE_WORDS.get(name, name)


def _find(document: Any, path: str) -> Any:
    """The value at msgspec's path, None where the path leaves the keys open (`[...]`)."""
    for name, index in re.findall(r"(\w+)|\[([^\]]*)\]", path):
        if name:
            document = document.get(name) if isinstance(document, dict) else None
        elif index.isdigit() and isinstance(document, list) and int(index) < len(document):
            document = document[int(index)]
        else:
            return None
    return document
