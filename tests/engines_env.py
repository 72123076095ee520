"""Which engines the tests may count on: all of them, unless SMMF_TEST_WITHOUT says otherwise.

Nothing is skipped silently: a test whose engine is missing fails, naming the command that installs
it. `SMMF_TEST_WITHOUT=vllm,mlx` leaves engines out, and pytest's first and last lines say so.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smmf_core.environments.catalog import ENGINES
from smmf_core.environments.state import NO, state

VARIABLE = "SMMF_TEST_WITHOUT"
GPTQ = "gptq"  # not an engine: packages that transformers needs for such checkpoints
POSTGRES = "postgres"  # nor this: the database server of postgres_env
DBGPT, NODE = "dbgpt", "node"  # clients of clients_env
_WORDS = os.environ.get(VARIABLE, "").replace(" ", "").replace("_", "-").split(",")
WITHOUT = frozenset(filter(None, _WORDS))
_FILES = {  # whose tests are of nothing else; others call `require`
    "transformers": ("test_transformers*.py", "test_torch_*.py"),
    "llama-cpp": ("test_llama_cpp*.py",),
    "mlx": ("test_mlx*.py",),
    "vllm": ("test_vllm*.py",),
}


def ignored_files() -> list[str]:
    """Patterns of modules that cannot even be imported without the engines that are left out."""
    return [f"*/{pattern}" for name in WITHOUT for pattern in _FILES.get(name, ())]


def summary() -> str:
    """What is left out; "" when nothing is."""
    known = [*ENGINES, GPTQ, POSTGRES, DBGPT, NODE]
    unknown = WITHOUT.difference(known)
    if unknown:
        raise pytest.UsageError(f"{VARIABLE}: {', '.join(unknown)}? There are {', '.join(known)}")
    names = ", ".join(sorted(WITHOUT))
    return f"NOT TESTED, as {VARIABLE} says: engines {names}" if WITHOUT else ""


def require(name: str) -> str:
    """The interpreter that runs an engine, by its name or its backend's. Called at the top of a
    module before its packages are imported, or in a test or fixture."""
    name = name.replace("_", "-")
    if name in WITHOUT:
        pytest.skip(f"{VARIABLE} has {name}", allow_module_level=True)
    found = state(ENGINES[name])
    if found.installed == NO:
        pytest.fail(
            f"{name} is not installed: run `smmf engines install {name}`, or leave its tests out "
            f"with {VARIABLE}={name}",
            pytrace=False,
        )
    return found.python


def gptq_folder() -> str:
    """Where `make test` has put gptqmodel."""
    if GPTQ in WITHOUT:
        pytest.skip(f"{VARIABLE} has {GPTQ}")
    folder = os.environ.get("SMMF_TEST_GPTQ", "")
    if not (Path(folder) / "gptqmodel").is_dir():
        pytest.fail(
            f"SMMF_TEST_GPTQ names no folder with gptqmodel: use `make test`, or leave these tests "
            f"out with {VARIABLE}={GPTQ}",
            pytrace=False,
        )
    return folder
