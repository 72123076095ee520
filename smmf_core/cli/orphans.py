"""Processes of a server whose admin API is silent: found by its run directory, verified, ended.

Owns the rule that a pid alone proves nothing: it must still have the start time that was written
down. Must not decide where the run directory is.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

from smmf_core.controller.process import start_time

POLL_S = 0.05


def end(folder: Path, force: bool, limit_s: float) -> int:
    """Ends what `children.json` in the run directory lists. Returns how many processes there were.

    1. With `force` all are killed, a living Controller first: it would restart the others.
    2. A living Controller is told alone: it drains its children itself.
    3. Without one the children are told, and drain by themselves.
    What is left after `limit_s` is killed.
    """
    children = sorted(_children(folder), key=lambda child: child.get("role") != "controller")
    opened = [(child, _open_verified(child)) for child in children]
    living = [(child, fd) for child, fd in opened if fd is not None]
    pidfds = [fd for _, fd in living]
    controllers = [fd for child, fd in living if child.get("role") == "controller"]
    try:
        if not force:
            _signal(controllers or pidfds, signal.SIGTERM)  # 2, 3
        if force or not _wait_all(pidfds, limit_s):
            _signal(pidfds, signal.SIGKILL)  # 1
            _wait_all(pidfds, limit_s)
    finally:
        for fd in pidfds:
            os.close(fd)
    return len(pidfds)


def controller_start(pid: int) -> int | None:
    """As start_time, of a Controller of this machine; None for another's (the pid came by HTTP)."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    return start_time(pid) if b"smmf" in command else None


def _children(folder: Path) -> list[dict[str, Any]]:
    try:
        children = json.loads((folder / "children.json").read_text())
    except (OSError, ValueError):
        return []
    return children if isinstance(children, list) else []


def _open_verified(child: dict[str, Any]) -> int | None:
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
