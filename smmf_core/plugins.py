"""What may be plugged in from outside, by entry point: backends, model adapters, placement rules.

Owns the names of the groups and of what is built in; must not import an engine before it is asked
for. An entry point of a name that is built in is not looked at.

| group | an entry point names |
|---|---|
| `smmf.engines` | `create(config) -> engine`, an engine as engines/base.py describes it |
| `smmf.adapters` | a BaseModelAdapter, class or instance |
| `smmf.placement` | `rule(seats, width) -> int`: which of these workers takes a request |
| `smmf.providers`, `smmf.registries` | reserved |
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from smmf_core.errors import CannotStart

ENGINES = "smmf.engines"
ADAPTERS = "smmf.adapters"
PLACEMENT = "smmf.placement"

BACKENDS = {
    "echo": "smmf_core.engines.echo.engine:create",
    "reference": "smmf_core.engines.reference.engine:create",
    "transformers": "smmf_core.engines.transformers.engine:create",
    "llama_cpp": "smmf_core.engines.llama_cpp.engine:create",
    "vllm": "smmf_core.engines.vllm.engine:create",
    "mlx": "smmf_core.engines.mlx.engine:create",
}
STRATEGIES = ("round_robin", "least_connections", "weighted")


def backend_names() -> list[str]:
    """Built-in backends first, then those of installed packages."""
    return [*BACKENDS, *sorted(set(plugged(ENGINES)) - set(BACKENDS))]


def load_backend(name: str) -> Any:
    """`create(config) -> engine` of a backend. Raises ImportError when a package is missing that a
    built-in one needs, CannotStart for an unknown name and for a plug-in that does not load."""
    if name in BACKENDS:
        module, _, attribute = BACKENDS[name].partition(":")
        return getattr(import_module(module), attribute)
    return load(ENGINES, name)


def strategy_names() -> list[str]:
    """Built-in placement strategies first, then those of installed packages."""
    return [*STRATEGIES, *sorted(set(plugged(PLACEMENT)) - set(STRATEGIES))]


def load(group: str, name: str) -> Any:
    """What the entry point of a group names. Raises CannotStart with the plug-in and its package
    when there is none or it does not load, whatever it raises."""
    point = plugged(group).get(name)
    if point is None:
        known = ", ".join(sorted(plugged(group))) or "none"
        raise CannotStart(f"no plug-in of {group} is called {name!r} (installed: {known})")
    try:
        return point.load()
    except Exception as error:
        package = f" of the package {point.dist.name} {point.dist.version}" if point.dist else ""
        reason = f"{type(error).__name__}: {error}"
        text = f"the plug-in {name!r}{package} cannot be loaded: {reason} ({point.value})"
        raise CannotStart(text) from error


def install_hint(backend: str) -> str:
    """What an operator is told of a built-in backend whose packages are missing."""
    name = backend.replace("_", "-")
    return f"backend '{backend}' is not installed: run `smmf engines install {name}`"


def why_not_loaded(backend: str, error: Exception) -> str:
    """What an operator is told when a backend could not be imported."""
    if backend in BACKENDS and isinstance(error, ModuleNotFoundError):
        return f"{install_hint(backend)} ({error})"
    if isinstance(error, CannotStart):
        return str(error)
    return f"the backend '{backend}' cannot be imported: {error}"


@cache
def plugged(group: str) -> dict[str, EntryPoint]:
    """The installed entry points of a group by name."""
    return {point.name: point for point in entry_points(group=group)}
