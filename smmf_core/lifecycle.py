"""States of processes and models: one table of transitions, back-off, and what a model's state is.

Pure. Owns which state may follow which, and when a process that died is started again; must not
start anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from smmf_core.messages import RouterReport, WorkerReport

STARTING = "starting"  # spawned, or being adopted: has not said Hello
LOADING = "loading"
READY = "ready"
DRAINING = "draining"
BACKOFF = "backoff"  # died; starts again at `act_at`
FAILED = "failed"  # died too often right after its start: an operator must look
STOPPED = "stopped"

TRANSITIONS: dict[str, frozenset[str]] = {
    STOPPED: frozenset({STARTING}),
    STARTING: frozenset({LOADING, READY, DRAINING, BACKOFF, FAILED, STOPPED}),
    LOADING: frozenset({READY, DRAINING, BACKOFF, FAILED, STOPPED}),
    READY: frozenset({DRAINING, BACKOFF, FAILED, STOPPED}),
    DRAINING: frozenset({STOPPED}),
    BACKOFF: frozenset({STARTING, STOPPED}),
    FAILED: frozenset({STARTING, STOPPED}),
}
ALIVE = frozenset({STARTING, LOADING, READY, DRAINING})
SETTLED = frozenset({READY, FAILED, STOPPED})
MODEL_STATES = ("ready", "loading", "failed", "stopped")

MAX_SHORT_LIVES = 5
BACKOFF_BASE_S = 10.0
BACKOFF_MAX_S = 300.0
REPORT_VALID_S = 3.0  # children report once a second

Ring = tuple[int, int, int, int]
"""(worker, incarnation, router, epoch)"""


class WrongTransition(Exception):
    """A bug in whoever asked for it: that state may not follow this one."""


def backoff_s(restarts: int) -> float:
    """How long to wait before restart number `restarts` (from 0) since the last long life."""
    if restarts == 0:
        return 0.0
    return min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2.0 ** min(restarts - 1, 30))


@dataclass(slots=True, eq=False)
class Child:
    """One slot for a process, Router or Worker replica, over all its incarnations."""

    role: str
    id: int
    name: str  # "router-0", or the instance's "<model>-<k>"
    model: int = -1  # index of a Worker's model
    slots: int = 0  # of a Worker
    wanted: bool = True  # False: not to run again
    # of the slot
    state: str = STOPPED
    incarnation: int = 0  # a Router's epoch
    reason: str = ""  # why it is not ready
    act_at: float = math.inf  # when its state's time-out or delay is over
    restarts: int = 0  # since it last lived long: for the back-off
    short_lives: int = 0  # in a row
    total_restarts: int = 0
    # of the running process
    pid: int = 0
    adopting: bool = False  # a former Controller's; has not said Hello to this one
    connected: bool = False
    ready_at: float | None = None
    kills: int = 0  # steps of the escalation so far
    losses: int = 0  # times a Router could not reach it
    rings: set[Ring] = field(default_factory=set)
    report: WorkerReport | RouterReport | None = None
    tokens_per_second: float = 0.0
    reported_at: float = 0.0

    @property
    def key(self) -> tuple[str, int]:
        return self.role, self.id

    @property
    def is_alive(self) -> bool:
        return self.state in ALIVE

    @property
    def is_waiting(self) -> bool:
        """Died at least twice, and starts again only after a while."""
        return self.state == BACKOFF and self.restarts > 1

    @property
    def is_settled(self) -> bool:
        """Not on its way to another state, as far as one can wait for."""
        return self.state in SETTLED or self.is_waiting

    def move(self, state: str) -> None:
        """Raises WrongTransition when the table does not have it."""
        if state not in TRANSITIONS[self.state]:
            raise WrongTransition(f"{self.name}: {self.state} -> {state}")
        self.state = state
        self.act_at = math.inf

    def begin(self) -> None:
        """A new incarnation: forget the former process."""
        self.move(STARTING)
        self.incarnation += 1
        self.forget_process()

    def forget_process(self) -> None:
        self.pid, self.adopting, self.connected = 0, False, False
        self.ready_at, self.kills, self.losses = None, 0, 0
        self.rings = set()
        self.report, self.tokens_per_second = None, 0.0

    def die(self, now: float, start_s: float, is_unfit: bool = False) -> None:
        """The process ended by itself.

        1. It had been ready for `start_s`: a long life, all counts begin again.
        2. The MAX_SHORT_LIVES-th short life in a row, or `is_unfit` (trying again would not
           help): FAILED.
        3. Else BACKOFF, for 0 s first, then 10 s * 2^n, at most 300 s.
        """
        is_long = self.ready_at is not None and now - self.ready_at >= start_s
        self.forget_process()
        if is_long:  # 1
            self.restarts = self.short_lives = 0
        else:
            self.short_lives += 1
        if is_unfit or self.short_lives >= MAX_SHORT_LIVES:  # 2
            self.move(FAILED)
            return
        self.move(BACKOFF)  # 3
        self.act_at = now + backoff_s(self.restarts)
        self.restarts += 1
        self.total_restarts += 1

    def observe(self, report: WorkerReport | RouterReport, now: float) -> None:
        """Keep the newest report; a Worker's token count becomes a rate."""
        former = self.report
        if isinstance(report, WorkerReport):
            elapsed_s = now - self.reported_at
            if isinstance(former, WorkerReport) and elapsed_s > 0:
                self.tokens_per_second = max(0, report.tokens - former.tokens) / elapsed_s
        self.report, self.reported_at = report, now

    def rate(self, now: float) -> float:
        """Tokens per second by the last two reports; 0 when they are old."""
        return self.tokens_per_second if now - self.reported_at < REPORT_VALID_S else 0.0


def model_state(replicas: Iterable[Child]) -> str:
    """One of MODEL_STATES: the best that any replica has or is about to have.

    1. One is ready.
    2. One is on its way.
    3. One has failed, for good or for now: whoever asks is told why rather than kept waiting.
    4. None is wanted.
    """
    children = list(replicas)
    if any(child.state == READY for child in children):  # 1
        return "ready"
    if any(child.wanted and not child.is_settled for child in children):  # 2
        return "loading"
    if any(child.state == FAILED or child.is_waiting for child in children):  # 3
        return "failed"
    return "stopped"  # 4
