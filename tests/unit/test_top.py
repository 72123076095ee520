"""`smmf top`: which columns are shown, on any width; its sums. And how an event looks."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from smmf_core.cli import events, top

ROW: dict[str, Any] = {
    "id": "a-rather-long-model-name-0",
    "model": "a-rather-long-model-name",
    "state": "ready",
    "device": "cuda:0",
    "mem": 3 << 30,
    "in_flight": 2,
    "queue": 5,
    "tok_s": 12.34,
    "until": 90.0,
    "restarts": 1,
}
FOUND: dict[str, Any] = {
    "name": "default",
    "status": "ok",
    "uptime_s": 65,
    "models": 2,
    "models_ready": 1,
    "in_flight": 2,
    "queue": 5,
    "tok_s": 12.34,
    "mem": 3 << 30,
    "instances": [ROW],
}


def keys(rows: list[dict[str, Any]], width: int) -> list[str]:
    return [column.key for column in top.shown_columns(rows, width)]


def test_columns_without_any_value_are_left_out() -> None:
    shown = keys([ROW, {**ROW, "until": None}], 1000)
    assert "gpu_mem" not in shown
    assert "gpu_util" not in shown
    assert keys([{**ROW, "gpu_mem": 1, "gpu_util": 0.5}], 1000).count("gpu_mem") == 1
    assert keys([], 1000) == ["id", "state"]


def test_the_most_telling_columns_stay_on_a_narrow_terminal() -> None:
    all_of_them = keys([ROW], 1000)
    for width in range(10, 120):
        shown = keys([ROW], width)
        assert shown[0] == "id"
        assert [key for key in all_of_them if key in shown] == shown
    assert keys([ROW], 30) == ["id", "state", "tok_s"]
    assert keys([ROW], 1) == ["id"]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    rows = [{**ROW, "id": f"model-{n}-0"} for n in range(20)]
    console = Console(file=io.StringIO(), width=width, height=10, color_system=None)
    console.print(top._screen({**FOUND, "instances": rows}, "", width, 10))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= 10
    assert lines[-1].startswith("and 14 more")


def test_the_summary() -> None:
    assert top.summary(FOUND) == (
        "default: ok, up 1m 05s, models 1/2 ready, 2 running, 5 waiting, 12.3 tok/s, 3.0 GiB"
    )


def test_values() -> None:
    loading = {**ROW, "state": "loading", "progress": 0.42, "gpu_util": 0.5, "gpu_mem": 1 << 30}
    shown = {c.key: top.value(loading, c) for c in top.shown_columns([loading], 1000)}
    assert shown["state"] == "loading 42 %"
    assert shown["mem"] == "3.0 GiB"
    assert shown["gpu_util"] == "50 %"
    assert shown["until"] == "1m 30s"
    assert top.value({**ROW, "until": None}, top.COLUMNS[-1]) == "-"


def test_the_sums_count_a_models_queue_once() -> None:
    health = {"name": "x", "status": "ok", "started_at": 100.0, "models": 2, "ready": 2}
    busy = {**ROW, "model": "m", "queue": 7}
    idle = {**ROW, "model": "n", "queue": None, "in_flight": None, "tok_s": None, "mem": None}
    found = top.summed(health, [busy, busy, idle], 160.0)
    assert (found["queue"], found["in_flight"], found["tok_s"]) == (7, 4, 24.7)
    assert (found["mem"], found["uptime_s"]) == (6 << 30, 60.0)
    assert len(found["instances"]) == 3


def test_an_events_line() -> None:
    event = {"time": 1.5, "id": "demo-0", "state": "failed", "reason": "no file"}
    line = events.line(event)
    assert re.fullmatch(r"19\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.500 demo-0 +failed +no file", line)
    assert events.line({**event, "reason": ""}).endswith("failed")
