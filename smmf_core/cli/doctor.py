"""`smmf doctor`: what is installed here and what works.

Owns a list of findings; must not change anything, and must not need a running server.
"""

from __future__ import annotations

import argparse
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from smmf_core.cli.http import add_json_flag, wants_json
from smmf_core.cli.table import print_json, size, table

NATIVE = ("_ring", "_frames", "_histogram", "_scheduler", "_batcher")
PACKAGES = ("torch", "transformers", "vllm", "llama_cpp", "mlx")  # of later engines
PORTS = {"inference": 8000, "admin": 8001}
NVIDIA_SMI_S = 5.0
_ENGINES = {"echo": "echo", "reference": "reference"}  # backend -> module in engines/


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
    for backend, module in _ENGINES.items():
        yield _works(f"engine {backend}", partial(_import, f"smmf_core.engines.{module}"))
    for package in PACKAGES:
        yield _package(package)


def _ports() -> Iterable[Finding]:
    for name, port in PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                yield Finding(f"port {port}", "ok", f"free ({name})")
            except OSError:
                yield Finding(f"port {port}", "missing", f"in use ({name}); give another")


def _gpu() -> Iterable[Finding]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(
            query, capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=True
        )
        for line in found.stdout.splitlines():
            yield Finding("gpu", "ok", line.strip())
    except (OSError, subprocess.SubprocessError):
        driver = Path("/proc/driver/nvidia/version")
        if driver.exists():
            yield Finding("gpu", "missing", f"driver without nvidia-smi: {driver.read_text()[:80]}")
        else:
            yield Finding("gpu", "missing", "no NVIDIA driver")


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


def _package(name: str) -> Finding:
    """Looked up, not imported: torch alone takes seconds."""
    if find_spec(name) is None:
        return Finding(f"package {name}", "missing", "not installed")
    try:
        return Finding(f"package {name}", "ok", version(name.replace("_", "-")))
    except PackageNotFoundError:
        return Finding(f"package {name}", "ok", "version unknown")


LOOKS = (_system, _native_core, _shared_memory, _engines, _ports, _gpu)
