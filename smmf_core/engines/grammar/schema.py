"""What a JSON schema may hold: the same for every engine, and checked before a step is spent.

Owns the limits, the keywords that are refused, and the closing of objects; must not know a grammar
library. Keywords as in JSON Schema 2020-12. A keyword that would change what is allowed and that is
not followed is an error, "strict" or not: an answer never breaks its schema in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from smmf_core.engines.grammar.keywords import Object, SchemaError, check_values

MAX_BYTES = 131_072  # of a schema as JSON; OpenAI's limit is 120,000 characters of names and enums
MAX_DEPTH = 48  # schemas in schemas; the library's JSON reader stops at 128 brackets
MAX_SCHEMAS = 1_000  # in one document: what compiles in about 100 ms
MAX_OPTIONAL = 256  # properties of one object: each may come next, which every mask looks at
MAX_REPEATS = 2_000  # of a pattern, repetitions multiplied out: each is a state
MAX_MULTIPLE = 9_999  # digits of `multipleOf`: as many states
_PATH_CHARACTERS = 120  # of a place in a message

_REFUSED = (
    "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies",
    "propertyNames", "unevaluatedProperties", "unevaluatedItems", "contains", "minContains",
    "maxContains", "uniqueItems", "$dynamicRef", "$recursiveRef",
)  # fmt: skip
_WITHOUT_EFFECT = {"uniqueItems": False, "unevaluatedProperties": True, "unevaluatedItems": True}
_FORMATS = frozenset(
    ("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "additionalItems")
_UNIONS = ("anyOf", "oneOf", "$ref")
_OF_OBJECTS = (
    "properties", "required", "additionalProperties", "patternProperties", "minProperties",
    "maxProperties",
)  # fmt: skip
_PATTERN_PART = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\{(\d+)(?:,(\d*))?\}|.", re.DOTALL)


def check_schema(schema: Any, strict: bool = False, limits_only: bool = False) -> None:
    """Raises SchemaError, naming the keyword and its place, for what no engine follows, and for
    schemas that are too large. With `strict` a format that is not known is refused, too; it is
    else a remark, as the specification has it. `limits_only`: all keywords are let pass."""
    waiting: list[tuple[Any, tuple[str, ...], int]] = [(schema, (), 1)]
    seen = 0
    while waiting:
        node, path, depth = waiting.pop()
        seen += 1
        if depth > MAX_DEPTH:
            raise SchemaError(f"it is nested more than {MAX_DEPTH} schemas deep.")
        if seen > MAX_SCHEMAS:
            raise SchemaError(f"it holds more than {MAX_SCHEMAS} schemas.")
        if isinstance(node, bool):
            continue
        if not isinstance(node, dict):
            raise SchemaError(f"a schema{_at(path)} must be an object.")
        check_values(node, schema, _at(path))
        if not limits_only:
            _check_keywords(node, path, strict)
        _check_limits(node, path)
        waiting += [(child, (*path, *at), depth + 1) for at, child in _children(node)]
    try:
        size = len(msgspec.json.encode(schema))
    except RecursionError:
        raise SchemaError("a value in it is nested too deeply.") from None
    if size > MAX_BYTES:
        raise SchemaError(f"it has {size} bytes, and may have {MAX_BYTES}.")


def prepared(schema: Any) -> Any:
    """A copy for the library. Formats that are not known are left out. Objects have no properties
    but those that they name, where that is left open: what OpenAI asks strict schemas to say. Not
    where schemas are combined for one value: what one part does not name, another may."""
    known = _rebuilt(schema, _without_unknown_format)
    return known if _is_combined(schema) else _rebuilt(known, _closed)


def _check_keywords(node: Object, path: tuple[str, ...], strict: bool) -> None:
    for keyword in _REFUSED:
        if keyword in node and node[keyword] != _WITHOUT_EFFECT.get(keyword, _REFUSED):
            raise SchemaError(f"the keyword '{keyword}'{_at(path)} is not supported.")
    form = node.get("format")
    if strict and form is not None and not _is_known_format(form):
        shown = str(form)[:_PATH_CHARACTERS]
        raise SchemaError(f"the format '{shown}'{_at(path)} is not supported.")


def _check_limits(node: Object, path: tuple[str, ...]) -> None:
    properties = node.get("properties")
    if isinstance(properties, dict):
        required = node.get("required")
        count = len(properties) - (len(required) if isinstance(required, list) else 0)
        if count > MAX_OPTIONAL:
            text = f"more than {MAX_OPTIONAL} optional 'properties'{_at(path)}"
            raise SchemaError(f"{text}: make some 'required'.")
    patterns = [node.get("pattern"), *(node.get("patternProperties") or ())]
    for pattern in patterns:
        if isinstance(pattern, str) and _repeats(pattern) > MAX_REPEATS:
            text = f"the repetitions of a 'pattern'{_at(path)} multiply to more than {MAX_REPEATS}"
            raise SchemaError(f"{text}.")
    if "multipleOf" in node and not _is_multiple(node["multipleOf"]):
        text = f"'multipleOf'{_at(path)} must be a number above 0 of at most 4 digits"
        raise SchemaError(f"{text} (zeros around them not counted).")


def _children(node: Object) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The schemas directly inside one, with their places."""
    for keyword in _BY_NAME:
        if isinstance(node.get(keyword), dict):
            for name, child in node[keyword].items():
                yield (keyword, name), child
    for keyword in (*_LISTED, *_SINGLE):
        value = node.get(keyword)
        if isinstance(value, list):
            for number, child in enumerate(value):
                yield (keyword, str(number)), child
        elif keyword in _SINGLE and keyword in node:
            yield (keyword,), value


def _is_combined(schema: Any) -> bool:
    waiting = [schema]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict):
            continue
        is_union = any(keyword in node for keyword in _UNIONS)
        if is_union and any(keyword in node for keyword in _OF_OBJECTS):
            return True
        parts = [part for part in node.get("allOf", ()) if isinstance(part, dict)]
        if any(keyword in part for part in parts for keyword in (*_OF_OBJECTS, *_UNIONS, "allOf")):
            return True
        waiting += [child for _, child in _children(node)]
    return False


def _rebuilt(node: Any, change: Callable[[Object], Object]) -> Any:
    if not isinstance(node, dict):
        return node
    copy = dict(node)
    for keyword in _BY_NAME:
        if isinstance(node.get(keyword), dict):
            copy[keyword] = {k: _rebuilt(child, change) for k, child in node[keyword].items()}
    for keyword in (*_LISTED, *_SINGLE):
        value = node.get(keyword)
        if isinstance(value, list):
            copy[keyword] = [_rebuilt(child, change) for child in value]
        elif keyword in _SINGLE and keyword in node:
            copy[keyword] = _rebuilt(value, change)
    return change(copy)


def _without_unknown_format(node: Object) -> Object:
    if "format" in node and not _is_known_format(node["format"]):
        del node["format"]
    return node


def _closed(node: Object) -> Object:
    names = node.get("properties")
    keeps_open = ("additionalProperties", "patternProperties", "minProperties")
    if not isinstance(names, dict) or any(keyword in node for keyword in keeps_open):
        return node
    required = node.get("required")
    listed = required if isinstance(required, list) else []
    if not all(isinstance(name, str) and name in names for name in listed):
        return node
    return {**node, "additionalProperties": False}


def _repeats(pattern: str) -> int:
    """About how many single characters a pattern is, its counted repetitions written out."""
    sums = [0]  # of every group that is open
    last = 0
    for part in _PATTERN_PART.finditer(pattern):
        text = part[0]
        if text == "(":
            sums.append(0)
        elif text == ")" and len(sums) > 1:
            last = sums.pop()
            sums[-1] += last
        elif part[1]:
            times = int((part[2] or part[1])[:9])
            sums[-1] += last * (times - 1)
            last *= times
        else:
            sums[-1] += 1
            last = 1
    return sum(sums)


def _is_known_format(form: Any) -> bool:
    return isinstance(form, str) and form in _FORMATS


def _is_multiple(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        parts = Decimal(str(value)).normalize().as_tuple()
    except InvalidOperation:
        return False
    digits = int("".join(map(str, parts.digits))[:9])
    return not parts.sign and 0 < digits <= MAX_MULTIPLE


def _at(path: tuple[str, ...]) -> str:
    return f" at '{'.'.join(path)[:_PATH_CHARACTERS]}'" if path else ""
