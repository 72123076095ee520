"""`smmf engines install` for real: one whole engine, in a folder of its own; and what goes wrong.

llama-cpp is the one that shows most (it is compiled, its wheel is kept) and costs least.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines_env import require
from server import Server

from smmf_core.environments.catalog import ENGINES

INSTALL_S = 900.0  # with an empty wheel cache on a loaded machine
DEAD_INDEX = "http://127.0.0.1:9/simple"  # discard: nothing listens

require("llama-cpp")
pytestmark = pytest.mark.timeout(2 * INSTALL_S)


class Installs:
    """`smmf engines ...` with environments in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "SMMF_ENGINES_DIR": str(self.folder), **variables}
        return subprocess.Popen(
            [sys.executable, "-m", "smmf_core.cli.main", "engines", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """(exit status, stdout, stderr)"""
        with self.start(*arguments, **variables) as process:
            out, err = process.communicate(timeout=INSTALL_S)
        return process.returncode, out, err

    @property
    def python(self) -> Path:
        return self.folder / "llama-cpp" / "bin" / "python"


@pytest.fixture(scope="module")
def installs(tmp_path_factory: pytest.TempPathFactory) -> Installs:
    """Where llama-cpp is installed, after a first install that was killed in the middle."""
    made = Installs(tmp_path_factory.mktemp("engines"))
    with made.start("install", "llama-cpp", "--cpu") as first:
        assert first.stderr is not None
        for line in first.stderr:
            if "2/3" in line:
                break
        os.killpg(first.pid, signal.SIGKILL)
    assert not made.python.exists()
    assert list(made.folder.glob("llama-cpp-cpu-*")), "there is a rest of it"
    status, out, err = made.run("install", "llama-cpp", "--cpu")
    assert status == 0, err
    *steps, note = err.splitlines()
    assert [line.split()[1] for line in steps] == ["1/3", "2/3", "3/3"]
    assert note.endswith("has llama-cpp, too: that is what its models run on, as before")
    assert out.startswith("llama-cpp 0.3.36 (cpu) is in ")
    return made


def test_an_install_goes_on_where_one_was_killed(installs: Installs) -> None:
    assert installs.python.exists()
    assert len(list(installs.folder.glob("llama-cpp-cpu-*"))) == 1


def test_a_second_install_has_nothing_to_do(installs: Installs) -> None:
    status, out, err = installs.run("install", "llama-cpp", "--cpu", PIP_INDEX_URL=DEAD_INDEX)
    assert (status, len(err.splitlines())) == (0, 1)
    assert "is in" in out


def test_the_environment_has_the_engine_and_this_very_package(installs: Installs) -> None:
    code = (
        "import json, sys, llama_cpp, smmf_core, smmf_core.worker.main\n"
        "from smmf_core.plugins import load_backend\n"
        "load_backend('llama_cpp')\n"
        "from pathlib import Path\n"
        "files = [Path(m.__file__).resolve() for m in (llama_cpp, smmf_core)]\n"
        "print(json.dumps([sys.prefix, *map(str, files), 'torch' in sys.modules]))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [installs.python, "-c", code], capture_output=True, text=True, env=environment, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    prefix, engine, package, has_torch = json.loads(done.stdout)
    import smmf_core

    assert Path(prefix).resolve() == (installs.folder / "llama-cpp").resolve()
    assert Path(engine).is_relative_to(Path(prefix).resolve())
    assert package == str(Path(smmf_core.__file__).resolve())
    assert not has_torch


def test_two_installs_at_once_wait_for_each_other(installs: Installs) -> None:
    with (installs.folder / ".llama-cpp.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with installs.start("install", "llama-cpp", "--cpu") as other:
            assert other.stderr is not None
            said = other.stderr.readline()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert other.wait(timeout=INSTALL_S) == 0
    assert said == "smmf: another install of llama-cpp is running; waiting for it\n"


@pytest.fixture(scope="module")
def served(installs: Installs, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model whose Worker runs in the environment, and models that cannot be started."""
    folder = tmp_path_factory.mktemp("served")
    require_python = {
        "managed": str(installs.python),
        "nowhere": "/nowhere/python",
        "bare": str(bare_python(tmp_path_factory.mktemp("bare"))),
    }
    for name, python in require_python.items():
        (folder / f"local-{name}.toml").write_text(
            f'[model]\nname = "{name}"\nbackend = "echo"\n[deployment]\npython = "{python}"\n'
        )
    server = Server(folder).start()
    yield server
    assert server.stop() == 0


def bare_python(folder: Path) -> Path:
    """An interpreter that has nothing installed."""
    flags = ("--without-pip", str(folder / "venv"))
    subprocess.run([sys.executable, "-m", "venv", *flags], check=True)
    return folder / "venv" / "bin" / "python"


def completion(server: Server, model: str) -> tuple[int, Any]:
    body = {"model": model, "prompt": "x", "max_tokens": 3}
    status, _, answer = server.request("POST", "/v1/completions", body)
    return status, json.loads(answer)


def test_a_worker_runs_under_another_interpreter(served: Server) -> None:
    status, answer = completion(served, "managed")
    assert (status, answer["choices"][0]["text"]) == (200, " the quick brown")


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("nowhere", "[deployment] python: there is no interpreter /nowhere/python"),
        ("bare", "cannot run a worker: No module named 'msgspec'; it must be of the same Python"),
    ],
)
def test_an_interpreter_that_will_not_do_fails_its_model_at_once(
    served: Server, model: str, reason: str
) -> None:
    status, answer = completion(served, model)
    assert status == 503
    assert reason in answer["error"]["message"]
    details = served.admin("GET", f"/admin/v1/models/{model}")
    assert details["status"] == "failed"
    assert reason in details["reason"]


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """No index answers, and nothing is kept."""
    return {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": DEAD_INDEX,
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_RETRIES": "1",
        "PIP_NO_CACHE_DIR": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


def test_without_a_network_the_reason_is_said_and_nothing_is_left(
    tmp_path: Path, offline: dict[str, str]
) -> None:
    installs = Installs(tmp_path / "engines")
    status, out, err = installs.run("install", "mlx", "--cpu", **offline)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("smmf: cannot reach ")
    assert "check the network" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert [path.name for path in installs.folder.iterdir() if path.is_dir()] == []
    (log,) = installs.folder.glob("*.log")
    assert str(log) in err


def test_a_backend_that_is_not_installed_says_the_command(tmp_path: Path) -> None:
    """Under an interpreter that has no engine at all, with an empty folder of environments."""
    python = bare_python(tmp_path)
    site = next((tmp_path / "venv" / "lib").glob("python3*")) / "site-packages"
    for name in ("msgspec", "smmf_core"):
        module = __import__(name)
        (site / name).symlink_to(Path(module.__file__ or "").parent)
    file = tmp_path / "local-m.toml"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["SMMF_ENGINES_DIR"] = str(tmp_path / "none")
    for engine in ENGINES.values():
        file.write_text(f'[model]\nname = "m"\nbackend = "{engine.backend}"\npath = "x"\n')
        done = subprocess.run(
            [python, "-m", "smmf_core.cli.main", "check", str(file)],
            capture_output=True, text=True, env=environment,
        )  # fmt: skip
        hint = (
            f"backend '{engine.backend}' is not installed: run `smmf engines install {engine.name}`"
        )
        assert hint in done.stdout, done.stdout + done.stderr
