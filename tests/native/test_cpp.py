"""The C++ tests: every tests/native/*.cpp, built with sanitizers and run.

Each is a plain program that returns zero when it holds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
FLAGS = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("source", sorted(HERE.glob("*.cpp")), ids=lambda path: path.stem)
def test_program_holds_under_sanitizers(source: Path, tmp_path: Path) -> None:
    program = tmp_path / source.stem
    build = [str(COMPILER), *FLAGS, *SANITIZE, f"-I{CSRC}", str(source), "-o", str(program)]
    compiled = subprocess.run(build, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    ran = subprocess.run([str(program)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
