"""access.log: the form of its lines, one write a flush, rotation by renaming, a full disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from smmf_core.config import Log
from smmf_core.http.access_log import GATHERED, AccessLog, AccessRecord, access_log, fields_of

AT = 1_800_000_000.0425
RECORD = AccessRecord(
    AT, "req_1a", "k5x", "demo", "demo-0", "chat", 200, 0.0001, 0.0123, 1.5, 12, 32, 4, "stop", True
)  # fmt: skip
REFUSED = AccessRecord(
    AT, "req_1b", "", "none", "", "chat", 404, None, None, 0.00005, 0, 0, 0,
    "model_not_found", False,
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


def written(path: Path, *records: AccessRecord, is_json: bool = False) -> list[str]:
    log = AccessLog(path, is_json)
    for record in records:
        log.add(record)
    log.close()
    return path.read_text().splitlines()


def test_a_line_of_text(path: Path) -> None:
    whole, refused = written(path, RECORD, REFUSED)
    assert whole == (
        "2027-01-15T08:00:00.042Z req_1a key=k5x model=demo instance=demo-0 route=chat status=200 "
        "queue_ms=0.100 first_token_ms=12.300 total_ms=1500.000 prompt=12 generated=32 cached=4 "
        "finish=stop stream=yes"
    )
    assert "key=- model=none instance=- route=chat status=404 queue_ms=- first_token" in refused
    assert refused.endswith("finish=model_not_found stream=no")


def test_a_line_of_json(path: Path) -> None:
    whole, refused = map(json.loads, written(path, RECORD, REFUSED, is_json=True))
    assert whole == {
        "time": "2027-01-15T08:00:00.042Z",
        "request_id": "req_1a",
        "key": "k5x",
        "model": "demo",
        "instance": "demo-0",
        "route": "chat",
        "status": 200,
        "queue_ms": 0.1,
        "first_token_ms": 12.3,
        "total_ms": 1500.0,
        "prompt_tokens": 12,
        "generated_tokens": 32,
        "cached_tokens": 4,
        "finish": "stop",
        "stream": True,
    }
    assert refused["key"] is refused["instance"] is refused["first_token_ms"] is None


@pytest.mark.parametrize("model", ["demo", "a b=c", "好", "-1", "true", "a:b", 'say "x"'])
def test_both_forms_are_read_to_the_same(path: Path, model: str) -> None:
    record = msgspec.structs.replace(RECORD, model=model)
    text = [fields_of(line) for line in written(path, record, REFUSED)]
    path.unlink()
    assert text == [fields_of(line) for line in written(path, record, REFUSED, is_json=True)]
    assert text[0]["model"] == model


@pytest.mark.parametrize("line", ["", "torn", "2027-01-15T08:00:00.042Z req", '{"time":"20'])
def test_a_torn_line_is_no_record(line: str) -> None:
    with pytest.raises(ValueError):
        fields_of(line)


@pytest.mark.parametrize(
    "name",
    ["a\nb", "a status=200", 'a"b', "a\\b", "a\u2028b", "a\u202eb", "\ud800", "x" * 10_000, "好"],
)
def test_no_name_can_look_like_another_field_or_line(path: Path, name: str) -> None:
    record = msgspec.structs.replace(RECORD, model=name)
    (line,) = written(path, record)
    assert len(line) < 500
    assert line.count(" status=") == 1 + ("status" in name)
    assert line.partition(" instance=")[2].startswith("demo-0 ")
    path.unlink()
    (line,) = written(path, record, is_json=True)
    assert json.loads(line)["model"] == name[:200]


def test_the_second_changes_with_the_clock(path: Path) -> None:
    later = msgspec.structs.replace(RECORD, time=AT + 61)
    first, second = written(path, RECORD, later)
    assert (first[:24], second[:24]) == ("2027-01-15T08:00:00.042Z", "2027-01-15T08:01:01.042Z")


def test_a_burst_is_written_before_the_flush(path: Path) -> None:
    log = AccessLog(path, is_json=False)
    for _ in range(GATHERED - 1):
        log.add(RECORD)
    assert not path.exists()
    log.add(RECORD)
    assert len(path.read_text().splitlines()) == GATHERED
    log.close()


def test_routers_share_the_file_and_see_that_it_was_renamed(path: Path) -> None:
    first, second = AccessLog(path, False), AccessLog(path, False)
    for log in (first, second):
        log.add(RECORD)
        log.flush()
    path.rename(path.with_name("access.log.1"))
    for log in (first, second):
        log.add(RECORD)
        log.flush()
    assert len(path.read_text().splitlines()) == 2
    assert len(path.with_name("access.log.1").read_text().splitlines()) == 2
    first.close()
    second.close()


def test_a_folder_that_is_gone_costs_lines_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    log = AccessLog(folder / "access.log", is_json=False)
    for _ in range(3 * GATHERED):
        log.add(RECORD)
    log.flush()
    assert log.lost == 3 * GATHERED
    folder.mkdir()
    log.add(RECORD)
    log.close()
    assert len((folder / "access.log").read_text().splitlines()) == 1
    assert f"{3 * GATHERED} lines" in caplog.text
    assert log.lost == 0


def test_a_full_disk_costs_lines_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AccessLog(path, is_json=False)
    room = [150]  # bytes, less than two lines
    write = os.write

    def short(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        sent = write(fd, data[: room[0]])
        room[0] -= sent
        return sent

    monkeypatch.setattr(os, "write", short)
    for _ in range(3):
        log.add(RECORD)
        log.flush()
    assert log.lost == 3
    monkeypatch.setattr(os, "write", write)
    log.add(RECORD)
    log.close()
    torn, whole = path.read_text().splitlines()
    assert len(torn) == 150
    assert whole.endswith("stream=yes")


def test_it_can_be_turned_off(tmp_path: Path) -> None:
    assert access_log(tmp_path, Log(requests="off")) is None
    assert access_log(tmp_path, Log()) is not None
