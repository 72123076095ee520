"""Lines of every process's log, and the files that they are in."""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from smmf_core import logs
from smmf_core.controller import log_files, process
from smmf_core.controller.log_files import LogFiles, file_name, owner_of

DAY_S = 86400.0


def child(path: Path, code: str, log_format: str = "text", level: str = "info") -> list[str]:
    """What a process with our logging, whose standard error is `path`, leaves there."""
    extra = {logs.FORMAT: log_format, logs.LEVEL: level, logs.NAME: "demo-0"}
    prelude = "import logging, sys; from smmf_core import logs; logs.set_up(); "
    prelude += "log = logging.getLogger('smmf.x')\n"
    with path.open("ab") as output:
        subprocess.run(
            [sys.executable, "-c", prelude + code],
            env={**os.environ, **extra}, stdout=output, stderr=output, timeout=60,
        )  # fmt: skip
    return path.read_text().splitlines()


def test_text(tmp_path: Path) -> None:
    code = "log.debug('no'); log.info('yes %d', 1); log.error('bad', extra={'request_id': 'r1'})"
    first, second = child(tmp_path / "log", code)
    assert logs.is_stamped(first)
    assert first[logs.STAMP_CHARS :] == " INFO smmf.x: yes 1"
    assert second[logs.STAMP_CHARS :] == " ERROR smmf.x: [r1] bad"
    assert logs.stamp_of(first) == first[: logs.STAMP_CHARS]


def test_json(tmp_path: Path) -> None:
    code = "log.warning('two\\nlines', extra={'request_id': 'r1'})\n"
    code += "import warnings; warnings.warn('so', UserWarning)"
    lines = child(tmp_path / "log", code, "json")
    assert len(lines) == 2
    fields = json.loads(lines[0])
    assert lines[0].startswith('{"time":"')
    assert logs.stamp_of(lines[0]) == fields.pop("time")
    assert fields == {
        "level": "warning",
        "process": "demo-0",
        "logger": "smmf.x",
        "message": "two\nlines",
        "request_id": "r1",
    }
    assert "UserWarning: so" in json.loads(lines[1])["message"]


def test_the_level_counts(tmp_path: Path) -> None:
    assert child(tmp_path / "log", "log.warning('no'); log.info('no')", level="error") == []
    assert len(child(tmp_path / "log", "log.debug('yes')", level="debug")) == 1


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_death_is_told_by_the_last_line(tmp_path: Path, log_format: str) -> None:
    child(tmp_path / "log", "print('loading'); raise ValueError('no weights')", log_format)
    assert process.last_line(tmp_path / "log") == "ValueError: no weights"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2026-11-21T15:30:56.123Z ERROR smmf.x: cannot load: no file", "cannot load: no file"),
        ("CUDA error: out of memory", "CUDA error: out of memory"),
        ('{"time":"x","message":"gone"}', "gone"),
        ('{"message":"it ends","exception":"Trace\\nValueError: bad"}', "ValueError: bad"),
        ('{"loss": 0.1}', '{"loss": 0.1}'),
        ("{not json", "{not json"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_message_of_a_line(line: str, message: str) -> None:
    assert logs.message_of(line) == message


def test_a_full_disk_ends_nobody(tmp_path: Path) -> None:
    """/dev/full answers every write as a full disk does."""
    done = tmp_path / "done"
    code = "import os, sys; log.error('x'); print('y' * 100000); print('z', file=sys.stderr)\n"
    code += f"sys.stdout.flush(); sys.stderr.flush(); open({str(done)!r}, 'w').close()"
    extra = {"PYTHONPATH": str(Path(logs.__file__).parents[1])}
    prelude = "import logging; from smmf_core import logs; logs.set_up(); "
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", f"{prelude}log = logging.getLogger()\n{code}"],
            env={**os.environ, **extra}, stdout=full, stderr=full, timeout=60,
        )  # fmt: skip
    assert done.exists()
    assert ended.returncode == 0


def test_the_controllers_own_file(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from smmf_core.config import Log\n"
        f"logs.set_up_file(Path({str(tmp_path)!r}) / 'controller.log', Log(format='json'))\n"
        "log.info('here')"
    )
    assert child(tmp_path / "stderr", code) == []
    fields = json.loads((tmp_path / "controller.log").read_text())
    assert (fields["process"], fields["message"]) == ("controller", "here")


def test_children_are_told_by_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(logs.LEVEL, raising=False)
    monkeypatch.delenv(logs.FORMAT, raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    logs.tell_children(logs.Log(level="debug", format="json"))
    told = logs.child_environment("demo-1")
    assert (told[logs.LEVEL], told[logs.FORMAT], told[logs.NAME]) == ("debug", "json", "demo-1")
    assert logs.child_environment("x", {"A": "1"}) == {"A": "1", logs.NAME: "x"}


# --- files ---


@pytest.mark.parametrize("name", ["demo-0", "Qwen/Qwen2.5-7B-0", "a b%-1", "模型-0"])
def test_a_workers_file_is_named_by_its_instance(name: str) -> None:
    file = file_name("worker", name)
    assert "/" not in file
    assert owner_of(Path(file)) == owner_of(Path(f"{file}.2")) == name


def test_names_of_files_do_not_meet_and_are_not_too_long() -> None:
    assert file_name("router", "router-0") != file_name("worker", "router-0")
    long = [file_name("worker", "模" * 300 + end) for end in "ab"]
    assert long[0] != long[1]
    assert all(len(name) < 255 for name in long)


@pytest.fixture
def files(tmp_path: Path) -> LogFiles:
    return LogFiles(tmp_path, retention_days=7, rotate_bytes=1000)


def test_a_large_log_goes_on_in_the_same_file(tmp_path: Path, files: LogFiles) -> None:
    """Its writer keeps its descriptor, in append mode, as every child does."""
    log = tmp_path / "worker-demo-0.log"
    with log.open("ab", buffering=0) as writer:
        for part in (b"a", b"b", b"c", b"d", b"e"):
            writer.write(part * 1001)
            files.tend({log.name})
        writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    kept = [log_files.rotated(log, number).read_bytes()[:1] for number in (1, 2, 3)]
    assert kept == [b"e", b"d", b"c"]
    assert len(list(tmp_path.iterdir())) == 1 + log_files.KEPT


def test_a_small_log_is_left_alone(tmp_path: Path, files: LogFiles) -> None:
    log = tmp_path / "router-0.log"
    log.write_bytes(b"x" * 1000)
    files.tend({log.name})
    assert [path.name for path in tmp_path.iterdir()] == [log.name]


def test_the_access_log_is_renamed(tmp_path: Path, files: LogFiles) -> None:
    log = tmp_path / "access.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 1001)
        files.tend(set())
        writer.write(b"not lost")
    assert not log.exists()
    assert log_files.rotated(log, 1).read_bytes().endswith(b"not lost")


def test_old_files_go_but_not_those_of_the_living(tmp_path: Path, files: LogFiles) -> None:
    names = ["worker-a-0.log", "worker-b-0.log", "worker-a-0.log.1", "access.log", "controller.log"]
    for name in names:
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "worker-c-0.log").write_text("x")
    files.tend({"worker-a-0.log"})
    left = {"worker-a-0.log", "worker-c-0.log", "access.log", "controller.log"}
    assert {path.name for path in tmp_path.iterdir()} == left
    files.tend({"worker-a-0.log"}, now=(tmp_path / "worker-c-0.log").stat().st_mtime + 7.1 * DAY_S)
    assert not (tmp_path / "worker-c-0.log").exists()


def test_no_room_for_a_copy(tmp_path: Path, files: LogFiles) -> None:
    """A limit on the size of files stands for a full disk."""
    log = tmp_path / "worker-demo-0.log"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    log.write_bytes(b"x" * 1500)
    with log.open("ab", buffering=0) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            files.tend({log.name})
            assert log.stat().st_size == 1500
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        writer.write(b"x" * 1000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            files.tend({log.name})
            assert log.stat().st_size == 0
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        writer.write(b"more")
    assert log.read_bytes() == b"more"
    assert [path.name for path in tmp_path.iterdir()] == [log.name]


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    LogFiles(tmp_path / "none", retention_days=1).tend(set())


def test_logging_of_this_process_is_untouched() -> None:
    assert not any(isinstance(h, logs._Descriptor) for h in logging.getLogger().handlers)
