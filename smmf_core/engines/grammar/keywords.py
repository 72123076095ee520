"""What the values of a schema's keywords may be (JSON Schema 2020-12, Validation and Core).

Owns these rules and their words; must not know what an engine can follow.
"""

from __future__ import annotations

from typing import Any

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_LISTS = ("enum", "anyOf", "oneOf", "allOf", "prefixItems")
_OBJECTS = ("properties", "patternProperties", "$defs", "definitions")
_COUNTS = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_SHOWN_CHARACTERS = 80  # of a value in a message

Object = dict[str, Any]


class SchemaError(ValueError):
    """A schema that answers cannot be held to; the message is for the client."""


def check_values(node: Object, document: Any, where: str) -> None:
    """Raises SchemaError for a keyword with a value that it cannot have. `where`: words for the
    place of `node` in the document, "" or with a space before them."""
    _check_type(node, where)
    for keyword in _LISTS:
        if keyword in node and not (isinstance(node[keyword], list) and node[keyword]):
            raise SchemaError(f"'{keyword}'{where} must be a list that is not empty.")
    for keyword in _OBJECTS:
        if keyword in node and not isinstance(node[keyword], dict):
            raise SchemaError(f"'{keyword}'{where} must be an object.")
    required = node.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise SchemaError(f"'required'{where} must be a list of names.")
    if not isinstance(node.get("pattern", ""), str):
        raise SchemaError(f"'pattern'{where} must be a string.")
    for low, high in _COUNTS:
        _check_counts(node, low, high, where)
    for keyword in _NUMBERS:
        value = node.get(keyword, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SchemaError(f"'{keyword}'{where} must be a number.")
    if "$ref" in node:
        _check_reference(node["$ref"], document, where)


def _check_type(node: Object, where: str) -> None:
    kinds = node.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if not isinstance(kind, str) or kind not in TYPES:
            text = f"unknown type {_shown(kind)}{where}; there are {', '.join(TYPES)}."
            raise SchemaError(text)


def _check_counts(node: Object, low: str, high: str, where: str) -> None:
    for keyword in (low, high):
        value = node.get(keyword, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise SchemaError(f"'{keyword}'{where} must be a number of things.")
    if high in node and node[high] < node.get(low, 0):
        raise SchemaError(f"'{high}'{where} is below '{low}'.")


def _check_reference(reference: Any, document: Any, where: str) -> None:
    """Within the same document, by a JSON pointer (RFC 6901)."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        text = f"'$ref'{where}: only references into the schema itself are known, not"
        raise SchemaError(f"{text} {_shown(reference)}.")
    node = document
    for part in reference[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, dict) and key in node:
            node = node[key]
        else:
            raise SchemaError(f"'$ref'{where}: the schema has nothing at {_shown(reference)}.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
