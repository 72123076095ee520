"""Requests that answer when a state is reached, with progress bars on a terminal meanwhile.

Owns the waiting; whether the state is reached, and what is said then, is the server's to tell.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from smmf_core.cli.http import CliError, Endpoint

QUIET_S = 0.3  # what is over sooner needs no bar
REDRAW_S = 0.15
Row = dict[str, Any]


class _Answer(threading.Thread):
    """One request, on a thread of its own: it ends with the process if nobody waits any more."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._ask = ask
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._value = self._ask()
        except BaseException as error:
            self._error = error

    def value(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


def act(server: Endpoint, path: str, body: Row, watched: str = "") -> Any:
    """POST to a verb's path, as `/admin/v1/models/NAME:start`; returns what the server says when
    the state is reached. Raises CliError with its reason when it is not. `watched`: whose progress
    is shown meanwhile, if not that of the path's own model or instance."""
    if not sys.stderr.isatty():
        return server.post(path, body, timeout_s=None)
    answer = _Answer(lambda: server.post(path, body, timeout_s=None))
    answer.start()
    answer.join(QUIET_S)
    if answer.is_alive():
        _show_until(answer, server, watched or path.rpartition(":")[0])
    return answer.value()


def _show_until(answer: _Answer, server: Endpoint, watched: str) -> None:
    from smmf_core.cli.bars import Bars

    with Bars(sys.stderr) as bars:
        while answer.is_alive():
            bars.show(_instances(server, watched))
            answer.join(REDRAW_S)


def _instances(server: Endpoint, watched: str) -> list[Row]:
    """Of a model, of all, or the one."""
    try:
        found = server.get(watched)
    except CliError:
        return []  # gone, or not yet there: the answer will tell
    if isinstance(found, list):
        return found
    instances: list[Row] = found.get("instances", [found])
    return instances
