"""Keys and values of the documented configuration that this release does not have yet.

Owns the list; a key leaves it when it is built. A value that changes nothing (the default of the
missing feature) is let through, everything else is an error: ignoring it would silently change what
the operator asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MESSAGE = "known, but this release does not have it yet"

# Server sections -> whether they are on when they do not say `enabled`.
SECTIONS: dict[str, bool] = {"cache": False, "trace": True}

# (section, key) -> values that change nothing
KEYS: dict[tuple[str, str], tuple[Any, ...]] = {
    ("timeouts", "failover_wait_s"): (5, 5.0),
    ("routing", "fallback"): ([],),
}

VALUES: dict[tuple[str, str], frozenset[str]] = {
    ("registry", "kind"): frozenset({"etcd", "consul", "nacos", "redis"}),
    ("log", "requests"): frozenset({"full"}),
    ("deployment", "environment"): frozenset({"ray", "kubernetes"}),
    ("routing", "strategy"): frozenset({"power_of_two", "latency", "prefix", "session", "random"}),
}


def is_off(section: str, table: Mapping[str, Any]) -> bool:
    """Whether a section of a missing feature leaves it as it is: off."""
    return not table or not table.get("enabled", SECTIONS[section])
