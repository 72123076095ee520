"""A smallest example value for a JSON schema, for the echo engine's structured answers.

Owns the choice of values; must not validate. Keywords as in JSON Schema 2020-12.
"""

from __future__ import annotations

from typing import Any

_MAX_DEPTH = 16  # a schema may refer to itself
_FORMATS = {
    "date": "2024-01-31",
    "date-time": "2024-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "a@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
}


def example(schema: dict[str, Any]) -> Any:
    """An instance of `schema`; required properties only, the first of several alternatives."""
    return _value(schema, schema, 0)


def _value(schema: Any, root: dict[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    if "$ref" in schema:
        return _value(_resolve(str(schema["$ref"]), root), root, depth + 1)
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    if schema.get("enum"):
        return schema["enum"][0]
    for keyword in ("anyOf", "oneOf"):
        if schema.get(keyword):
            rest = {k: v for k, v in schema.items() if k != keyword}
            return _value({**rest, **schema[keyword][0]}, root, depth + 1)
    if schema.get("allOf"):
        return _value(_merged(schema), root, depth + 1)
    return _typed(schema, root, depth)


def _typed(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object" or (kind is None and "properties" in schema):
        return _object(schema, root, depth)
    if kind == "array":
        return _array(schema, root, depth)
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    return _string(schema)


def _array(schema: dict[str, Any], root: dict[str, Any], depth: int) -> list[Any]:
    first, rest = schema.get("prefixItems", []), schema.get("items", {"type": "string"})
    count = range(schema.get("minItems", 0))
    return [_value(first[k] if k < len(first) else rest, root, depth + 1) for k in count]


def _object(schema: dict[str, Any], root: dict[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    names = schema.get("required", list(properties))
    return {name: _value(properties.get(name, {}), root, depth + 1) for name in names}


def _number(schema: dict[str, Any], whole: bool) -> float:
    step = schema.get("multipleOf", 1)
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    value = -(-low // step) * step
    if value == schema.get("exclusiveMinimum"):
        value += step
    if high is not None and value > high:
        value = high
    if not whole and value == schema.get("exclusiveMaximum"):
        value = (low + value) / 2
    return int(value) if whole else value


def _string(schema: dict[str, Any]) -> str:
    text = _FORMATS.get(schema.get("format", ""), "text")
    text = text.ljust(schema.get("minLength", 0), "x")
    return text[: schema.get("maxLength", len(text))]


def _resolve(ref: str, root: dict[str, Any]) -> Any:
    """A JSON pointer into the same document; what is not found is an empty schema."""
    node: Any = root
    for part in ref.lstrip("#").strip("/").split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        node = node.get(key) if isinstance(node, dict) and key else node
    return node or {}


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    merged = {k: v for k, v in schema.items() if k != "allOf"}
    for part in schema["allOf"]:
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        required = [*merged.get("required", []), *part.get("required", [])]
        merged = {**merged, **part}
        if properties:
            merged["properties"] = properties
        if required:
            merged["required"] = required
    return merged
