"""SMMF: one OpenAI-compatible endpoint over many models, engines and replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smmf_core.adapters.base import BaseModelAdapter

__all__ = ["BaseModelAdapter"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What plug-ins build on, imported when it is asked for: every process imports this package."""
    if name == "BaseModelAdapter":
        from smmf_core.adapters.base import BaseModelAdapter

        return BaseModelAdapter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
