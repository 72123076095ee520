"""Managed environments that are replaced: none goes while a process runs from it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smmf_core.environments import in_use, managed
from smmf_core.environments.managed import Stamp

STAMP = Stamp("mlx", "cpu", "1.0", "3.11.7", "cpu")
MAPS = "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, prot=1); "


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SMMF_ENGINES_DIR", str(tmp_path / "engines"))
    return tmp_path / "engines"


def make(engines: Path, key: str) -> Path:
    folder = engines / f"mlx-cpu-{key}"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "library.so").write_bytes(b"x" * 4096)
    managed.write_stamp(folder, STAMP)
    return folder


@pytest.fixture(params=["its interpreter", "a library"])
def old(request: pytest.FixtureRequest, engines: Path) -> Iterator[tuple[Path, User]]:
    folder = make(engines, "old")
    managed.make_current("mlx", folder)
    user = User(folder, request.param)
    yield folder, user
    user.end()


class User:
    """A process that runs from an environment."""

    def __init__(self, folder: Path, what: str) -> None:
        tell = "print(1, flush=True); input()"
        command = [str(folder / "bin" / "python"), "-c", tell]
        if what == "a library":
            command = [sys.executable, "-c", MAPS + tell, str(folder / "library.so")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"1\n"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_what_is_used_stays_until_it_is_not(engines: Path, old: tuple[Path, User]) -> None:
    folder, user = old
    new = make(engines, "new")
    managed.make_current("mlx", new)
    found = managed.find("mlx")
    assert found is not None
    assert found.folder == new
    assert folder.exists()
    assert in_use.users(folder) == [user.process.pid]
    managed.remove_former("mlx")
    assert managed.read_stamp(folder) == STAMP
    user.end()
    managed.remove_former("mlx")
    assert not folder.exists()
    assert managed.read_stamp(new) == STAMP


def test_what_nobody_uses_goes_at_once(engines: Path) -> None:
    old = make(engines, "old")
    managed.make_current("mlx", old)
    managed.make_current("mlx", make(engines, "new"))
    assert not old.exists()
    assert managed.find("mlx") is not None


def test_nothing_goes_while_an_install_is_under_way(engines: Path) -> None:
    new = make(engines, "new")
    managed.make_current("mlx", new)
    half = engines / "mlx-cpu-half"
    half.mkdir()
    with managed.locked("mlx"):
        managed.remove_former("mlx")
        assert half.exists()
    managed.remove_former("mlx")
    assert not half.exists()


def test_a_system_that_does_not_tell_keeps_all(
    engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = make(engines, "old"), make(engines, "new")
    monkeypatch.setattr(in_use, "can_tell", lambda: False)
    managed.make_current("mlx", old)
    managed.make_current("mlx", new)
    assert old.exists()
    assert managed.remove("mlx")
    assert not old.exists()


def test_this_process_uses_where_it_runs(tmp_path: Path) -> None:
    assert in_use.can_tell()
    assert os.getpid() in in_use.users(Path(sys.executable).parent.parent)
    assert in_use.users(tmp_path) == []
