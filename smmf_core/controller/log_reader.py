"""Reads logs: their last lines, and on from there while they grow and are rotated.

Stateless: a Cursor says how far a reader is, and survives a trip through JSON. Must not write, and
must not know who asks.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from smmf_core.controller.log_files import ACCESS, KEPT, file_name, owner_of, rotated
from smmf_core.logs import stamp_of

_BLOCK_BYTES = 64 << 10
_STEP_BYTES = 1 << 20  # of one log in one look; the rest comes with the next
_LONGEST_LINE = 1 << 20  # a line without an end is taken, or nobody would ever see it
_SHOWN_CHARS = 16 << 10  # of a line

Cursor = dict[str, tuple[int, int]]
"""Of each file by its name: (inode, offset of the next unread line)."""


class Line(NamedTuple):
    owner: str
    text: str


def logs_of(folder: Path, names: list[str]) -> list[Path]:
    """The files of instances, of models, of "controller" and Routers; without names all but
    access.log. A name that has none is left out."""
    found = sorted(path for path in folder.glob("*.log") if path.name != ACCESS)
    if not names:
        return found
    return [log for log in found if any(_is_of(log, name) for name in names)]


def tail(logs: list[Path], count: int) -> tuple[list[Line], Cursor]:
    """The last `count` lines of all, in the order of their times, and where reading goes on."""
    cursor: Cursor = {}
    parts = []
    for log in logs:
        try:
            with log.open("rb") as file:
                found = os.fstat(file.fileno())
                lines, end = _last_lines(file.fileno(), found.st_size, count)
        except OSError:
            continue
        cursor[log.name] = (found.st_ino, end)
        for number in range(1, KEPT + 1):
            if len(lines) >= count:
                break
            lines = _former_lines(rotated(log, number), count - len(lines)) + lines
        parts.append(list(_timed(owner_of(log), lines)))
    return _merged(parts)[-count:] if count else [], cursor


def read_on(logs: list[Path], cursor: Cursor) -> tuple[list[Line], Cursor]:
    """What came since; of logs that the cursor does not know, all."""
    after: Cursor = {}
    parts = []
    for log in logs:
        try:
            lines, after[log.name] = _read_one(log, cursor.get(log.name, (0, 0)))
        except OSError:  # rotated in this moment, or removed
            if log.name in cursor:
                after[log.name] = cursor[log.name]
            continue
        parts.append(list(_timed(owner_of(log), lines)))
    return _merged(parts), after


def _is_of(log: Path, name: str) -> bool:
    """An instance's own log, or one of a model's instances'."""
    owner = owner_of(log)
    is_replica = re.fullmatch(re.escape(name) + r"-\d+", owner) is not None
    return owner == name or is_replica or log.name == file_name("worker", name)


def _read_one(log: Path, at: tuple[int, int]) -> tuple[list[str], tuple[int, int]]:
    """From `at` to the last whole line. It was rotated when the file is another one or shorter:
    then the rest of the former one comes first."""
    inode, offset = at
    lines: list[str] = []
    with log.open("rb") as file:
        found = os.fstat(file.fileno())
        if inode and (found.st_ino != inode or found.st_size < offset):
            lines, offset = _rest_of(rotated(log, 1), offset), 0
        data = os.pread(file.fileno(), _STEP_BYTES, offset)
    whole = data.rfind(b"\n") + 1
    if not whole and len(data) >= _LONGEST_LINE:
        whole = len(data)
    return lines + _split(data[:whole]), (found.st_ino, offset + whole)


def _rest_of(former: Path, offset: int) -> list[str]:
    try:
        with former.open("rb") as file:
            return _split(os.pread(file.fileno(), _STEP_BYTES, offset))
    except OSError:
        return []


def _former_lines(log: Path, count: int) -> list[str]:
    try:
        with log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return _last_lines(file.fileno(), size, count)[0]
    except OSError:
        return []


def _last_lines(fd: int, size: int, count: int) -> tuple[list[str], int]:
    """Of the first `size` bytes: the last whole lines, and where they end."""
    start, data, block = size, b"", _BLOCK_BYTES
    while start > 0 and data.count(b"\n") <= count:
        start, block = max(0, start - block), 2 * block  # a few looks, however long a line is
        data = os.pread(fd, size - start, start)
    whole = data.rfind(b"\n") + 1
    lines = _split(data[:whole])
    return lines[-count:] if count else [], start + whole


def _split(data: bytes) -> list[str]:
    """Of a progress bar that was drawn over itself, the last state."""
    lines = data.decode(errors="replace").split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.rstrip("\r").rpartition("\r")[2][:_SHOWN_CHARS] for line in lines]


def _timed(owner: str, lines: list[str]) -> Iterator[tuple[str, Line]]:
    """Each with its time; a line without one belongs to the line before."""
    stamp = ""
    for text in lines:
        stamp = stamp_of(text) or stamp
        yield stamp, Line(owner, text)


def _merged(parts: list[list[tuple[str, Line]]]) -> list[Line]:
    return [line for _, line in heapq.merge(*parts, key=lambda timed: timed[0])]
