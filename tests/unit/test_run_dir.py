"""The run directory: private, locked, short enough for sockets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from smmf_core.controller.run_dir import ChildRecord, RunDir
from smmf_core.errors import ControlError


@pytest.fixture
def base() -> Iterator[Path]:
    with TemporaryDirectory() as path:
        yield Path(path)


def test_it_is_made_for_its_user_alone(base: Path) -> None:
    path = base / "smmf" / "x"
    path.mkdir(parents=True, mode=0o755)
    run_dir = RunDir(path)
    assert path.stat().st_mode & 0o777 == 0o700
    assert run_dir.logs.stat().st_mode & 0o777 == 0o700


def test_a_link_is_not_followed(base: Path) -> None:
    (base / "elsewhere").mkdir()
    (base / "x").symlink_to(base / "elsewhere")
    with pytest.raises(ControlError, match="not a folder of this user"):
        RunDir(base / "x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(base: Path) -> None:
    (base / "x").mkdir()
    os.chown(base / "x", 12345, 12345)
    with pytest.raises(ControlError, match="not a folder of this user"):
        RunDir(base / "x")


def test_a_place_where_others_could_replace_it_is_refused(base: Path) -> None:
    open_place = base / "open"
    open_place.mkdir()
    open_place.chmod(0o777)
    with pytest.raises(ControlError, match="open to all"):
        RunDir(open_place / "x")
    open_place.chmod(0o1777)  # as /tmp
    RunDir(open_place / "x")


def test_sockets_must_fit(base: Path) -> None:
    with pytest.raises(ControlError, match="too long"):
        RunDir(base / ("x" * 80))
    longest = RunDir(base / ("x" * (83 - len(str(base)))))
    endpoint = longest.endpoint(999, 999_999).removeprefix("ipc://")
    assert len(endpoint) == 107


def test_only_one_may_lock_it_and_the_other_is_named(base: Path) -> None:
    path = base / "x"
    code = (
        "import sys, pathlib; from smmf_core.controller.run_dir import RunDir\n"
        f"RunDir(pathlib.Path({str(path)!r})).lock('n'); print('locked', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    with pytest.raises(ControlError, match=f"'n' runs already .pid {holder.pid},"):
        RunDir(path).lock("n")
    holder.communicate("\n")
    RunDir(path).lock("n")


def test_records_survive_and_a_broken_file_is_none(base: Path) -> None:
    run_dir = RunDir(base / "x")
    assert run_dir.load() == []
    records = [ChildRecord("worker", 1, "m-0", 2, 33, 44, "m", 5), ChildRecord("controller")]
    run_dir.save(records)
    assert run_dir.load() == records
    (base / "x" / "children.json").write_text('[{"role": 1}]')
    assert run_dir.load() == []


def test_sockets_of_routers_that_do_not_live_are_removed(base: Path) -> None:
    run_dir = RunDir(base / "x")
    for router, epoch in ((0, 1), (0, 2), (1, 1)):
        Path(run_dir.endpoint(router, epoch).removeprefix("ipc://")).touch()
    run_dir.clear({(0, 2)})
    assert [path.name for path in run_dir.path.glob("router-*")] == ["router-0-2.sock"]
