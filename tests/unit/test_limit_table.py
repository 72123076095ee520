"""The table of limits from Python: two processes on one file, and what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smmf_core.native._limits import ROUTERS, ROWS, LimitTable

NOW = 1_800_000_000
MONTH = 24_324
FREE = (0, 0, 0, 0, MONTH, 1)  # no limits, and one token
TAKES = """
import sys
from smmf_core.native._limits import LimitTable
table = LimitTable.map(0)
router = int(sys.argv[1])
taken = [table.take(4, 1_800_000_000, 500, 0, 0, 0, 24000, 1, router) for _ in range(2000)]
opened = [table.take(5, 1_800_000_000, 0, 0, 300, 0, 24000, 1, router) for _ in range(2000)]
print(taken.count(0), opened.count(0))
"""


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "limits", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def test_processes_share_what_is_left(fd: int) -> None:
    table = LimitTable.create(fd)
    routers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKES, str(router)], stdin=fd, stdout=subprocess.PIPE, text=True
        )
        for router in (1, 2)
    ]
    counts = [[int(word) for word in router.communicate()[0].split()] for router in routers]
    assert [router.returncode for router in routers] == [0, 0]
    assert sum(taken for taken, _ in counts) == 500
    assert sum(opened for _, opened in counts) == 300
    assert table.state(4, NOW)[0] == 500
    table.forget_router(1)
    assert table.state(5, NOW)[2] == counts[1][1]
    table.forget_router(2)
    assert table.state(5, NOW)[2] == 0


def test_a_later_process_finds_the_table(fd: int) -> None:
    assert LimitTable.create(fd).take(7, NOW, *FREE, 0) == 0
    assert LimitTable.create(fd).state(7, NOW) == (1, 1, 1, 60, 1)
    assert LimitTable.map(fd).windows(7, NOW + 20) == (1, 40, 1, 40)


def test_what_is_no_table_is_not_mapped(fd: int) -> None:
    with pytest.raises(OSError, match="Protocol"):
        LimitTable.map(fd)
    with pytest.raises(OSError, match="Bad file"):
        LimitTable.create(-1)


def test_a_budget_is_of_one_month(fd: int) -> None:
    table = LimitTable.create(fd)
    table.add_month(0, MONTH, 90)
    assert table.take(0, NOW, 0, 0, 0, 100, MONTH, 11, 0) == 4
    assert table.take(0, NOW, 0, 0, 0, 100, MONTH, 10, 0) == 0
    table.settle(0, NOW, NOW, 10, 10, MONTH, 0)
    assert table.state(0, NOW, MONTH)[4] == table.state(0, NOW)[4] == 100
    assert table.state(0, NOW, MONTH + 1)[4] == 0
    assert table.take(0, NOW, 0, 0, 0, 100, MONTH + 1, 10, 0) == 0
    table.forget(0)
    assert table.state(0, NOW) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(("slot", "router"), [(ROWS, 0), (-1, 0), (0, ROUTERS), (0, -1)])
def test_there_is_nothing_outside_the_table(fd: int, slot: int, router: int) -> None:
    table = LimitTable.create(fd)
    with pytest.raises(ValueError, match="is not one of"):
        table.take(slot, NOW, *FREE, router)
