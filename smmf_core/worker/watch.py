"""What the Worker tells of itself: how fast it answers, what went wrong, what it does just now.

Owns the last first-token times and failures, and their log records; must not decide anything.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections import deque
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from smmf_core.worker.contract import Core, Tally

_log = logging.getLogger("smmf.worker")

_FIRST_TOKENS = 64  # of one report
_FAILURES = 20  # kept
_FAILURE_CHARACTERS = 1000
_REQUESTS = 100  # described
_FRAMES = 40  # of one thread, the innermost
_TASKS = Path("/proc/self/task")


class Watch:
    """Takes from a core's Tally after each step."""

    def __init__(self) -> None:
        self._first_token_s: deque[float] = deque(maxlen=_FIRST_TOKENS)
        self._failures: deque[dict[str, Any]] = deque(maxlen=_FAILURES)

    def take(self, tally: Tally, now: float) -> None:
        for arrived_at in tally.begun:
            self._first_token_s.append(now - arrived_at)
        tally.begun.clear()
        for request_id, error in tally.failed:
            self._note(request_id, error)
        tally.failed.clear()

    def first_token_s(self) -> list[float]:
        """The newest since the last call."""
        times = list(self._first_token_s)
        self._first_token_s.clear()
        return times

    @property
    def failures(self) -> list[dict[str, Any]]:
        return list(self._failures)

    def _note(self, request_id: str, error: Exception) -> None:
        text = (str(error) or type(error).__name__)[:_FAILURE_CHARACTERS]
        _log.error("it failed: %s", text, exc_info=error, extra={"request_id": request_id})
        self._failures.append({"at": time.time(), "request_id": request_id, "error": text})


def requests_of(core: Core, now: float) -> list[dict[str, Any]]:
    """The oldest open requests."""
    return [
        {
            "id": facts.request_id,
            "router": facts.router,
            "state": facts.state,
            "age_s": round(now - facts.arrived_at, 3),
            "prompt_tokens": facts.prompt_tokens,
            "done": facts.done,
        }
        for facts in core.describe(_REQUESTS)
    ]


def python_threads() -> list[dict[str, Any]]:
    """Every thread that runs Python, with its innermost frames, the innermost last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [
        {"name": names.get(ident, "?"), "stack": _stack(frame)}
        for ident, frame in sys._current_frames().items()
    ]


def native_threads() -> list[dict[str, Any]]:
    """Every thread of the process, as the kernel has them (proc(5)): [] where it does not say."""
    found: list[dict[str, Any]] = []
    for task in sorted(_TASKS.glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:  # it has just ended
            continue
        found.append({"tid": int(task.name), "name": name, "state": rest.split()[0]})
    return found


def _stack(frame: FrameType) -> list[str]:
    inner = islice(traceback.walk_stack(frame), _FRAMES)
    lines = [f"{f.f_code.co_filename}:{line} {f.f_code.co_name}" for f, line in inner]
    return lines[::-1]
