"""The registry's database: what was registered, scaled, pinned and learned, and what happened.

The only package that imports SQLAlchemy. Owns tables and the thread that writes them; must not be
waited for by a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smmf_core.store.registry import ModelRegistry
    from smmf_core.store.storage import SQLAlchemyStorage

__all__ = ["ModelRegistry", "SQLAlchemyStorage"]


def __getattr__(name: str) -> Any:
    """The Python API, imported when it is asked for: a server must not wait for SQLAlchemy."""
    if name == "ModelRegistry":
        from smmf_core.store.registry import ModelRegistry

        return ModelRegistry
    if name == "SQLAlchemyStorage":
        from smmf_core.store.storage import SQLAlchemyStorage

        return SQLAlchemyStorage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
