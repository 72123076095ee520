"""The table of installs: every engine, every CUDA version that is promised, and the choice."""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from smmf_core.cli.engines import _cuda_version
from smmf_core.environments.catalog import (
    BY_BACKEND,
    CPU,
    CUDA_VERSIONS,
    ENGINES,
    WORKER_NEEDS,
    Build,
    Engine,
    closest_variant,
    variant_for_gpu,
)
from smmf_core.plugins import BACKENDS, install_hint

ROOT = Path(__file__).resolve().parents[2]
PROMISED = ("11.8", "12.1", "12.4", "13.0", CPU)
BUILDS = [
    pytest.param(build, id=f"{engine.name}-{variant}")
    for engine in ENGINES.values()
    for variant, build in engine.builds.items()
]


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_says_something_for_every_promised_version(name: str) -> None:
    assert set(PROMISED) <= set(ENGINES[name].builds)


@pytest.mark.parametrize("build", BUILDS)
def test_a_build_is_pinned_or_says_why_there_is_none_and_what_works(build: Build) -> None:
    if build.gone:
        assert "smmf engines install" in build.gone
        assert not build.requires
        return
    pinned = [build.requires[0], *([f"torch=={build.torch}"] if build.torch else [])]
    assert all("==" in str(Requirement(need).specifier) for need in pinned)
    assert all(Requirement(need).specifier for need in build.requires)


@pytest.mark.parametrize("build", BUILDS)
def test_what_only_pytorch_has_names_its_index(build: Build) -> None:
    """A local version (`+cu118`) is never on PyPI."""
    assert bool(build.index) == bool(build.torch)
    tag = build.torch.partition("+")[2]
    assert not tag or tag == build.index
    assert build.on_pypi == (not tag)


def test_every_backend_with_packages_can_be_installed() -> None:
    assert set(BACKENDS) - set(BY_BACKEND) == {"echo", "reference"}
    hints = {re.search(r"`smmf engines install (\S+)`", install_hint(b)) for b in BY_BACKEND}
    assert {found[1] for found in hints if found} == set(ENGINES)


def test_the_workers_needs_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(WORKER_NEEDS) <= set(project["dependencies"])


@pytest.mark.parametrize(
    ("asked", "variant"),
    [("12.4", "12.4"), ("12.2", "12.1"), ("12.9", "12.8"), ("13.2", "13.0"), ("11.8", "11.8")],
)
def test_a_version_between_takes_the_build_before_it(asked: str, variant: str) -> None:
    assert closest_variant(ENGINES["transformers"], asked) == variant


@pytest.mark.parametrize("asked", ["10.2", "11.4", "12.0", "14.0"])
def test_a_version_before_or_beyond_all_has_no_build(asked: str) -> None:
    assert closest_variant(ENGINES["transformers"], asked) is None


@pytest.mark.parametrize(
    ("capability", "cuda", "vllm", "transformers"),
    [
        (70, "12.4", None, "12.6"),  # V100: left out of PyTorch's builds for 12.8 and later
        (75, "13.0", "13.0", "13.0"),  # T4
        (80, "12.4", "12.8", "12.8"),  # A100 with a driver of 12.4: any CUDA 12 build runs
        (86, "11.8", None, "11.8"),  # RTX 30 with an old driver
        (89, "12.2", "12.8", "12.8"),  # RTX 40
        (90, "13.1", "13.0", "13.0"),  # H100
        (120, "12.8", "12.8", "12.8"),  # RTX 50
        (61, "13.0", None, "12.6"),  # GTX 10
        (35, "11.4", None, None),  # Kepler
    ],
)
def test_the_newest_build_with_kernels_for_the_gpu_is_chosen(
    capability: int, cuda: str, vllm: str | None, transformers: str | None
) -> None:
    assert variant_for_gpu(ENGINES["vllm"], capability, cuda) == vllm
    assert variant_for_gpu(ENGINES["transformers"], capability, cuda) == transformers


def readme_table() -> str:
    columns = [*reversed(CUDA_VERSIONS), CPU]
    heads = [f"CUDA {column}" for column in columns[:-1]]
    lines = [f"| | {' | '.join(heads)} | CPU |", "|---" * (len(columns) + 1) + "|"]
    for engine in ENGINES.values():
        cells = [cell(engine, column) for column in columns]
        lines.append(f"| `{engine.name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(engine: Engine, variant: str) -> str:
    chosen = closest_variant(engine, variant)
    assert chosen is not None
    build = engine.builds[chosen]
    if not build.gone and chosen != variant:
        return f"as {chosen}"
    if build.gone:
        return "none"
    version = build.requires[0].partition("==")[2]
    if not build.torch:
        return version
    mark = "" if build.on_pypi else "*"
    return f"{version}, torch {build.torch.partition('+')[0]}{mark}"


def test_the_readme_has_the_table() -> None:
    text = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- engines:table -->\n(.*)\n<!-- engines:end -->", text, re.DOTALL)
    assert found is not None
    assert found[1] == readme_table()


def test_versions_are_listed_in_their_order() -> None:
    assert CUDA_VERSIONS == ("11.8", "12.1", "12.4", "12.6", "12.8", "13.0")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("11.8", "11.8"), ("12.1", "12.1"), ("12.4", "12.4"), ("13", "13.0"), ("13.0", "13.0")],
)
def test_a_cuda_version_as_it_is_typed(typed: str, meant: str) -> None:
    assert _cuda_version(typed) == meant


@pytest.mark.parametrize("typed", ["", "cu124", "12.", "12.4.1", "-1"])
def test_what_is_no_cuda_version(typed: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a CUDA version"):
        _cuda_version(typed)
