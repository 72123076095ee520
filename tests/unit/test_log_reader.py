"""The last lines of logs, merged by time, and what comes after, over rotations of both kinds."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from smmf_core.cli.logs import is_about
from smmf_core.controller.log_files import LogFiles, file_name
from smmf_core.controller.log_reader import Cursor, logs_of, read_on, tail


def stamped(second: int, text: str = "x") -> str:
    return f"2026-11-21T15:00:{second:02}.000Z INFO smmf: {text}\n"


def texts(lines: list) -> list[str]:
    return [line.text.rpartition(": ")[2] for line in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "worker-a-0.log").write_text(stamped(1, "1") + "a traceback\n" + stamped(4, "4"))
    (tmp_path / "worker-a-1.log").write_text(stamped(2, "2") + stamped(3, "3"))
    (tmp_path / "worker-a-b-0.log").write_text(stamped(5, "5"))
    (tmp_path / "router-0.log").write_text(stamped(0, "0"))
    (tmp_path / "access.log").write_text("access\n")
    return tmp_path


def test_names_are_instances_models_and_processes(folder: Path) -> None:
    def named(*names: str) -> list[str]:
        return [path.name for path in logs_of(folder, list(names))]

    assert named("a") == ["worker-a-0.log", "worker-a-1.log"]
    assert named("a-1") == ["worker-a-1.log"]
    assert named("router-0", "a-b") == ["router-0.log", "worker-a-b-0.log"]
    assert named("none") == named("b") == named("a.0") == []
    assert len(named()) == 4
    (folder / file_name("worker", "org/m-0")).touch()
    assert named("org/m") == ["worker-org%2Fm-0.log"]


def test_lines_are_merged_by_time_and_a_traceback_stays_with_its_line(folder: Path) -> None:
    lines, _ = tail(logs_of(folder, []), 100)
    assert texts(lines) == ["0", "1", "a traceback", "2", "3", "4", "5"]
    assert [line.owner for line in lines[:3]] == ["router-0", "a-0", "a-0"]
    assert texts(tail(logs_of(folder, []), 2)[0]) == ["4", "5"]
    assert tail(logs_of(folder, []), 0)[0] == []


def test_the_tail_reaches_into_rotated_files(tmp_path: Path) -> None:
    log = tmp_path / "router-0.log"
    log.write_text(stamped(9, "9"))
    (tmp_path / "router-0.log.1").write_text("".join(stamped(n, str(n)) for n in range(5, 9)))
    (tmp_path / "router-0.log.2").write_text("".join(stamped(n, str(n)) for n in range(5)))
    assert texts(tail([log], 3)[0]) == ["7", "8", "9"]
    assert texts(tail([log], 100)[0]) == [str(n) for n in range(10)]


def test_the_tail_of_a_large_file(tmp_path: Path) -> None:
    log = tmp_path / "router-0.log"
    log.write_text("".join(stamped(n % 60, f"{n}" + "好" * 50) for n in range(5000)))
    lines, cursor = tail([log], 1000)
    assert len(lines) == 1000
    assert lines[0].text.endswith(" 4000" + "好" * 50)
    assert cursor["router-0.log"][1] == log.stat().st_size


def test_reading_on(folder: Path) -> None:
    logs = logs_of(folder, [])
    _, cursor = tail(logs, 1)
    with (folder / "worker-a-0.log").open("a") as file:
        file.write(stamped(6, "6") + "half a")
    (folder / "worker-new-0.log").write_text(stamped(7, "7"))
    cursor = through_json(cursor)
    lines, cursor = read_on(logs_of(folder, []), cursor)
    assert texts(lines) == ["6", "7"]
    with (folder / "worker-a-0.log").open("a") as file:
        file.write(" line\n")
    lines, cursor = read_on(logs_of(folder, []), cursor)
    assert texts(lines) == ["half a line"]
    assert read_on(logs_of(folder, []), cursor)[0] == []


def through_json(cursor: Cursor) -> Cursor:
    return msgspec.json.decode(msgspec.json.encode(cursor), type=Cursor)


@pytest.mark.parametrize("name", ["worker-a-0.log", "access.log"])
def test_reading_on_over_a_rotation(tmp_path: Path, name: str) -> None:
    """By copy and by renaming; what came just before it is not lost either."""
    log = tmp_path / name
    log.write_text(stamped(0, "0") + stamped(1, "x" * 500))
    _, cursor = tail([log], 1)
    with log.open("a") as file:
        file.write(stamped(2, "2"))
    LogFiles(tmp_path, 7, rotate_bytes=100).tend({name})
    lines, after = read_on([log], cursor)
    with log.open("a") as file:
        file.write(stamped(3, "3"))
    more, after = read_on([log], after)
    assert texts(lines + more) == ["2", "3"]


def test_a_log_that_is_gone(folder: Path) -> None:
    logs = logs_of(folder, ["a"])
    _, cursor = tail(logs, 1)
    logs[0].unlink()
    lines, cursor = read_on(logs, cursor)
    assert lines == []
    assert texts(tail(logs, 10)[0]) == ["2", "3"]


def test_a_progress_bar_counts_as_its_last_state(tmp_path: Path) -> None:
    log = tmp_path / "router-0.log"
    log.write_bytes(b" 10 %\r 50 %\r100 %\nline\r\n\xff\n")
    assert [line.text for line in tail([log], 10)[0]] == ["100 %", "line", "\ufffd"]


def test_a_line_without_an_end_does_not_stop_the_reader(tmp_path: Path) -> None:
    log = tmp_path / "router-0.log"
    log.write_text("")
    _, cursor = tail([log], 1)
    log.write_text("x" * (3 << 20))
    lines, cursor = read_on([log], cursor)
    assert [len(line.text) for line in lines] == [16 << 10]
    assert cursor["router-0.log"][1] == 1 << 20


def test_lines_of_the_access_log_are_found_by_model_and_instance() -> None:
    text = "T req_1 key=0 model=a instance=a-0 route=chat status=200 finish=stop stream=yes"
    as_json = '{"time":"T","model":"a","instance":"a-0"}'
    for line in (text, as_json):
        assert is_about(line, [])
        assert is_about(line, ["b", "a"])
        assert is_about(line, ["a-0"])
        assert not is_about(line, ["b", "chat"])
    assert not is_about("{torn", ["a"])
    assert is_about(' model="a b" instance=- ', ["a b"])
