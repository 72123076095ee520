"""How JSON Schema says things: the words that the rules of all dialects are made of.

Owns the shapes of schemas; must not know a body.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

NULL: Schema = {"type": "null"}
BOOL: Schema = {"type": "boolean"}
TEXT: Schema = {"type": "string"}
FULL: Schema = {"type": "string", "minLength": 1}
OBJECT: Schema = {"type": "object"}
COUNT: Schema = {"type": "integer", "minimum": 1}
NONE_OF_IT: Schema = {"type": "array", "maxItems": 0}
EMPTY: Schema = {"type": "string", "maxLength": 0}
NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
LONG_NAME: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"}
DATA_URL: Schema = {
    "type": "string",
    "pattern": "^data:image/(png|jpeg|webp|gif);base64,([A-Za-z0-9+/]{4})+$",
    "description": "Nothing is fetched: the image itself. For models with the capability `vision`.",
}
BASE64: Schema = {"type": "string", "pattern": "^([A-Za-z0-9+/]{4})+$"}
DETAIL: Schema = {
    "anyOf": [{"type": "string", "enum": ["auto", "low", "high", "original"]}, NULL],
    "description": "Changes nothing: each model has its own.",
}


def one_of(*schemas: Schema, **more: Any) -> Schema:
    return {"anyOf": list(schemas), **more}


def maybe(*schemas: Schema, **more: Any) -> Schema:
    """Or null, which means omitted."""
    return {"anyOf": [*schemas, NULL], "default": None, **more}


def thing(required: Schema, **optional: Schema) -> Schema:
    """An object; unknown keys are ignored."""
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
    }


def const(value: str) -> Schema:
    return {"type": "string", "const": value}


def words(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def items(schema: Schema, least: int = 0, most: int = 0) -> Schema:
    bounds = {"minItems": least} if least else {}
    return {"type": "array", "items": schema, **bounds, **({"maxItems": most} if most else {})}


_SPAN = r"^-?([0-9]+([.][0-9]+)?|([0-9]+([.][0-9]+)?(ms|s|m|h))+)$"
_REQUIRE = {
    "type": "object",
    "properties": {
        "context_length": COUNT,
        "tools": BOOL,
        "vision": BOOL,
        "reasoning": BOOL,
        "embedding_dimension": COUNT,
        "max_cost": {"type": "number"},
    },
    "additionalProperties": False,
}
EXTENSIONS: dict[str, Schema] = {
    "keep_alive": maybe(
        {"type": "number"},
        {"type": "string", "pattern": _SPAN},
        description="How long the model stays loaded: seconds or '5m'; below zero: for ever.",
    ),
    "smmf": maybe(
        {
            "type": "object",
            "properties": {"require": maybe(_REQUIRE)},
            "additionalProperties": False,
        },
        description="What the model must have or be able to; for `auto` it is chosen so.",
    ),
}
