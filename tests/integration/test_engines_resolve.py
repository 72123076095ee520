"""Every build in the table of installs exists: resolved by pip against the index, not installed.

What this proves, and what it does not:
- A build whose torch is on PyPI is resolved whole, with all its dependencies, and that torch is
  looked at: it must be built for the CUDA version that the table says.
- A build whose torch is on PyTorch's own index only (`+cu118`, `+cpu`) is resolved without torch.
  That such a torch exists there is not tested.
- No CUDA build is installed or run here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from smmf_core.environments.catalog import CPU, ENGINES, WORKER_NEEDS, Build, Engine

RESOLVE_S = 300
AT_ONCE = 3
_RUNTIME = re.compile(r"nvidia-cuda-runtime-cu\d+\s*\(?==(\d+\.\d+)|cuda-toolkit\[.*\]==(\d+\.\d+)")

pytestmark = pytest.mark.timeout(4 * RESOLVE_S)

Case = tuple[Engine, str]


def cases(is_whole: bool) -> list[Any]:
    return [
        pytest.param((engine, variant), id=f"{engine.name}-{variant}")
        for engine in ENGINES.values()
        for variant, build in engine.builds.items()
        if not build.gone and not engine.is_source and build.on_pypi == is_whole
    ]


def resolve(folder: Path, needs: list[str], *flags: str) -> dict[str, dict[str, Any]] | str:
    """Metadata by name of all that pip would install, or what it says is impossible."""
    report = folder / f"{abs(hash((*needs, *flags)))}.json"
    usual = ("--dry-run", "--ignore-installed", "--quiet", "--only-binary=:all:")
    command = [sys.executable, "-m", "pip", "install", *usual, "--report", str(report), *flags]
    done = subprocess.run([*command, *needs], capture_output=True, text=True, timeout=RESOLVE_S)
    if done.returncode:
        return "\n".join(line for line in done.stderr.splitlines() if "WARNING" not in line)
    items = json.loads(report.read_text())["install"]
    return {item["metadata"]["name"].lower(): item["metadata"] for item in items}


def needs_of(build: Build, is_whole: bool) -> list[str]:
    torch = [f"torch==={build.torch}"] if build.torch and is_whole else []
    return [*torch, *build.requires, *(WORKER_NEEDS if is_whole else ())]


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The outcome for each case, by its engine and variant; a few at once."""
    folder = tmp_path_factory.mktemp("resolve")

    @cache
    def outcome(needs: tuple[str, ...], flags: tuple[str, ...]) -> Any:
        return resolve(folder, list(needs), *flags)

    def run(case: tuple[Case, bool]) -> Any:
        (engine, variant), is_whole = case
        needs = needs_of(engine.builds[variant], is_whole)
        return outcome(tuple(needs), () if is_whole else ("--no-deps",))

    every = [(param.values[0], is_whole) for is_whole in (True, False) for param in cases(is_whole)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(run, every))
    names = (f"{engine.name}-{variant}" for (engine, variant), _ in every)
    return dict(zip(names, outcomes, strict=True))


@pytest.mark.parametrize("case", cases(is_whole=True))
def test_a_build_on_pypi_resolves_with_all_it_needs(case: Case, resolved: dict[str, Any]) -> None:
    engine, variant = case
    found = resolved[f"{engine.name}-{variant}"]
    assert isinstance(found, dict), found
    for need in needs_of(engine.builds[variant], is_whole=True):
        assert re.split(r"[\[=><]", need)[0].lower() in {name.replace("_", "-") for name in found}


@pytest.mark.parametrize("case", cases(is_whole=True))
def test_torch_on_pypi_is_built_for_that_cuda(case: Case, resolved: dict[str, Any]) -> None:
    engine, variant = case
    build = engine.builds[variant]
    if not build.torch:
        assert engine.name == "mlx"  # has no torch: its extra names the CUDA version
        return
    torch = resolved[f"{engine.name}-{variant}"]["torch"]
    needs = "\n".join(torch["requires_dist"])
    found = _RUNTIME.search(needs)
    assert found is not None, needs
    assert (found[1] or found[2]) == variant


@pytest.mark.parametrize("case", cases(is_whole=False))
def test_a_build_on_pytorchs_own_index_resolves_but_for_its_torch(
    case: Case, resolved: dict[str, Any]
) -> None:
    engine, variant = case
    found = resolved[f"{engine.name}-{variant}"]
    assert isinstance(found, dict), found
    assert len(found) == len(engine.builds[variant].requires)


def test_llama_cpp_python_is_on_the_index_as_source(tmp_path: Path) -> None:
    """Which pip cannot resolve without building it."""
    requirement = ENGINES["llama-cpp"].builds[CPU].requires[0]
    name, version = requirement.split("==")
    command = [sys.executable, "-m", "pip", "index", "versions", name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RESOLVE_S)
    listed = re.search(r"^Available versions: (.+)$", done.stdout, re.MULTILINE)
    assert listed is not None, done.stderr
    assert version in listed[1].split(", ")
