"""What is installed of each engine, and where.

Owns the answer for `smmf engines list` and `smmf doctor`; must not import an ML package.
"""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from smmf_core.environments import managed
from smmf_core.environments.catalog import ENGINES, Engine
from smmf_core.environments.interpreter import is_here
from smmf_core.plugins import BACKENDS, plugged
from smmf_core.plugins import ENGINES as ENGINE_GROUP

HERE, MANAGED, NO = "here", "managed", "no"
_CUDA_LIBRARY = "libggml-cuda.so"


class State(NamedTuple):
    """One engine. `installed`: here (this interpreter), managed, no."""

    name: str
    backend: str
    installed: str
    version: str
    python: str  # the interpreter that runs it
    device: str


def all_states() -> list[State]:
    """Built-in backends without packages, engines, plug-ins. Former environments of engines go,
    once nobody runs from them."""
    for name in ENGINES:
        managed.remove_former(name)
    plain = [name for name in BACKENDS if name not in {e.backend for e in ENGINES.values()}]
    own = [State(name, name, HERE, "", sys.executable, "cpu") for name in plain]
    return [*own, *map(state, ENGINES.values()), *_plug_ins()]


def state(engine: Engine) -> State:
    """Where its Workers would run: here if it is here, else managed, else nowhere."""
    if is_here(engine):
        device = _device_here(engine)
        return State(engine.name, engine.backend, HERE, _version(engine), sys.executable, device)
    found = managed.find(engine.name)
    if found is None:
        return State(engine.name, engine.backend, NO, "", "", "")
    stamp = found.stamp
    return State(engine.name, engine.backend, MANAGED, stamp.version, found.python, stamp.device)


def _plug_ins() -> list[State]:
    rows = []
    for name, point in sorted(plugged(ENGINE_GROUP).items()):
        if name not in BACKENDS:
            told = f"{point.dist.name} {point.dist.version}" if point.dist else ""
            rows.append(State(name, name, HERE, told, sys.executable, ""))
    return rows


def _version(engine: Engine) -> str:
    return next(filter(None, map(_version_of, engine.distributions)), "")


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _device_here(engine: Engine) -> str:
    """As far as can be told without importing it."""
    if sys.platform == "darwin":
        return "metal" if platform.machine() == "arm64" else "cpu"
    if engine.name == "llama-cpp":
        spec = find_spec("llama_cpp")
        folder = Path(spec.origin or "").parent if spec is not None else Path()
        has_cuda = (folder / "lib" / _CUDA_LIBRARY).exists()
    elif engine.name == "mlx":
        has_cuda = bool(_version_of("mlx-cuda-12") or _version_of("mlx-cuda-13"))
    else:
        has_cuda = "+cpu" not in _version_of("torch")
    return "cuda, cpu" if has_cuda else "cpu"
