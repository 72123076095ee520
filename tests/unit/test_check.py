"""`smmf check` of what loads and is still not as its author may think."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smmf_core.cli.main import main

Capture = pytest.CaptureFixture[str]
FILES = Path(__file__).parent / "dbgpt"


def test_a_remote_model_is_valid_and_not_served_yet(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "proxy-gpt.toml"
    file.write_text('[proxy]\nprovider = "openai"\n[authentication]\nopenai_api_key = "sk-1"\n')
    assert main(["check", str(file)]) == 0
    out = capsys.readouterr().out
    assert out == (f"{file}: gpt: ok, but [proxy]: known, but this release does not have it yet\n")
    assert main(["check", "--json", str(file)]) == 0
    (row,) = json.loads(capsys.readouterr().out)["models"]
    assert (row["name"], row["backend"], row["is_remote"]) == ("gpt", "openai", True)
    assert row["missing"]


def test_warnings_are_told_and_are_no_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("SMMF_TEST_KEY", "k")
    monkeypatch.setenv("SMMF_TEST_PASSWORD", "pw")
    files = [str(FILES / f"dbgpt-{name}.toml") for name in ("proxy-mixed", "cluster")]
    assert main(["check", *files]) == 0
    shown = capsys.readouterr()
    assert f"warning: {files[0]}:29: [[models.llms]] context_length: not honoured" in shown.err
    assert "bge-large: ok" in shown.out
    assert main(["check", "--json", *files]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    assert {warning["kind"] for warning in found["warnings"]} == {"warning"}


def test_a_path_where_nothing_is(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "local-m.toml"
    file.write_text('[model]\nname = "m"\nbackend = "transformers"\npath = "gone"\n')
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: m: ok, but there is no {tmp_path / 'gone'}\n"


def test_a_path_where_nothing_is_and_no_interpreter_either(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "local-m.toml"
    file.write_text(
        '[model]\nname = "m"\nbackend = "transformers"\npath = "gone"\n'
        '[deployment]\npython = "/nowhere/python"\n'
    )
    assert main(["check", str(file)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert f"there is no {tmp_path / 'gone'}; " in line
    assert line.endswith("there is no interpreter /nowhere/python")


@pytest.mark.parametrize("url", ["nonsense", "registry.db", "://x"])
def test_a_registry_that_is_nowhere(url: str, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "smmf.toml"
    file.write_text(f'[registry]\nurl = "{url}"\n')
    assert main(["check", str(file)]) == 1
    assert f"{file}:2: [registry] url: no database's URL" in capsys.readouterr().err
    file.write_text('[registry]\nurl = "postgresql+psycopg://me@host/name"\n')
    assert main(["check", str(file)]) == 0
