"""Processes of a server whose Controller died: found by its run directory, verified, ended.

Owns the rule that a pid alone proves nothing (it must still have the start time that the Controller
wrote down); must not talk to a living server.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from pathlib import Path

POLL_S = 0.05
_START_TIME = 19  # field 22 of /proc/PID/stat, counted behind the command's name (proc(5))


def end(folder: Path, force: bool, limit_s: float) -> int:
    """Ends what `children.json` in the run directory lists; SIGKILL after `limit_s`. Returns how
    many processes there were."""
    pidfds = [fd for fd in map(_open_verified, _children(folder)) if fd is not None]
    try:
        _signal(pidfds, signal.SIGKILL if force else signal.SIGTERM)
        if not _wait_all(pidfds, limit_s):
            _signal(pidfds, signal.SIGKILL)
            _wait_all(pidfds, limit_s)
    finally:
        for fd in pidfds:
            os.close(fd)
    return len(pidfds)


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[_START_TIME])


def _children(folder: Path) -> list[dict[str, int]]:
    try:
        children = json.loads((folder / "children.json").read_text())
    except (OSError, ValueError):
        return []
    return children if isinstance(children, list) else []


def _open_verified(child: dict[str, int]) -> int | None:
    """A pidfd of exactly that process, or None when it is gone (its pid may be another's now)."""
    try:
        fd = os.pidfd_open(child["pid"])
    except OSError:
        return None
    if start_time(child["pid"]) == child["starttime"]:
        return fd
    os.close(fd)
    return None


def _signal(pidfds: list[int], number: signal.Signals) -> None:
    for fd in pidfds:
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            continue


def _wait_all(pidfds: list[int], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while any(_is_alive(fd) for fd in pidfds):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def _is_alive(pidfd: int) -> bool:
    """A pidfd becomes readable when its process ends, reaped or not."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return not poller.poll(0)
