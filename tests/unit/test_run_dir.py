"""The run directory: private, locked, short enough for sockets; processes and their start times."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from smmf_core.controller import process
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


def test_a_pid_alone_proves_nothing() -> None:
    started = process.start_time(os.getpid())
    assert started is not None
    assert process.find(os.getpid(), started + 1) is None
    found = process.find(os.getpid(), started)
    assert found is not None
    os.close(found.pidfd)
    assert process.start_time(0) is None


def test_memory_is_told_in_bytes() -> None:
    assert 1 << 20 < process.memory_bytes(os.getpid()) < 1 << 36
    assert process.memory_bytes(0) == 0


_FAMILY = """
import os, select, signal, sys, time
from pathlib import Path
from smmf_core.controller import process
process.become_subreaper()
log = Path(sys.argv[1])
code = "import os, time\\nif os.fork() == 0:\\n    time.sleep(600)\\nprint(1); os._exit(3)"
child = process.spawn([sys.executable, "-c", code], log)
select.select([child.pidfd], [], [])
stranger = os.fork()  # somebody's zombie, not a Process of ours
if stranger == 0:
    os._exit(0)
print(child.bury())
until = time.monotonic() + 30
while time.monotonic() < until:
    process.reap_strangers(set())
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        print("no one is left")
        break
    time.sleep(0.01)
"""


def test_a_childs_children_end_with_it_and_nobody_stays_a_zombie(base: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FAMILY, str(base / "log")], capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["exited with status 3", "no one is left"], done.stderr


def test_a_large_log_is_kept_once(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOG_BYTES", 10)
    log = base / "worker-0.log"
    log.write_text("x" * 20)
    process.spawn([sys.executable, "-c", "print('new')"], log).bury()
    assert (base / "worker-0.log.1").read_text() == "x" * 20
