"""Test cases under vLLM's interpreter: it has an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUIET = {
    "OMP_NUM_THREADS": "1",  # two threads that wait for each other stand still on a busy machine
    "VLLM_LOGGING_LEVEL": "ERROR",
}
# vLLM's own imports warn; `error` stays for everything else
_WARNINGS = ("-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning")


def run_cases(python: str, tools: Path, *arguments: str, **environment: str) -> str:
    """Run pytest under that interpreter; its output is the failure's text."""
    paths = [str(ROOT)]
    if subprocess.run(
        [python, "-c", "import pytest, pytest_timeout"], capture_output=True
    ).returncode:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tools)]
        subprocess.run([*install, "pytest", "pytest-timeout"], check=True, timeout=120)
        paths.append(str(tools))
    command = [python, "-m", "pytest", "--noconftest", "-q", "-p", "no:cacheprovider"]
    options = [*_WARNINGS, "--show-capture=no", "-o", "timeout=300"]
    done = subprocess.run(
        [*command, *options, *arguments],
        cwd=ROOT,
        env={**os.environ, **QUIET, **environment, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout
