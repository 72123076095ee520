"""Fixtures shared by all tests: a real server on the echo engine, the engines' interpreters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import engines_env
import pytest
from hypothesis import settings
from server import Server, echo_toml

settings.register_profile("untimed", deadline=None)  # a loaded machine is no failure
settings.load_profile("untimed")
collect_ignore_glob = engines_env.ignored_files()


def pytest_report_header() -> str:
    return engines_env.summary()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if engines_env.WITHOUT:
        terminalreporter.section("engines left out")
        terminalreporter.line(engines_env.summary())


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What servers remember stays out of the user's own state folder."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The interpreter that has vLLM."""
    return engines_env.require("vllm")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One echo model, two replicas, shared by a module's tests."""
    folder: Path = tmp_path_factory.mktemp("server")
    (folder / "local-echo.toml").write_text(echo_toml(deployment={"replicas": 2}))
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
