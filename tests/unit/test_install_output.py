"""An install's progress, why one failed, and what decides about a kept wheel."""

from __future__ import annotations

import io
import json
import shutil
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from smmf_core.cli.main import main
from smmf_core.environments import llama_wheel, managed, pip
from smmf_core.environments.catalog import CPU, ENGINES
from smmf_core.environments.install import Order, install
from smmf_core.environments.managed import Stamp
from smmf_core.environments.pip import InstallError, NotFound
from smmf_core.environments.progress import Progress

Capture = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMMF_ENGINES_DIR", str(tmp_path / "engines"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def failure(output: str, folder: Path) -> InstallError:
    """What is said of a command that prints this and fails."""
    code = f"import sys; print({output!r}); sys.exit(1)"
    with pytest.raises(InstallError) as caught:
        pip.run((sys.executable, "-c", code), folder / "log", lambda line: None)
    assert (folder / "log").read_text().strip() == output.strip()
    return caught.value


# --- progress -------------------------------------------------------------------------------------


def test_a_line_per_step_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    progress = Progress(2, out)
    progress.step("making")
    progress.tell("Collecting torch")
    progress.step("checking")
    progress.end()
    assert out.getvalue() == "smmf: 1/2 making\nsmmf: 2/2 checking\n"


def test_a_bar_on_a_terminal_that_is_gone_at_the_end() -> None:
    out = Terminal()
    progress = Progress(4, out)
    progress.step("making")
    progress.step("installing torch")
    assert out.getvalue().endswith("\r[######..................] 2/4 installing torch\x1b[K")
    progress.end()
    assert out.getvalue().endswith("\r\x1b[K")


def test_downloads_move_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smmf_core.environments.progress._REDRAW_S", 0)
    out = Terminal()
    progress = Progress(2, out)
    progress.step("installing")
    bars = []
    for name, mib in [("torch-2.13.0-cp311.whl", 200), ("triton.whl", 100), ("sympy.whl", 6)]:
        progress.tell(f"  Downloading {name} ({mib} MB)")
        progress.tell(f"Progress {mib * 2**20} of {mib * 2**20}")
        last = out.getvalue().rsplit("\r", 1)[-1]
        assert f"{name}  {mib}/{mib} MiB" in last
        bars.append(last.count("#"))
    progress.tell("Installing collected packages: sympy, triton, torch")
    bars.append(out.getvalue().rsplit("\r", 1)[-1].count("#"))
    assert bars == sorted(set(bars)), "it only moves on"
    assert bars[-1] < 12, "half of the steps"


def test_a_compilation_moves_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smmf_core.environments.progress._REDRAW_S", 0)
    out = Terminal()
    progress = Progress(1, out)
    progress.step("compiling")
    progress.tell("  [20/80] Building CXX object ggml.cpp.o")
    assert out.getvalue().rsplit("\r", 1)[-1].startswith("[######....")
    assert "compiling: 20/80 files" in out.getvalue()


# --- why it failed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError("
            "\"HTTPSConnection(host='pypi.org', port=443): Failed to establish\")': /simple/x/\n"
            "ERROR: No matching distribution found for x==1",
            "cannot reach pypi.org: check the network",
        ),
        ("python: No module named pip", "this Python has no pip or venv: install them"),
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: ResolutionImpossible: for help visit", "the packages do not go together"),
        ("CMake Error: CMAKE_CXX_COMPILER not set", "there is no CXX compiler"),
        ("building\n  error: subprocess exited\nmore\nlast", "error: subprocess exited"),
        ("something else", "something else"),
    ],
)
def test_a_failure_is_told_in_one_sentence(output: str, said: str, tmp_path: Path) -> None:
    message = str(failure(output, tmp_path))
    assert message.startswith(said)
    assert str(tmp_path / "log") in message


def test_what_the_index_lacks_is_another_matter_than_no_network(tmp_path: Path) -> None:
    error = failure("ERROR: No matching distribution found for torch===2.6.0", tmp_path)
    assert isinstance(error, NotFound)
    assert "no torch===2.6.0" in str(error)


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="/nowhere/python cannot be run"):
        pip.run(("/nowhere/python", "-m", "pip"), tmp_path / "log", lambda line: None)


def test_the_environment_of_smmf_is_not_inherited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    code = "import os; print(os.environ.get('PYTHONPATH'), os.environ['CMAKE_ARGS'])"
    told = pip.run(
        (sys.executable, "-c", code), tmp_path / "log", lambda line: None, CMAKE_ARGS="-DX=1"
    )
    assert told == "None -DX=1"


# --- what is checked first ------------------------------------------------------------------------


def test_too_little_disk_is_said_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40, 2**29))
    with pytest.raises(InstallError, match=r"needs about 5 GiB of disk, and .* has 0.5"):
        install(Order(ENGINES["vllm"], CPU), io.StringIO())
    assert not (tmp_path / "engines").exists()


def test_a_python_without_wheels_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    version = namedtuple("version", "major minor micro")
    monkeypatch.setattr(sys, "version_info", version(3, 14, 1))
    with pytest.raises(InstallError, match=r"no wheels for Python 3.14, only up to 3.13"):
        install(Order(ENGINES["transformers"], "12.4"), io.StringIO())


def test_a_build_that_does_not_exist_says_why_and_what_works(capsys: Capture) -> None:
    assert main(["engines", "install", "vllm", "--cuda", "11.8"]) == 1
    err = capsys.readouterr().err
    assert "never on PyPI" in err
    assert "smmf engines install vllm --cuda 12.8" in err


def test_a_cuda_version_that_nothing_is_for(capsys: Capture) -> None:
    assert main(["engines", "install", "transformers", "--cuda", "10.2"]) == 1
    assert "nothing for CUDA 10.2: known are 11.8, 12.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["install"],
        ["install", "nonsense"],
        ["install", "vllm", "--cuda", "twelve"],
        ["install", "vllm", "--cuda", "12.4", "--cpu"],
    ],
)
def test_wrong_use_exits_with_2(arguments: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main(["engines", *arguments])
    assert left.value.code == 2


# --- environments on disk -------------------------------------------------------------------------


def whole(name: str, variant: str, python: str = "") -> Path:
    """A folder as an install leaves it."""
    folder = managed.folder_for(name, variant, ENGINES[name].builds[variant])
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    version = python or ".".join(map(str, sys.version_info[:3]))
    managed.write_stamp(folder, Stamp(name, variant, "1.0", version, variant))
    managed.make_current(name, folder)
    return folder


def test_an_environment_without_a_stamp_is_none() -> None:
    folder = whole("mlx", CPU)
    found = managed.find("mlx")
    assert found is not None
    assert found.python == str(folder / "bin" / "python")
    (folder / managed.STAMP).unlink()
    assert managed.find("mlx") is None


def test_engines_are_listed_with_where_they_are(capsys: Capture) -> None:
    folder = whole("vllm", CPU)
    assert main(["engines", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"echo", "reference", *ENGINES} <= set(rows)
    assert rows["echo"]["installed"] == "here"
    assert rows["vllm"] == {
        "name": "vllm",
        "backend": "vllm",
        "installed": "managed",
        "version": "1.0",
        "python": str(folder / "bin" / "python"),
        "device": CPU,
    }
    assert main(["engines", "list"]) == 0
    assert capsys.readouterr().out.startswith("NAME  ")


def test_an_environment_of_another_python_is_none() -> None:
    whole("mlx", CPU, python="3.9.1")
    assert managed.find("mlx") is None


def test_another_build_takes_the_place_of_the_former() -> None:
    former, new = whole("mlx", CPU), whole("mlx", "13.0")
    assert not former.exists()
    found = managed.find("mlx")
    assert found is not None
    assert found.folder == new


def test_an_engine_does_not_touch_anothers_environment() -> None:
    whole("vllm", CPU)
    whole("mlx", CPU)
    assert main(["engines", "remove", "mlx"]) == 0
    assert managed.find("mlx") is None
    assert managed.find("vllm") is not None


# --- the wheel cache ------------------------------------------------------------------------------


def kept(requirement: str, variant: str) -> Path:
    """Put a wheel where the cache would have it."""
    key = llama_wheel._key(requirement, variant, [*llama_wheel._SETTINGS])
    folder = llama_wheel.cache_dir() / f"{requirement.replace('==', '-')}-{key}"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "llama.whl", "w") as archive:
        archive.writestr("x", "y")
    return folder / "llama.whl"


def made(requirement: str, folder: Path) -> Path:
    return llama_wheel.wheel(requirement, CPU, "/nowhere/python", folder / "log", lambda line: None)


def test_a_kept_wheel_is_taken(tmp_path: Path) -> None:
    file = kept("x==1", CPU)
    assert made("x==1", tmp_path) == file


def test_another_version_or_a_broken_wheel_is_built(tmp_path: Path) -> None:
    file = kept("x==1", CPU)
    with pytest.raises(InstallError, match="/nowhere/python cannot be run"):
        made("x==2", tmp_path)
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(InstallError, match="/nowhere/python cannot be run"):
        made("x==1", tmp_path)


def test_other_settings_are_another_wheel() -> None:
    keys = {
        llama_wheel._key(name, variant, settings)
        for name in ("x==1", "x==2")
        for variant in (CPU, "12.4")
        for settings in ([], ["-DA=1"])
    }
    assert len(keys) == 8


def test_no_compiler_is_said_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InstallError, match=r"no C\+\+ compiler: install one"):
        made("x==1", tmp_path)


def test_no_cuda_compiler_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "g++"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InstallError, match=r"no nvcc: install the CUDA toolkit 12\.4"):
        llama_wheel.wheel("x==1", "12.4", "/nowhere", tmp_path / "log", lambda line: None)
