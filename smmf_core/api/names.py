"""Errors of a chat's fields in the words of a dialect that calls these fields otherwise.

Owns the exchange of names; which they are is each dialect's. Must not know where an error came
from.
"""

from __future__ import annotations

import re

from smmf_core.errors import ApiError

Names = tuple[tuple[re.Pattern[str], str], ...]
"""Patterns of a chat's fields, and what stands for each; the first that fits counts."""


def names(*pairs: tuple[str, str]) -> Names:
    return tuple((re.compile(chat), client) for chat, client in pairs)


def renamed(error: ApiError, known: Names) -> ApiError:
    param = error.param
    found = (match.expand(name) for field, name in known if (match := field.fullmatch(param or "")))
    name = next(found, param)
    if param is None or name is None or name == param:
        return error
    message = error.message.replace(f"'{param}'", f"'{name}'")
    return ApiError(error.code, message, name, error.retry_after_s, error.may_retry)
