"""What is free, from the files of a machine and of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from smmf_core.engines.host_memory import free_bytes

MEMINFO = "MemTotal:       24000000 kB\nMemFree:         1000 kB\nMemAvailable:   4096 kB\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4096 << 10),
        ({"memory.max": "max\n", "memory.current": "100\n"}, 4096 << 10),
        ({"memory.max": "5000\n", "memory.current": "3000\n"}, 2000),
        (
            {
                "memory.max": "5000\n",
                "memory.current": "3000\n",
                "memory.stat": "anon 7\ninactive_file 600\n",
            },
            2600,
        ),
        ({"memory.max": "99000000000\n", "memory.current": "0\n"}, 4096 << 10),
    ],
)
def test_the_lesser_of_machine_and_container(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(MEMINFO)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert free_bytes(meminfo, tmp_path) == expected


def test_where_nothing_tells(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "none", tmp_path) > 1 << 20


def test_this_machine() -> None:
    assert free_bytes() > 1 << 20
