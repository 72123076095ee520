"""The benchmark for a GPU, run tiny on the CPU: what it compares is equal, and it says where it
cannot measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from engines_env import require

require("transformers")

ROOT = Path(__file__).parents[2]


def bench(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.engines.cuda", *flags],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.slow
@pytest.mark.timeout(250)
def test_it_runs_and_finds_the_same(tmp_path: Path) -> None:
    done = bench("--device", "cpu", "--out", str(tmp_path / "figures.json"))
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["generate"]["correct"] == "6 of 6 answers equal"
    assert figures["embed"]["correct"].startswith("equal within")
    assert figures["generate"]["8"]["ratio"] > 0


@pytest.mark.slow
def test_without_a_gpu_it_says_so() -> None:
    done = bench(CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert "no GPU is here" in done.stderr
