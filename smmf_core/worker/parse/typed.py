"""Arguments that stand in an answer as bare text: which JSON value each is, by its tool's schema.

Pure. Owns that choice; must not know markup. Keywords as in JSON Schema 2020-12.
"""

from __future__ import annotations

import json
from typing import Any

ANY: frozenset[str] = frozenset()
"""The kinds of a schema that does not say."""
STRING = frozenset(["string"])
_MAX_DEPTH = 16  # a schema may refer to itself
_UNIONS = ("anyOf", "oneOf", "allOf")
_WORDS = {"True": True, "False": False, "None": None}  # as Python has them
_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array",
          dict: "object", type(None): "null"}  # fmt: skip

Object = dict[str, Any]


def kinds_of(schema: Any, document: Object, depth: int = 0) -> frozenset[str]:
    """The types that a value may have; ANY where that is open."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return ANY
    if "$ref" in schema:
        return kinds_of(_found(str(schema["$ref"]), document), document, depth + 1)
    kind = schema.get("type")
    if kind is not None:
        listed = kind if isinstance(kind, list) else [kind]
        return frozenset(one for one in listed if isinstance(one, str))
    if "const" in schema or "enum" in schema:
        values = schema.get("enum") or [schema.get("const")]
        return frozenset(_KINDS.get(type(value), "") for value in values)
    for keyword in _UNIONS:
        if isinstance(schema.get(keyword), list):
            parts = [kinds_of(part, document, depth + 1) for part in schema[keyword]]
            return frozenset().union(*parts) if all(parts) or keyword == "allOf" else ANY
    return ANY


def as_json(text: str, kinds: frozenset[str]) -> str:
    """The value as JSON. What no other kind takes is a string, whatever the schema says: it is for
    the tool to refuse."""
    written = text.strip()
    try:
        value = _WORDS[written] if written in _WORDS else json.loads(written)
        if _fits(value, kinds):
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        pass
    return json.dumps(text, ensure_ascii=False)


def _fits(value: Any, kinds: frozenset[str]) -> bool:
    """A wrong kind is no reason to take `5` for a text, unless a text was wanted."""
    kind = _KINDS[type(value)]
    return kind in kinds or "string" not in kinds or (kind == "integer" and "number" in kinds)


def _found(reference: str, document: Object) -> Any:
    """By a JSON pointer (RFC 6901) into the same document."""
    node: Any = document
    for part in reference.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        node = node.get(key) if isinstance(node, dict) else None
    return node
