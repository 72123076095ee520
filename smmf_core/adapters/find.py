"""Which adapter a model gets.

Owns the order in which adapters are asked; must not read a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from smmf_core.adapters.base import BaseModelAdapter
from smmf_core.adapters.families import FAMILIES
from smmf_core.errors import CannotStart
from smmf_core.plugins import ADAPTERS, load, plugged


def find_adapter(
    name: str,
    path: str,
    model_type: str = "",
    architectures: Sequence[str] = (),
    wanted: str = "",
) -> BaseModelAdapter:
    """The adapter of a model; one that says nothing when none is for it.

    1. The one called `wanted` ([model] type), plugged in or built in. 2. The first plug-in that
    matches. 3. The first built-in family that matches. A `wanted` that names no adapter stands for
    a missing `model_type`. Raises CannotStart for a plug-in that is none, or that
    cannot be loaded.
    """
    adapters = [*plugged_adapters(), *FAMILIES]
    for adapter in adapters:
        if wanted and adapter.name.lower() == wanted.lower():
            return adapter
    model_type = model_type or wanted.lower()
    for adapter in adapters:
        if adapter.matches(name, path, model_type, architectures):
            return adapter
    return BaseModelAdapter()


@cache
def plugged_adapters() -> tuple[BaseModelAdapter, ...]:
    """Those of installed packages, by the names of their entry points."""
    adapters = []
    for name, point in sorted(plugged(ADAPTERS).items()):
        found = load(ADAPTERS, name)
        adapter = found() if isinstance(found, type) else found
        if not isinstance(adapter, BaseModelAdapter):
            raise CannotStart(f"the plug-in {name!r} ({point.value}) is not a BaseModelAdapter")
        adapter.name = adapter.name or name
        adapters.append(adapter)
    return tuple(adapters)
