"""What may be plugged in from outside: backends and model adapters, by entry point.

Owns the names of the groups and of the built-in backends; must not import an engine before it is
asked for. An entry point of a name that is built in is not looked at.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from smmf_core.errors import ConfigError

ENGINES = "smmf.engines"
ADAPTERS = "smmf.adapters"

BACKENDS = {
    "echo": "smmf_core.engines.echo:create",
    "reference": "smmf_core.engines.reference:create",
    "transformers": "smmf_core.engines.transformers:create",
    "llama_cpp": "smmf_core.engines.llama_cpp:create",
    "vllm": "smmf_core.engines.vllm:create",
    "mlx": "smmf_core.engines.mlx:create",
}


def backend_names() -> list[str]:
    """Built-in backends first, then those of installed packages."""
    return [*BACKENDS, *sorted(set(plugged(ENGINES)) - set(BACKENDS))]


def load_backend(name: str) -> Any:
    """`create(config) -> engine` of a backend. Raises ConfigError for an unknown name, ImportError
    when the package that it needs is missing."""
    if name in BACKENDS:
        module, _, attribute = BACKENDS[name].partition(":")
        return getattr(import_module(module), attribute)
    point = plugged(ENGINES).get(name)
    if point is None:
        raise ConfigError(f"no backend is called {name!r}: there are {', '.join(backend_names())}")
    return point.load()


@cache
def plugged(group: str) -> dict[str, EntryPoint]:
    """The installed entry points of a group by name."""
    return {point.name: point for point in entry_points(group=group)}
