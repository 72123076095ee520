"""The rule that no engine is left out of the tests silently, tested."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import engines_env
import pytest

ROOT = Path(__file__).resolve().parents[2]


def missing_engine() -> str:
    """vLLM: it has an environment of its own, unless somebody installed it here."""
    assert find_spec("vllm") is None, "these tests need an engine that is not beside them"
    return "vllm"


def test_a_missing_engine_fails_its_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMMF_ENGINES_DIR", str(tmp_path))
    monkeypatch.setattr(engines_env, "WITHOUT", frozenset())
    with pytest.raises(pytest.fail.Exception, match="run `smmf engines install vllm`, or leave"):
        engines_env.require(missing_engine())


def test_an_engine_that_is_left_out_skips_its_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines_env, "WITHOUT", frozenset({"llama-cpp"}))
    with pytest.raises(pytest.skip.Exception, match="SMMF_TEST_WITHOUT has llama-cpp"):
        engines_env.require("llama_cpp")
    assert engines_env.ignored_files() == ["*/test_llama_cpp*.py"]
    assert engines_env.summary() == "NOT TESTED, as SMMF_TEST_WITHOUT says: engines llama-cpp"


@pytest.mark.parametrize(
    ("value", "status", "said"),
    [
        ("mlx, vllm", 0, "NOT TESTED, as SMMF_TEST_WITHOUT says: engines mlx, vllm"),
        ("mlks", 4, "SMMF_TEST_WITHOUT: mlks? There are vllm, transformers, llama-cpp, mlx"),
    ],
)
def test_a_run_says_what_it_leaves_out(value: str, status: int, said: str) -> None:
    tests = "tests/unit/test_engines_table.py"
    command = [sys.executable, "-m", "pytest", "-q", "-k", "listed_in_their_order", tests]
    environment = {**os.environ, "SMMF_TEST_WITHOUT": value}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
