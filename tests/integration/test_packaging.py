"""Every extra of pyproject.toml resolves, by pip's own resolver, together with the base.

pip resolves in a dry run: nothing is installed. What keeps that affordable, and is the honest edge
of what is proven here:
- Extras are resolved in two groups. A group that resolves proves it of each of its extras, and that
  they can be installed together. vLLM is on its own: it pins its neighbours.
- `torch` is held at the version that the `test` extra pins. Any other would make pip fetch all of
  CUDA for its metadata, where the index does not serve metadata by itself.
- Packages that exist as source only (they compile native code at install) are looked up in the
  index with their bounds; their own dependencies are not followed, as that takes a build.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PROMISED = {
    *("transformers", "vllm", "llama-cpp", "mlx", "torch", "quantization", "flash-attn", "openai"),
    *("postgres", "otel", "default", "test", "dev", "core", "framework"),
}
SOURCE_ONLY = ("llama-cpp-python", "flash-attn", "gptqmodel")
ALONE = ["vllm"]
RESOLVE_S = 300

pytestmark = pytest.mark.timeout(4 * RESOLVE_S)


def name_of(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return match[0].lower()


def expand(extra: str) -> list[str]:
    """The requirements of an extra with `smmf[other]` put in place."""
    found: list[str] = []
    for requirement in EXTRAS[extra]:
        own = re.fullmatch(r"smmf\[([a-z-]+)\]", requirement)
        found += expand(own[1]) if own else [requirement]
    return found


def resolvable(extra: str) -> set[str]:
    """What pip can resolve without compiling, with the base."""
    wheels = [need for need in expand(extra) if name_of(need) not in SOURCE_ONLY]
    return {*PROJECT["dependencies"], *wheels}


def resolve(extras: list[str], folder: Path) -> set[str] | str:
    """Names that pip would install for all of them together, or what it says is impossible."""
    constraints, report = folder / "constraints.txt", folder / f"{extras[0]}.json"
    flags = ["--dry-run", "--ignore-installed", "--quiet", "--only-binary=:all:"]
    files = ["--constraint", str(constraints), "--report", str(report)]
    needs = sorted(set().union(*map(resolvable, extras)))
    command = [sys.executable, "-m", "pip", "install", *flags, *files, *needs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RESOLVE_S)
    if done.returncode:
        return done.stderr
    items = json.loads(report.read_text())["install"]
    return {item["metadata"]["name"].lower().replace("_", "-") for item in items}


@pytest.fixture(scope="module")
def resolved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str] | str]:
    """The outcome for each extra: that of its group."""
    folder = tmp_path_factory.mktemp("resolve")
    pins = [need for need in EXTRAS["test"] if need.startswith("torch==")]
    (folder / "constraints.txt").write_text("\n".join(pins))
    groups = [ALONE, [extra for extra in EXTRAS if extra not in ALONE]]
    with ThreadPoolExecutor(len(groups)) as pool:
        outcomes = pool.map(lambda group: resolve(group, folder), groups)
        return {
            extra: outcome
            for group, outcome in zip(groups, outcomes, strict=True)
            for extra in group
        }


def test_all_promised_extras_exist() -> None:
    assert set(EXTRAS) == PROMISED
    assert EXTRAS["core"] == EXTRAS["framework"] == []


def test_the_base_is_light() -> None:
    names = {name_of(need) for need in PROJECT["dependencies"]}
    assert names.isdisjoint({"torch", "transformers", "vllm", "cython", "openai", "psycopg"})


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_an_extra_resolves(extra: str, resolved: dict[str, set[str] | str]) -> None:
    names = resolved[extra]
    assert isinstance(names, set), names
    assert {name_of(need) for need in resolvable(extra) if "sys_platform" not in need} <= names


@pytest.mark.parametrize("package", SOURCE_ONLY)
def test_a_source_only_package_is_in_the_index(package: str) -> None:
    (need,) = {need for extra in EXTRAS for need in expand(extra) if name_of(need) == package}
    command = [sys.executable, "-m", "pip", "index", "versions", package]  # older pips: no --json
    done = subprocess.run(command, capture_output=True, text=True, timeout=RESOLVE_S)
    assert done.returncode == 0, done.stderr
    listed = re.search(r"^Available versions: (.+)$", done.stdout, re.MULTILINE)
    assert listed is not None, done.stdout
    assert any(Requirement(need).specifier.filter(listed[1].split(", ")))
