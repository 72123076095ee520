"""States of processes and models: one table of transitions, phases of a start, back-off.

Pure. Owns which state may follow which, when a process that died is started again, and what its
replicas make of a model's state; must not start anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from smmf_core.control_messages import RouterReport, WorkerReport
from smmf_core.registry import Model

WAITING = "waiting"  # to be started once there is memory for it
STARTING = "starting"  # spawned, or being adopted: has not said Hello
LOADING = "loading"
READY = "ready"
DRAINING = "draining"
BACKOFF = "backoff"  # died; starts again at `act_at`
FAILED = "failed"  # died too often right after its start: an operator must look
STOPPED = "stopped"

TRANSITIONS: dict[str, frozenset[str]] = {
    STOPPED: frozenset({WAITING, STARTING, FAILED}),
    WAITING: frozenset({STARTING, FAILED, STOPPED}),
    STARTING: frozenset({LOADING, READY, DRAINING, BACKOFF, FAILED, STOPPED}),
    LOADING: frozenset({READY, DRAINING, BACKOFF, FAILED, STOPPED}),
    READY: frozenset({DRAINING, BACKOFF, FAILED, STOPPED}),
    DRAINING: frozenset({STOPPED}),
    BACKOFF: frozenset({WAITING, STARTING, FAILED, STOPPED}),
    FAILED: frozenset({WAITING, STARTING, STOPPED}),
}
ALIVE = frozenset({STARTING, LOADING, READY, DRAINING})
SETTLED = frozenset({READY, FAILED, STOPPED})
MODEL_STATES = (
    "registered", "starting", "ready", "unhealthy", "offline", "stopping", "stopped", "failed"
)  # fmt: skip
PHASES = (
    "validate", "check engine", "reserve memory", "spawn", "load", "warm-up", "register", "ready"
)  # fmt: skip
OUT_OF_MEMORY = "out of memory"  # how the reason of a load begins that ended for want of it

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
    is_stopped: bool = False  # by the operator, this one alone
    is_offline: bool = False  # taken out of rotation by the operator
    # of the slot
    state: str = STOPPED
    incarnation: int = 0  # a Router's epoch
    reason: str = ""  # why it is not ready
    act_at: float = math.inf  # when its state's time-out or delay is over
    restarts: int = 0  # since it last lived long: for the back-off
    short_lives: int = 0  # in a row
    total_restarts: int = 0
    needs_room: bool = False  # it ran out of memory: everything idle goes before the next try
    is_stuck: bool = False  # waits for memory that nothing under way will free
    is_blocked: bool = False  # and nothing that happens by itself, or not for long
    is_refused: bool = False  # failed, as no device could ever take it
    # of the running process
    pid: int = 0
    generation: int = 0  # of its model, when it was started
    device: str = ""  # where it was placed: "cpu", "cuda:0", "cuda:0,1" ...
    need_bytes: int = 0  # of memory there, as reserved
    measured_bytes: int = 0  # of memory, as it takes now
    phase: str = ""  # one of PHASES, while it starts
    progress: float = 0.0  # 0..1, of the phase "load"
    started_at: float = 0.0
    load_s: float = 0.0  # from the order to start until it was ready
    removed: str = ""  # why health took it out of rotation
    unwell: str = ""  # why health would, were it not the last one
    adopting: bool = False  # a former Controller's; has not said Hello to this one
    connected: bool = False
    ready_at: float | None = None
    kills: int = 0  # steps of the escalation so far
    is_unfit: bool = False  # it is being ended, and another one would be no better
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
    def is_shown(self) -> bool:
        """Alive or about to be."""
        return self.state in ALIVE or self.state in (WAITING, BACKOFF)

    @property
    def is_online(self) -> bool:
        """In rotation."""
        return self.state == READY and not self.is_offline and not self.removed

    @property
    def is_delayed(self) -> bool:
        """Died at least twice, and starts again only after a while."""
        return self.state == BACKOFF and self.restarts > 1

    @property
    def is_settled(self) -> bool:
        """Not on its way to another state, as far as one can wait for."""
        return self.state in SETTLED or self.is_delayed or self.is_stuck

    def move(self, state: str) -> None:
        """Raises WrongTransition when the table does not have it."""
        if state not in TRANSITIONS[self.state]:
            raise WrongTransition(f"{self.name}: {self.state} -> {state}")
        self.state = state
        self.act_at = math.inf
        self.is_stuck = self.is_blocked = self.is_refused = False
        if state == STOPPED and not self.wanted:
            self.is_offline = False  # the next one of this name has done nothing
        if state != STARTING and state != LOADING and state != WAITING:
            self.phase = "ready" if state == READY else ""

    def begin(self, now: float) -> None:
        """A new incarnation: forget the former process."""
        self.move(STARTING)
        self.incarnation += 1
        self.forget_process()
        self.started_at = now
        self.phase = "spawn"

    def forget_process(self) -> None:
        self.pid, self.adopting, self.connected = 0, False, False
        self.ready_at, self.kills, self.losses, self.is_unfit = None, 0, 0, False
        self.removed = self.unwell = ""
        self.progress, self.measured_bytes = 0.0, 0
        self.rings = set()
        self.report, self.tokens_per_second = None, 0.0

    def pardon(self) -> None:
        """The operator's word: all counts begin again."""
        self.restarts = self.short_lives = 0
        self.needs_room = False

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


@dataclass(slots=True, frozen=True)
class Status:
    """What there is to say of a model in one line."""

    state: str  # one of MODEL_STATES
    reason: str = ""  # why it is not ready, or not as it was wanted
    is_degraded: bool = False  # it serves, with fewer replicas than wanted or with unwell ones
    phase: str = ""  # of the replica that is furthest, while it starts
    progress: float = 0.0


def model_state(model: Model, replicas: Iterable[Child]) -> str:
    """One of MODEL_STATES.

    1. The operator removed or stopped it, or scaled it to nothing.
    2. A replica is in rotation: ready, unless each is there only as the last one.
    3. None is wanted now: its first request loads it.
    4. One is on its way, or waits for memory.
    5. One has failed, for good or for now: whoever asks is told why rather than kept waiting.
    6. Those that are ready were taken out of rotation.
    7. Each was stopped by itself.
    """
    children = list(replicas)
    is_off = model.is_stopped or model.is_removed or not model.target
    if is_off:  # 1
        has_life = model.is_removed or any(child.is_alive for child in children)
        return "stopping" if has_life else "stopped"
    online = [child for child in children if child.is_online]
    if online:  # 2
        return "unhealthy" if all(child.unwell for child in online) else "ready"
    if not model.is_wanted:  # 3
        return "registered"
    wanted = [child for child in children if child.wanted]
    if any(child.state == WAITING or not child.is_settled for child in wanted):  # 4
        return "starting"
    if any(child.state == FAILED or child.is_delayed for child in wanted):  # 5
        return "failed"
    if any(child.state == READY for child in wanted):  # 6
        return "offline"
    return "stopping" if any(child.is_alive for child in children) else "stopped"
