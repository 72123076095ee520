"""Whom `smmf start worker|apiserver -c FILE` belongs to, by its file and the environment."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from smmf_core.cli.dbgpt import add_roles, controller_of

USUAL = "http://127.0.0.1:8001"


@pytest.fixture(autouse=True)
def _no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMMF_URL", raising=False)


def address(tmp_path: Path, text: str, *flags: str, role: str = "worker") -> str:
    file = tmp_path / "dbgpt.toml"
    file.write_text(text)
    parser = argparse.ArgumentParser()
    add_roles(parser.add_subparsers())
    return controller_of(parser.parse_args(["start", role, "-c", str(file), *flags])).url


WORKER = '[service.model.worker]\ncontroller_addr = "http://10.0.0.1:8000,http://10.0.0.2:8000"\n'
API = '[service.model.api]\ncontroller_addr = "http://10.0.0.3:8000"\n'
CONTROLLER = '[service.model.controller]\nhost = "0.0.0.0"\nport = 9000\n'


def test_the_section_of_the_role(tmp_path: Path) -> None:
    assert address(tmp_path, WORKER + API + CONTROLLER) == "http://10.0.0.1:8000"
    assert address(tmp_path, WORKER + API, role="apiserver") == "http://10.0.0.3:8000"


def test_the_command_line_and_the_environment_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert address(tmp_path, WORKER, "--url", "http://h:1") == "http://h:1"
    monkeypatch.setenv("SMMF_URL", "http://h:2")
    assert address(tmp_path, WORKER) == "http://h:2"


def test_a_reference_to_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[service.model.worker]\ncontroller_addr = "${env:THE_CONTROLLER:-http://h:3}"\n'
    monkeypatch.delenv("THE_CONTROLLER", raising=False)
    assert address(tmp_path, text) == "http://h:3"
    monkeypatch.setenv("THE_CONTROLLER", "http://h:4")
    assert address(tmp_path, text) == "http://h:4"


def test_the_controller_of_the_same_file(tmp_path: Path) -> None:
    """Without keys it is open to this machine only."""
    assert address(tmp_path, CONTROLLER) == "http://127.0.0.1:9000"


@pytest.mark.parametrize(
    "text", ['[[models.llms]]\nname = "a"\nprovider = "hf"\n', '[model]\nname = "a"\n', ""]
)
def test_a_file_that_names_none(tmp_path: Path, text: str) -> None:
    assert address(tmp_path, text) == USUAL
