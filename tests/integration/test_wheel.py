"""The wheel, installed into an empty environment and used from outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from smmf_core import __version__

ROOT = Path(__file__).resolve().parents[2]
BUILD_S = 600  # five native modules on a loaded machine
SOURCES = ("csrc", "configs", "smmf_core")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")
NATIVE = ("_ring", "_frames", "_histogram", "_scheduler", "_batcher")

pytestmark = pytest.mark.timeout(2 * BUILD_S)


def run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SMMF"))}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=BUILD_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources without anything built before."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    for name in SOURCES:
        shutil.copytree(ROOT / name, tree / name, ignore=ignore)
    for name in FILES:
        shutil.copy(ROOT / name, tree / name)
    # The build tools are those of the test environment: one download less.
    flags = ("--no-deps", "--no-build-isolation", "--wheel-dir")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", *flags, out, ".", cwd=tree)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of a virtual environment that holds the wheel and its dependencies only."""
    folder = tmp_path_factory.mktemp("env")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    bin_folder = folder / "venv" / "bin"
    run(bin_folder / "pip", "install", "--quiet", wheel, cwd=folder)
    return bin_folder


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"smmf_core", f"smmf-{__version__}.dist-info"}
    for expected in (
        "py.typed", "configs/smmf.toml", "configs/local-demo.toml", "configs/templates/vicuna.jinja"
    ):  # fmt: skip
        assert f"smmf_core/{expected}" in names
    assert {f"smmf_core/native/{name}.pyi" for name in NATIVE} <= set(names)
    assert [name for name in names if "/train/" in name or name.endswith((".cpp", ".pyx"))] == []


def test_the_command_works_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "smmf", "--version", cwd=tmp_path) == f"smmf {__version__}\n"
    assert "demo: ok" in run(installed / "smmf", "check", cwd=tmp_path)


def test_native_modules_and_bundled_files_come_from_the_wheel(
    installed: Path, tmp_path: Path
) -> None:
    code = (
        "from importlib import import_module\n"
        f"for name in {NATIVE!r}: print(import_module('smmf_core.native.' + name).__file__)\n"
        "from smmf_core.config import bundled\n"
        "print(bundled('demo/model.safetensors'))\n"
        "assert bundled('demo/model.safetensors').is_file()\n"
    )
    lines = run(installed / "python", "-c", code, cwd=tmp_path).splitlines()
    assert len(lines) == len(NATIVE) + 1
    assert all(line.startswith(str(installed.parent)) for line in lines)


def test_the_default_install_is_light(installed: Path, tmp_path: Path) -> None:
    names = run(installed / "pip", "list", "--format", "freeze", cwd=tmp_path).lower()
    assert "torch" not in names
    assert "cython" not in names
