"""`smmf doctor`: what is installed here and what works.

Owns a list of findings; must not change anything, and must not need a running server.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from smmf_core.cli.http import add_json_flag, wants_json
from smmf_core.cli.table import print_json, size, table
from smmf_core.config import Server
from smmf_core.environments import gpu
from smmf_core.environments.catalog import ENGINES, Engine, variant_for_gpu
from smmf_core.environments.state import HERE, NO, state
from smmf_core.plugins import BACKENDS, backend_names, load_backend
from smmf_core.store.location import lane_key

NATIVE = ("_ring", "_frames", "_histogram", "_scheduler", "_batcher")
PORTS = {"inference": 8000, "admin": 8001}
_PLAIN = ("echo", "reference")  # engines that need no package


class Finding(NamedTuple):
    """One line of the report. `status`: ok, missing (not needed for the demo model) or failed."""

    check: str
    status: str
    detail: str


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("doctor", help="what is installed and works here")
    add_json_flag(parser)


def run(args: argparse.Namespace) -> int:
    findings = [finding for look in LOOKS for finding in look()]
    if wants_json(args):
        print_json([finding._asdict() for finding in findings])
    else:
        print(table(("CHECK", "STATUS", "DETAIL"), findings))
    return 1 if any(finding.status == "failed" for finding in findings) else 0


def _system() -> Iterable[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} {sys.executable}")
    is_known = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
    yield Finding("platform", "ok" if is_known else "failed", platform.platform())
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    yield Finding("cpu", "ok", f"{cores} cores")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("memory", "ok", size(memory))


def _native_core() -> Iterable[Finding]:
    for name in NATIVE:
        yield _works(f"native {name}", partial(_import, f"smmf_core.native.{name}"))


def _shared_memory() -> Iterable[Finding]:
    yield _works("memfd", _try_memfd)
    yield _works("pidfd", _try_pidfd)


def _engines() -> Iterable[Finding]:
    for backend in _PLAIN:
        yield _works(f"engine {backend}", partial(_plug_in, backend))
    found = gpu.find()
    for engine in ENGINES.values():
        yield _engine(engine, found)
    for backend in backend_names():
        if backend not in BACKENDS:
            yield _works(f"engine {backend}", partial(_plug_in, backend))


def _ports() -> Iterable[Finding]:
    for name, port in PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                yield Finding(f"port {port}", "ok", f"free ({name})")
            except OSError:
                yield Finding(f"port {port}", "missing", f"in use ({name}); give another")


def _client_key() -> Iterable[Finding]:
    """Of the server without a --name, if it has had a TCP port for the client library."""
    file = lane_key(Server())
    if file.exists():
        yield _works("client port's key", lambda: _public_key(file))


def _public_key(file: Path) -> str:
    from smmf_core.wire.curve import read_or_make

    return read_or_make(file, may_make=False).public.hex()


def _gpu() -> Iterable[Finding]:
    found = gpu.find()
    for card in found.gpus:
        memory = size(card.memory_mib * 2**20)
        yield Finding(
            "gpu",
            "ok",
            f"{card.name}, {memory}, {card.generation}, driver {card.driver} (CUDA {found.cuda})",
        )
    if not found.gpus:
        yield Finding("gpu", "missing", found.other or "nvidia-smi names none")


def _engine(engine: Engine, found: gpu.Found) -> Finding:
    """Looked up, not imported: torch alone takes seconds."""
    told = state(engine)
    name = f"engine {engine.backend}"
    if told.installed == NO:
        return Finding(name, "missing", f"not installed{_advice(engine, found)}")
    place = "this environment" if told.installed == HERE else told.python
    is_idle = bool(found.gpus) and "cuda" not in told.device
    better = f"; it does not use the GPU{_advice(engine, found)}" if is_idle else ""
    return Finding(name, "ok", f"{told.version} for {told.device} in {place}{better}")


def _advice(engine: Engine, found: gpu.Found) -> str:
    """The command for the build that fits this machine."""
    command = f"smmf engines install {engine.name}"
    if not found.gpus or not found.cuda:
        return f": run `{command}`"
    variant = variant_for_gpu(engine, found.gpus[0].capability, found.cuda)
    if variant is None:
        return f"; it has no build for this GPU, for the CPU run `{command} --cpu`"
    return f": run `{command} --cuda {variant}`"


def _plug_in(backend: str) -> str:
    return f"plug-in: {load_backend(backend).__module__}"


def _works(check: str, attempt: Callable[[], str]) -> Finding:
    """Whatever an import or a system call of somebody else raises is the finding."""
    try:
        return Finding(check, "ok", attempt())
    except Exception as error:
        return Finding(check, "failed", f"{type(error).__name__}: {error}")


def _import(name: str) -> str:
    __import__(name)
    return str(getattr(sys.modules[name], "__file__", ""))


def _try_memfd() -> str:
    os.close(os.memfd_create("smmf-doctor", os.MFD_CLOEXEC))
    return "anonymous shared memory works"


def _try_pidfd() -> str:
    os.close(os.pidfd_open(os.getpid()))
    return "process descriptors work"


LOOKS = (_system, _native_core, _shared_memory, _engines, _ports, _client_key, _gpu)
