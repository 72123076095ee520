"""The life of one child process: started, followed by its own word, drained, ended by signals.

Pure: acts go through Effects. Owns the transitions of a Child; must not decide which should run.
"""

from __future__ import annotations

import math
from typing import Protocol

from smmf_core.config import ServerConfig
from smmf_core.control_messages import Drain, ToChild, WorkerReport
from smmf_core.errors import CannotStart
from smmf_core.lifecycle import (
    DRAINING,
    FAILED,
    LOADING,
    READY,
    STARTING,
    STOPPED,
    WAITING,
    Child,
)

DRAIN_MARGIN_S = 2.0  # a child ends its drain by itself; only then is it told by a signal
TERM_WAIT_S = 5.0  # from SIGTERM to SIGKILL


class Effects(Protocol):
    """What the core has done by its shell."""

    def spawn(self, child: Child) -> int:
        """Start its process and return the pid. Raises OSError, or CannotStart."""

    def kill(self, child: Child, force: bool) -> None:
        """SIGTERM, or SIGKILL with `force`."""

    def welcome(self, child: Child) -> None: ...
    def send(self, child: Child, message: ToChild) -> None: ...
    def attach(self, worker: Child, router: Child, slots: int) -> None:
        """Make a ring and give its ends to both."""

    def publish(self) -> None:
        """What Routers know is old: send `registry_message` at the end of this turn."""

    def record(self, child: Child, former: str) -> None:
        """A state has changed."""

    def note(self, kind: str, name: str, text: str) -> None:
        """Something happened that is not a change of a child's state: of a model, an alert."""


class Lives:
    """Of all children; whoever decides calls this."""

    def __init__(self, config: ServerConfig, effects: Effects) -> None:
        self.config = config
        self._effects = effects

    def load_deadline(self, now: float) -> float:
        return now + (self.config.timeouts.load_s or math.inf)

    def move(self, child: Child, state: str) -> None:
        former = child.state
        child.move(state)
        self._effects.record(child, former)
        self._effects.publish()

    def wait(self, child: Child, now: float) -> None:
        """To be started as soon as there is room for it."""
        if child.state != WAITING:
            child.reason, child.started_at = "", now
            self.move(child, WAITING)
            child.phase = "reserve memory"

    def fail(self, child: Child, reason: str) -> None:
        """Nothing that happens by itself will help."""
        child.reason = reason
        self.move(child, FAILED)

    def spawn(self, child: Child, now: float) -> None:
        """A new incarnation. What cannot be started has died, or failed for good."""
        former, child.reason = child.state, ""
        child.begin(now)
        child.act_at = self.load_deadline(now)
        self._effects.record(child, former)
        try:
            child.pid = self._effects.spawn(child)
        except (OSError, CannotStart) as error:
            is_unfit = isinstance(error, CannotStart)
            child.reason = str(error) if is_unfit else f"cannot be started: {error}"
            self.die(child, now, is_unfit)
        self._effects.publish()

    def die(self, child: Child, now: float, is_unfit: bool = False) -> None:
        """Its process ended by itself: BACKOFF, or FAILED."""
        former = child.state
        child.die(now, self.config.timeouts.start_s, is_unfit)
        self._effects.record(child, former)
        self._effects.publish()

    def follow(self, child: Child, told: str, reason: str, now: float) -> None:
        """Take over the state that a child tells of itself; what it tells late changes nothing."""
        if told == "failed" and reason and child.is_alive:
            child.reason = reason  # it exits by itself
        if told == LOADING and child.state == STARTING:
            deadline = child.act_at
            self.move(child, LOADING)
            child.act_at, child.phase = deadline, "load"
        elif told == READY and child.state in (STARTING, LOADING):
            child.ready_at, child.reason = now, ""
            child.load_s = now - child.started_at if child.started_at else 0.0
            child.needs_room = False
            self.move(child, READY)
        elif told == DRAINING and child.state in (STARTING, LOADING, READY):
            self.move(child, DRAINING)
            child.act_at = now + self.config.timeouts.drain_s + DRAIN_MARGIN_S

    def advance(self, child: Child, report: WorkerReport, now: float) -> None:
        """A loading child's progress moves its deadline: only standing still is late."""
        if child.state != LOADING:
            return
        child.phase = report.phase or child.phase
        if report.progress > child.progress:
            child.progress = report.progress
            child.act_at = self.load_deadline(now)

    def too_late(self, child: Child) -> None:
        """It is not ready in time: a failed start."""
        child.reason = f"not ready within {self.config.timeouts.load_s:g} s ([timeouts] load_s)"
        self._effects.kill(child, True)

    def refuse(self, child: Child, reason: str) -> None:
        """Its process is not what was to be started, nor would another one be: it fails."""
        child.reason, child.is_unfit = reason, True
        self._effects.kill(child, True)

    def stop(
        self,
        child: Child,
        now: float,
        timeout_s: float | None = None,
        force: bool = False,
        drains: bool = False,
    ) -> None:
        """End a process, or the wait for its next start. `timeout_s` None: the server's own.

        1. It does not run: only its state changes.
        2. By force, or it has nothing to finish yet: SIGKILL.
        3. It ends already, and nothing new is said.
        4. It cannot be told (no connection): SIGTERM, later SIGKILL.
        5. Else Drain, and signals when that takes too long.
        """
        is_told = child.state == DRAINING and timeout_s is None
        has_work = drains or child.adopting or child.state in (READY, DRAINING)
        if not child.is_alive:  # 1
            if child.state != STOPPED:
                self.move(child, STOPPED)
            return
        if child.state != DRAINING:
            self.move(child, DRAINING)
        if force or not has_work:  # 2
            self._effects.kill(child, True)
        elif is_told:  # 3
            pass
        elif not child.connected:  # 4
            self.escalate(child, now)
        else:  # 5
            limit_s = self.config.timeouts.drain_s if timeout_s is None else timeout_s
            self._effects.send(child, Drain(limit_s))
            child.act_at = now + limit_s + DRAIN_MARGIN_S
        self._effects.publish()

    def remind(self, child: Child, now: float) -> None:
        """It was to drain, and was not connected for a while."""
        left_s = min(child.act_at - now, self.config.timeouts.drain_s)
        self._effects.send(child, Drain(max(0.0, left_s)))

    def give_up(self, child: Child, now: float) -> None:
        """An adopted child that stays silent: as if it had not finished draining."""
        child.reason = "it did not answer to the new controller"
        self.move(child, DRAINING)
        self.escalate(child, now)

    def escalate(self, child: Child, now: float) -> None:
        """SIGTERM; if that was sent, SIGKILL."""
        self._effects.kill(child, child.kills > 0)
        child.kills += 1
        child.act_at = now + TERM_WAIT_S
