"""The files in the run directory's `logs`: their names, their rotation, how long they stay.

A child writes by its own descriptor, natives and dying interpreters too, and cannot be asked to
reopen it; but it appends, so its file is copied and then cut to nothing. Routers look for their
access.log before each write, so that one is renamed, and loses no line. Owns these files from
outside; must not write into one. A full disk costs lines, never a process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from urllib.parse import quote, unquote

ROTATE_BYTES = 8 << 20  # with KEPT more of that size a process takes 32 MiB of what may be memory
KEPT = 3  # rotated files of one log: `.1` is the newest
ACCESS = "access.log"
CONTROLLER = "controller.log"
_WORKER = "worker-"
_NAME_CHARS = 200  # a file's name has 255 bytes at most
_ROUNDS = 8  # of copying what came while the last copy was made
_DAY_S = 86400.0


def file_name(role: str, name: str) -> str:
    """Of a child's log: its name, with a word before a Worker's, which a user has chosen."""
    if role != "worker":
        return f"{name}.log"
    quoted = quote(name, safe="")
    if len(quoted) > _NAME_CHARS:
        quoted = f"{quoted[:_NAME_CHARS]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{_WORKER}{quoted}.log"


def owner_of(log: Path) -> str:
    """Whose log it is, or was: an instance, "router-0", "controller", "access"."""
    return unquote(log.name.partition(".log")[0].removeprefix(_WORKER))


class LogFiles:
    """All logs of one server; `tend` looks after them."""

    def __init__(
        self, folder: Path, retention_days: float, rotate_bytes: int = ROTATE_BYTES
    ) -> None:
        self._folder = folder
        self._retention_s = retention_days * _DAY_S
        self._rotate_bytes = rotate_bytes

    def tend(self, living: set[str], now: float | None = None) -> None:
        """Rotate what is large, remove what is old. `living`: the names of files whose process
        runs, which are never removed. Never raises; made to be called once a second."""
        oldest = (time.time() if now is None else now) - self._retention_s
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(self._folder)):
                with contextlib.suppress(OSError):
                    self._look_at(entry, living, oldest)

    def _look_at(self, entry: os.DirEntry[str], living: set[str], oldest: float) -> None:
        found, log = entry.stat(), Path(entry.path)
        is_current = entry.name.endswith(".log")
        is_lasting = is_current and entry.name in {*living, ACCESS, CONTROLLER}
        if found.st_mtime < oldest and not is_lasting:
            log.unlink()
        elif is_current and found.st_size > self._rotate_bytes:
            self._rotate(log, found.st_size)

    def _rotate(self, log: Path, size: int) -> None:
        for number in range(KEPT - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                rotated(log, number).replace(rotated(log, number + 1))
        if log.name == ACCESS:
            log.replace(rotated(log, 1))
            return
        try:
            _copy_and_cut(log, rotated(log, 1))
        except OSError:  # no room for a copy: it may grow a while, not for ever
            if size > 2 * self._rotate_bytes:
                os.truncate(log, 0)


def rotated(log: Path, number: int) -> Path:
    """A former part of a log; number 1 is the newest."""
    return log.with_name(f"{log.name}.{number}")


def _copy_and_cut(log: Path, copy: Path) -> None:
    """What is written between the last look and the cut, some microseconds, is lost."""
    part = copy.with_name(f"{copy.name}.part")
    try:
        with log.open("r+b") as source, part.open("wb") as target:
            done = 0
            for _ in range(_ROUNDS):
                left = os.fstat(source.fileno()).st_size - done
                if left <= 0:
                    break
                done += os.sendfile(target.fileno(), source.fileno(), done, left)
            source.truncate(0)
        part.replace(copy)
    finally:
        part.unlink(missing_ok=True)
