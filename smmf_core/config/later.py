"""Keys and values of the documented configuration that this release does not have yet.

Owns the list; a key leaves it when it is built. A value that changes nothing (the default of the
missing feature) is let through, everything else is an error: ignoring it would silently change what
the operator asked for.
"""

from __future__ import annotations

from typing import Any

MESSAGE = "known, but this release does not have it yet"

SERVER_SECTIONS = frozenset({"registry", "health", "memory", "cache", "trace"})
MODEL_SECTIONS = frozenset({"proxy", "authentication", "parameters", "models", "service"})

# (section, key) -> values that change nothing
KEYS: dict[tuple[str, str], tuple[Any, ...]] = {
    ("server", "tls_cert"): ("",),
    ("server", "tls_key"): ("",),
    ("timeouts", "hang_s"): (),
    ("timeouts", "failover_wait_s"): (5, 5.0),
    ("log", "requests"): ("off",),
    ("log", "retention_days"): (),
    ("deployment", "min_replicas"): (),
    ("deployment", "max_replicas"): (),
    ("deployment", "gpus"): (0,),
    ("deployment", "keep_alive"): ("-1", -1),
    ("routing", "fallback"): ([],),
}

VALUES: dict[tuple[str, str], frozenset[str]] = {
    ("deployment", "environment"): frozenset({"ray", "kubernetes"}),
    ("routing", "strategy"): frozenset({"power_of_two", "latency", "prefix", "session", "random"}),
}
