"""Configurations as they may be shown: without secrets.

Owns which values are secret; must not decide who may see a configuration.
"""

from __future__ import annotations

import re
from typing import Any

from smmf_core.config.raw import REFERENCE

HIDDEN = "***"
_SECRET = r"(?:keys?|secrets?|tokens?|passwords?|passwd|credentials?|authorization|signature)"
_SECRET_KEY = re.compile(rf"(?:^|_)(?:api)?{_SECRET}$")
_USER = re.compile(r"(?<=://)\S+@")
_QUERY = re.compile(rf"(?<=[?&])((?:\w+_)?(?:api)?{_SECRET}=)[^&#\s]+", re.IGNORECASE)


def redacted(table: Any) -> Any:
    """A copy of a configuration's plain values with secrets hidden: strings under a secret's name,
    and users, passwords and keys in addresses. References (`${env:NAME}`) are shown as such."""
    return _redact(table, False)


def holds_secret(table: Any) -> bool:
    """Whether a secret stands in it in clear, not as a reference."""
    return bool(redacted(table) != table)


def _redact(value: Any, is_secret: bool) -> Any:
    if isinstance(value, dict):
        return {
            key: _redact(item, is_secret or _names_a_secret(key)) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_redact(item, is_secret) for item in value]
    if not isinstance(value, str) or not value:
        return value
    if is_secret:
        return _shown(value)
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"{HIDDEN}@", value))


def _names_a_secret(key: str) -> bool:
    return bool(_SECRET_KEY.search(key.lower().replace("-", "_")))


def _shown(secret: str) -> str:
    """A reference without its default, which is a secret too."""
    reference = REFERENCE.fullmatch(secret)
    if not reference:
        return HIDDEN
    name, has_default, _ = reference[2].partition(":-")
    default = f":-{HIDDEN}" if has_default else ""
    return f"${{{reference[1]}:{name}{default}}}"
