"""Installs an engine: into a managed environment, or into the running one.

Owns the order of the steps; must not decide which build fits the machine (catalog, cli do).
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from smmf_core.environments import llama_wheel, managed, pip
from smmf_core.environments.catalog import CPU, PYTORCH_INDEX, WORKER_NEEDS, Build, Engine
from smmf_core.environments.managed import Managed, Stamp
from smmf_core.environments.pip import InstallError, NotFound
from smmf_core.environments.progress import Progress

GIB = 2**30
_NEW_PIP = "pip>=24.2"  # tells of downloads in a form for programs

# Run by the environment's interpreter; the last line that it prints is the engine's version.
_VERIFY = """\
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
packages, names = (word.split(",") for word in sys.argv[2:])
for package in packages:
    import_module(package)
import smmf_core.worker.main
from smmf_core.plugins import load_backend
load_backend(sys.argv[1])
for name in names:
    try:
        print(version(name))
        break
    except PackageNotFoundError:
        pass
"""


@dataclass(frozen=True)
class Order:
    """What to install."""

    engine: Engine
    variant: str

    @property
    def build(self) -> Build:
        return self.engine.builds[self.variant]

    @property
    def device(self) -> str:
        if self.variant != CPU:
            return f"cuda {self.variant}"
        is_metal = sys.platform == "darwin" and self.engine.name != "vllm"
        return "metal" if is_metal else "cpu"

    @property
    def torch(self) -> str:
        """PyTorch's CPU builds have `+cpu` in their version on Linux only."""
        version = self.build.torch
        return version.removesuffix("+cpu") if sys.platform == "darwin" else version


def install(order: Order, out: TextIO, force: bool = False) -> Managed:
    """Make the engine's managed environment; one that is there already is left as it is.

    Raises InstallError, and leaves what was there before in use.
    """
    name = order.engine.name
    folder = managed.folder_for(name, order.variant, order.build)
    _check(order, folder)
    try:
        with managed.locked(name):
            stamp = managed.read_stamp(folder)
            if stamp is None or force:
                stamp = _build(order, folder, out)
            managed.link_package(folder)  # of an older install it may be another checkout's
            managed.make_current(name, folder)
            return Managed(folder, stamp)
    except OSError as error:
        raise InstallError(f"cannot make {folder}: {error.strerror or error}") from None


def install_here(order: Order, out: TextIO) -> str:
    """Install into this interpreter's environment; returns the version. Raises InstallError."""
    log = managed.engines_dir() / f"{order.engine.name}-here.log"
    _check(order, Path(sys.prefix))
    try:
        with managed.locked(order.engine.name):
            log.unlink(missing_ok=True)
            steps = _Steps(order, sys.executable, log, out, smmf_needs=())
            return steps.run(steps.packages())
    except OSError as error:
        raise InstallError(f"cannot install into {sys.prefix}: {error}") from None


def _check(order: Order, place: Path) -> None:
    """What would fail only after a long while."""
    build = order.build
    if build.gone:
        raise InstallError(build.gone)
    minor = sys.version_info.minor
    if minor > build.last_python:
        raise InstallError(
            f"{order.engine.name} for {order.device} has no wheels for Python 3.{minor}, only up "
            f"to 3.{build.last_python}: run smmf under that one"
        )
    if order.engine.name == "vllm" and sys.platform != "linux":
        raise InstallError("vLLM has no wheels for this system, only for Linux; try mlx")
    existing = next(parent for parent in [place, *place.parents] if parent.exists())
    free_gib = shutil.disk_usage(existing).free / GIB
    if free_gib < build.disk_gib:
        raise InstallError(
            f"{order.engine.name} needs about {build.disk_gib:g} GiB of disk, and {existing} has "
            f"{free_gib:.1f}: free some, or set SMMF_ENGINES_DIR to another disk"
        )


def _build(order: Order, folder: Path, out: TextIO) -> Stamp:
    """A new environment in its final place: virtual environments cannot be moved."""
    shutil.rmtree(folder, ignore_errors=True)  # the rest of an interrupted install
    folder.mkdir(parents=True)
    log = folder.parent / f"{folder.name}.log"
    log.unlink(missing_ok=True)
    steps = _Steps(order, str(folder / "bin" / "python"), log, out, WORKER_NEEDS)
    try:
        version = steps.run(
            [
                ("making a virtual environment", lambda: steps.make(folder)),
                *steps.packages(),
            ]
        )
        stamp = Stamp(
            order.engine.name, order.variant, version, platform.python_version(), order.device
        )
        managed.write_stamp(folder, stamp)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    log.unlink(missing_ok=True)
    return stamp


Step = tuple[str, Callable[[], object]]


class _Steps:
    """The steps of one install, under the interpreter that gets the packages."""

    def __init__(
        self, order: Order, python: str, log: Path, out: TextIO, smmf_needs: tuple[str, ...]
    ) -> None:
        self._order = order
        self._python = python
        self._log = log
        self._out = out
        self._smmf_needs = smmf_needs
        self._progress = Progress(0, out)
        self._version = ""

    def run(self, steps: list[Step]) -> str:
        """All of them in order; returns the engine's version."""
        self._progress = Progress(len(steps), self._out)
        try:
            for label, act in steps:
                self._progress.step(label)
                act()
        finally:
            self._progress.end()
        return self._version

    def make(self, folder: Path) -> None:
        self._run(sys.executable, "-m", "venv", folder)
        self._pip("install", "--quiet", "--upgrade", _NEW_PIP)
        managed.link_package(folder)

    def packages(self) -> list[Step]:
        build, engine = self._order.build, self._order.engine
        steps: list[Step] = []
        if build.torch:
            steps.append((f"installing torch {self._order.torch}", self._torch))
        if engine.is_source:
            text = f"compiling {build.requires[0]}, unless its wheel is kept"
            steps.append((text, self._compiled))
        else:
            label = f"installing {build.requires[0].replace('==', ' ')}"
            steps.append((label, lambda: self._install(*build.requires)))
        if build.remove:
            text = "removing what breaks it: " + " ".join(build.remove)
            steps.append((text, lambda: self._pip("uninstall", "--yes", *build.remove)))
        return [*steps, (f"checking that {engine.name} works", self._verify)]

    def _torch(self) -> None:
        """From the usual index, which may be a mirror of both; else from PyTorch's own.

        `===`: 2.6.0 is another build than 2.6.0+cu126, which `==` takes for a newer one.
        """
        build, version = self._order.build, self._order.torch
        try:
            self._install(f"torch==={version}", needs=())
        except NotFound:
            local = version if "+" in version else f"{version}+{build.index}"
            url = PYTORCH_INDEX + build.index
            self._install("--extra-index-url", url, f"torch=={local}", needs=())

    def _compiled(self) -> None:
        requirement = self._order.build.requires[0]
        wheel = llama_wheel.wheel(
            requirement, self._order.variant, self._python, self._log, self._progress.tell
        )
        self._install("--force-reinstall", "--no-deps", str(wheel), needs=())
        self._install(str(wheel))

    def _install(self, *requirements: str, needs: tuple[str, ...] | None = None) -> None:
        """With what the Worker's side needs, so that pip chooses versions that suit both."""
        needs = self._smmf_needs if needs is None else needs
        self._pip("install", *self._pip_flags(), *requirements, *needs)

    def _pip_flags(self) -> tuple[str, ...]:
        return ("--progress-bar", "raw") if self._smmf_needs else ()  # a pip of ours

    def _pip(self, *arguments: str) -> str:
        return self._run(self._python, "-m", "pip", *arguments)

    def _verify(self) -> None:
        engine = self._order.engine
        lists = (",".join(engine.packages), ",".join(engine.distributions))
        self._version = self._run(self._python, "-c", _VERIFY, engine.backend, *lists)

    def _run(self, *command: str | Path) -> str:
        return pip.run(command, self._log, self._progress.tell)
