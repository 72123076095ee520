"""Fields of free-form objects in a body: there, and of the right kind.

Owns the words for what is missing or is something else; must not know what a field is for.
"""

from __future__ import annotations

from typing import Any

from smmf_core.api.openai.decode import invalid_type, missing

Object = dict[str, Any]


def string_of(parent: Object, key: str, path: str) -> str:
    """Raises ApiError naming `path`.`key`."""
    value = parent.get(key)
    if value is None:
        raise missing(f"{path}.{key}")
    if not isinstance(value, str):
        raise invalid_type(f"{path}.{key}", "a string", value)
    return value


def object_of(parent: Object, key: str, path: str) -> Object:
    """Raises ApiError naming `path`.`key`."""
    value = parent.get(key)
    if value is None:
        raise missing(f"{path}.{key}")
    if not isinstance(value, dict):
        raise invalid_type(f"{path}.{key}", "an object", value)
    return value


def kind_of(part: Any, path: str) -> str:
    """The `type` of one of several parts. Raises ApiError."""
    if not isinstance(part, dict):
        raise invalid_type(path, "an object", part)
    return string_of(part, "type", path)
