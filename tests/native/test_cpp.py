"""The C++ tests: every tests/native/*.cpp, built under each group of sanitizers and run.

Each is a plain program that returns zero when it holds and says on its output what does not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
pytestmark = pytest.mark.timeout(600)
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
FLAGS = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
SANITIZERS = {
    "asan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    # GCC's TSan does not model fences and warns; where a race could hide behind one, the doorbell's
    # interleavings are explored on a model instead (tests/unit/test_doorbell_model.py).
    "tsan": ["-fsanitize=thread", "-Wno-tsan"],
}


@pytest.fixture(scope="session")
def build_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("source", sorted(HERE.glob("*.cpp")), ids=lambda path: path.stem)
def test_program_holds_under_sanitizers(source: Path, sanitizer: str, build_dir: Path) -> None:
    program = build_dir / f"{source.stem}-{sanitizer}"
    flags = [*FLAGS, *SANITIZERS[sanitizer]]
    build = [str(COMPILER), *flags, f"-I{CSRC}", str(source), "-o", str(program)]
    compiled = subprocess.run(build, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    ran = subprocess.run([str(program)], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, f"returned {ran.returncode}\n{ran.stdout}{ran.stderr}"
