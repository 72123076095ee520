"""What a configuration file is, told by its sections.

Owns the telling apart; must not judge what stands in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["model", "server", "dbgpt"]

_OF_A_MODEL = frozenset(
    "model proxy authentication parameters deployment optimization engine inference routing".split()
)
_OF_A_SERVER = frozenset(
    "server timeouts limits health registry memory cache trace log models".split()
)
_OF_DBGPT = frozenset("service system rag app hooks".split())


def kind_of(table: Mapping[str, Any]) -> Kind:
    """1. [model] or [proxy] is a model's whatever else there is  2. [models] as a table, [service]
    and [system] are DB-GPT's  3. what only a server has  4. else a model's, wrong or empty."""
    if "model" in table or "proxy" in table:
        return "model"  # 1.
    if isinstance(table.get("models"), dict) or _OF_DBGPT & table.keys():
        return "dbgpt"  # 2.
    if _OF_A_SERVER & table.keys() and not _OF_A_MODEL & table.keys():
        return "server"  # 3.
    return "model"  # 4.


def holds_models(dbgpt_table: Mapping[str, Any]) -> bool:
    """Whether a file of DB-GPT's has a model in one of its lists."""
    models = dbgpt_table.get("models")
    return isinstance(models, dict) and any(isinstance(found, list) for found in models.values())
