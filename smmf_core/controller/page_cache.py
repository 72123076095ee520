"""Weight files of often-used models in the page cache: what was unloaded loads again from memory.

Owns which files are worth it and a thread that reads them ahead; must not hold a
weight itself: cached pages are the kernel's, which gives them up whenever a program needs memory.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

HALF_LIFE_S = 3600.0  # of a request's weight in a model's popularity: an hour ago counts half
CHUNK_BYTES = 1 << 20  # read at once: between two of them a newer wish is looked at
CLOSE_S = 1.0  # a disk that does not answer keeps nobody from ending
NICE = 10  # of the thread: whatever serves goes first
_LIBC = ctypes.CDLL(None, use_errno=True)


class Popularity:
    """How much each model is asked for, of late."""

    def __init__(self) -> None:
        self._scores: dict[int, tuple[float, float]] = {}  # model -> (score, when)

    def used(self, model: int, requests: int, now: float) -> None:
        self._scores[model] = (self.score(model, now) + requests, now)

    def score(self, model: int, now: float) -> float:
        score, when = self._scores.get(model, (0.0, now))
        return score * math.exp2((when - now) / HALF_LIFE_S)

    def forget(self, model: int) -> None:
        self._scores.pop(model, None)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is not loaded."""

    score: float
    files: tuple[Path, ...]
    size_bytes: int  # of the files


def choose(candidates: Iterable[Candidate], room_bytes: int) -> list[Path]:
    """The files of the most asked for that fit together; one that does not is passed over."""
    chosen: list[Path] = []
    for candidate in sorted(candidates, key=lambda candidate: -candidate.score):
        if candidate.score > 0 and candidate.size_bytes <= room_bytes:
            room_bytes -= candidate.size_bytes
            chosen += candidate.files
    return chosen


class ReadAhead:
    """One thread that reads files into the page cache. The last wish counts; `wish([])`, before
    anything else needs the disk, ends it after the current chunk."""

    def __init__(self) -> None:
        self._wished: list[Path] | None = None
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        self._thread.start()

    def wish(self, files: Sequence[Path]) -> None:
        """Never blocks."""
        with self._changed:
            self._wished = list(files)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        if sys.platform == "linux":  # there a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while (files := self._next()) is not None:
            for file in files:
                read(file, self._goes_on)

    def _next(self) -> list[Path] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._wished is not None)
            files, self._wished = self._wished, None
            return None if self._is_closed else files

    def _goes_on(self) -> bool:
        return not self._is_closed and self._wished is None


def read(file: Path, goes_on: Callable[[], bool]) -> None:
    """A file into the page cache, unless it is there; asks before each chunk whether to go on. By
    reading, since POSIX_FADV_WILLNEED takes no more than the disk's own readahead at a time."""
    chunk = bytearray(CHUNK_BYTES)
    try:
        if cached_bytes(file) >= file.stat().st_size:
            return
        with file.open("rb", buffering=0) as opened:
            while goes_on() and opened.readinto(chunk):
                pass
    except OSError:
        return  # it is gone, or not readable: its load will say so


def cached_bytes(file: Path) -> int:
    """How much of a file is in the page cache, by mincore(2). Raises OSError."""
    with file.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        if not size:
            return 0
        with mmap.mmap(opened.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
            pages = -(-size // mmap.PAGESIZE)
            resident = (ctypes.c_ubyte * pages)()
            first = ctypes.c_char.from_buffer(mapped)
            failed = _LIBC.mincore(ctypes.c_void_p(ctypes.addressof(first)),
                                   ctypes.c_size_t(size), resident)  # fmt: skip
            del first
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return min(size, mmap.PAGESIZE * sum(page & 1 for page in resident))
