"""Which interpreter runs a model's Worker, and whether its backend is installed at all.

Owns that choice; must not import an ML package: what is installed is looked up, not imported.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from smmf_core.config import ModelConfig
from smmf_core.environments import managed
from smmf_core.environments.catalog import BY_BACKEND, Engine
from smmf_core.errors import CannotStart
from smmf_core.plugins import install_hint


def is_here(engine: Engine) -> bool:
    """Whether this interpreter has the engine's packages."""
    importlib.invalidate_caches()
    return all(find_spec(package) is not None for package in engine.packages)


def is_installed(backend: str) -> bool:
    """Whether a Worker of this backend could be started."""
    engine = BY_BACKEND.get(backend)
    return engine is None or is_here(engine) or managed.find(engine.name) is not None


def interpreter(config: ModelConfig) -> str:
    """The Worker's Python:

    1. `[deployment] python`, if given.
    2. A backend that needs no package, or whose packages are here: this one.
    3. The engine's managed environment.
    Raises CannotStart with the command that helps.
    """
    given = config.deployment.python
    if given:  # 1
        path = Path(given).expanduser()
        if not (path.is_file() and os.access(path, os.X_OK)):
            raise CannotStart(f"[deployment] python: there is no interpreter {given}")
        return str(path.absolute())  # not resolved: a virtual environment's is a link
    engine = BY_BACKEND.get(config.model.backend)
    if engine is None or is_here(engine):  # 2
        return sys.executable
    found = managed.find(engine.name)
    if found is None:
        raise CannotStart(install_hint(engine.backend))
    return found.python  # 3


def missing(config: ModelConfig) -> str:
    """Why its Worker could not be started here, "" if it could."""
    try:
        interpreter(config)
    except CannotStart as error:
        return str(error)
    return ""
