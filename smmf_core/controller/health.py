"""Whether an instance is well: its last minute against the thresholds of `[health]`.

Pure. Owns the hysteresis and what a threshold's crossing asks for; must not act: the Controller
does, and sees to it that the last instance of a model in rotation is never removed.

An InstanceHealth belongs to a replica's slot, over all its incarnations (`begin` at each). Call
`judge` about once a second. ALERT and CLEAR are told once, at the edge. REMOVE is told as long as
it is due, so that what could not be done (the last one) is done when it can; RESTART after pauses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from smmf_core.config.schema import Health
from smmf_core.control_messages import WorkerReport
from smmf_core.controller.hang import TICK_GAP_S, Pulse
from smmf_core.controller.thresholds import Probes, Threshold, Window

RESPONSE_TIME, ERROR_RATE, MEMORY = "response_time", "error_rate", "memory"
QUEUE_LENGTH, HEARTBEAT, PROBES = "queue_length", "heartbeat", "probes"
HANG = "hang"
CAUSES = (RESPONSE_TIME, ERROR_RATE, MEMORY, QUEUE_LENGTH, HEARTBEAT)

ALERT = "alert"  # a threshold was crossed: an event, and the alert's metric becomes 1
CLEAR = "clear"  # well again in that respect
REMOVE = "remove"  # take it out of rotation, and probe it (`wants_probe`)
RETURN = "return"  # put it back
RESTART = "restart"

GOOD_PROBES = 3  # in a row: back into rotation (Kubernetes' successThreshold is 1 to 3 in practice)
BAD_PROBES = 3  # in a row: restart (Kubernetes' failureThreshold)
MAX_RELAPSES = 2  # removed again within a window of its return, so often: restart
MAX_PAUSE_WINDOWS = 16  # between two restarts for the same cause: 1, 2, 4 ... windows

_WORDS = {
    RESPONSE_TIME: "the 95th percentile of first tokens took {0:.1f} s, allowed are {1:g} s "
    "([health] response_time_s)",
    ERROR_RATE: "{0:.0%} of its requests failed, allowed are {1:.0%} ([health] error_rate)",
    MEMORY: "it takes {0:.0%} of its memory, allowed are {1:.0%} ([health] memory)",
    QUEUE_LENGTH: "{0} requests wait, allowed are {1} ([health] queue_length)",
    HEARTBEAT: "no heartbeat for {0:.0f} s, allowed are {1:g} s ([health] heartbeat_s)",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    kind: str  # ALERT CLEAR REMOVE RETURN RESTART
    cause: str  # one of CAUSES, PROBES or HANG
    reason: str  # for the event, the log and `Child.removed`


class InstanceHealth:
    """Of one replica's slot."""

    def __init__(self, limits: Health) -> None:
        self._limits = limits
        self._window = Window(limits.window_s)
        self._thresholds = {
            cause: Threshold(cause, action, bound, limits.window_s)
            for cause, action, bound in (
                (RESPONSE_TIME, limits.response_time_action, limits.response_time_s),
                (ERROR_RATE, limits.error_rate_action, limits.error_rate),
                (MEMORY, limits.memory_action, limits.memory),
                (HEARTBEAT, limits.heartbeat_action, limits.heartbeat_s),
            )
        }
        self._restarts: dict[str, tuple[int, float]] = {}  # cause -> (in a row, when the last was)
        self._judged_at = -math.inf
        self._may_restart = True
        self.begin()

    # --- what is told ---

    def begin(self) -> None:
        """A new process: what the former one did is not its fault."""
        self._window.clear()
        for threshold in self._thresholds.values():
            threshold.reset()
        self._counted: tuple[int, int] | None = None  # (finished, faults) as last reported
        self._memory: float | None = None  # share of what it may take
        self._beat_at: float | None = None  # None: it need not beat yet
        self.pulse = Pulse()
        self._probes, self._was_removed = Probes(), False
        self._returned_at, self._relapses = -math.inf, 0

    def on_report(self, report: WorkerReport, now: float) -> None:
        """The first one only tells where its counters stand: it may be an adopted process."""
        counted = (report.finished, report.faults)
        former = counted if self._counted is None else self._counted
        self._counted = counted
        self.pulse.on_report(report, now)
        finished, faults = counted[0] - former[0], counted[1] - former[1]
        self._window.add(report.first_token_s, max(0, finished), max(0, faults), now)

    def on_heartbeat(self, now: float) -> None:
        self._beat_at = now

    def on_memory(self, used_bytes: int, allowed_bytes: int) -> None:
        """`allowed_bytes`: `memory_gib`, else all of its device; 0: exempt, or not known."""
        self._memory = used_bytes / allowed_bytes if allowed_bytes else None

    def wants_probe(self, now: float) -> bool:
        """Of a removed instance: whether to send it a Probe now; True counts as sent."""
        return self._probes.is_due(now)

    def on_probed(self, is_ok: bool, seconds: float) -> None:
        """The answer to a Probe; one that is too slow is a bad one."""
        bound = self._limits.response_time_s
        self._probes.answered(is_ok and not (bound and seconds > bound))

    # --- what follows ---

    def judge(
        self, is_ready: bool, is_removed: bool, now: float, may_restart: bool = True
    ) -> list[Verdict]:
        """`is_ready`: its process has said so to this Controller; while it loads or is adopted it
        is not judged. `is_removed`: out of rotation by a former REMOVE. `may_restart` False: only
        if it does not beat; the verdict comes when it may.

        1. Edges: ALERT, CLEAR.
        2. Removed: RETURN or RESTART, by its probes.
        3. What crossed thresholds ask for.
        """
        if not is_ready:
            self._beat_at, self._judged_at = None, now
            return []
        self._may_restart = may_restart
        self._keep_time(now)
        self._window.forget(now)
        verdicts = [v for t in self._thresholds.values() for v in self._edge(t, now)]  # 1
        if is_removed:
            verdicts += self._follow_probes(now)  # 2
        elif self._was_removed:  # put back by the operator, or a former verdict
            self._probes, self._was_removed = Probes(), False
        return verdicts + self._asked(is_removed, now)  # 3

    def lost_beat(self, now: float) -> str:
        """Of one that is to end, in place of `judge`: why it will not by itself; "": it beats."""
        silent_s, bound = self._keep_time(now), self._limits.heartbeat_s
        return _WORDS[HEARTBEAT].format(silent_s, bound) if 0 < bound < silent_s else ""

    @property
    def crossed(self) -> dict[str, str]:
        """Cause -> reason: the alerts that hold."""
        return {t.cause: t.reason for t in self._thresholds.values() if t.is_crossed}

    @property
    def finished_in_window(self) -> int:
        return self._window.finished

    # --- inside ---

    def _keep_time(self, now: float) -> float:
        """For how long it has not beaten; what nobody could hear counts for nothing."""
        if self._beat_at is None or now - self._judged_at > TICK_GAP_S:
            self._beat_at = now
        self._judged_at = now
        return now - self._beat_at

    def _edge(self, threshold: Threshold, now: float) -> list[Verdict]:
        value = self._value(threshold.cause, now)
        has_changed = threshold.judge(value, now)
        return _edge(threshold, value, has_changed)

    def _value(self, cause: str, now: float) -> float | None:
        if cause == RESPONSE_TIME:
            return self._window.response_time_s(self._limits.min_samples)
        if cause == ERROR_RATE:
            return self._window.error_rate(self._limits.min_samples)
        if cause == MEMORY:
            return self._memory
        return None if self._beat_at is None else now - self._beat_at

    def _follow_probes(self, now: float) -> list[Verdict]:
        """What becomes of a removed one:

        1. It was back only shortly before, and again, and again: RESTART.
        2. BAD_PROBES in a row: RESTART.
        3. GOOD_PROBES in a row, and it beats: RETURN, with a clean window.
        """
        if not self._was_removed:
            self._was_removed = True
            is_relapse = now - self._returned_at <= self._limits.window_s
            self._relapses = self._relapses + 1 if is_relapse else 0
        if self._relapses >= MAX_RELAPSES:  # 1
            return self._restart(PROBES, "it was removed again after each return", now)
        if self._probes.bad >= BAD_PROBES:  # 2
            reason = f"{self._probes.bad} probes failed after its removal"
            return self._restart(PROBES, reason, now)
        if self._probes.good < GOOD_PROBES or self._thresholds[HEARTBEAT].is_crossed:
            return []
        self._returned_at = now  # 3
        self._window.clear()
        verdicts = [Verdict(RETURN, PROBES, f"{self._probes.good} probes went well")]
        for threshold in self._thresholds.values():
            if threshold.is_crossed and threshold.action == REMOVE:
                threshold.reset()
                verdicts.append(_cleared(threshold.cause))
        return verdicts

    def _asked(self, is_removed: bool, now: float) -> list[Verdict]:
        verdicts = []
        for threshold in self._thresholds.values():
            if not threshold.is_crossed:
                continue
            if threshold.action == RESTART:
                verdicts += self._restart(threshold.cause, threshold.reason, now)
            elif threshold.action == REMOVE and not is_removed:
                verdicts.append(Verdict(REMOVE, threshold.cause, threshold.reason))
        return verdicts

    def _restart(self, cause: str, reason: str, now: float) -> list[Verdict]:
        """Not again before a pause is over: a threshold that is too low must not keep it down."""
        if not self._may_restart and cause != HEARTBEAT:
            return []
        count, last = self._restarts.get(cause, (0, -math.inf))
        windows = (now - last) / self._limits.window_s
        if windows < min(2 ** (count - 1), MAX_PAUSE_WINDOWS):
            return []
        count = 1 if windows > 2 * MAX_PAUSE_WINDOWS else count + 1
        self._restarts[cause] = (count, now)
        return [Verdict(RESTART, cause, reason)]


class QueueHealth:
    """Of a model: how many of its requests wait. What its action asks for is done to the replica
    that `slowest` names."""

    def __init__(self, limits: Health) -> None:
        self._threshold = Threshold(
            QUEUE_LENGTH, limits.queue_length_action, limits.queue_length, limits.window_s
        )
        self._acted_at = -math.inf

    def judge(self, waiting: int, now: float) -> list[Verdict]:
        """The action is told at the edge and once per window: it takes a while to help."""
        threshold = self._threshold
        verdicts = _edge(threshold, waiting, threshold.judge(waiting, now))
        if not threshold.is_crossed or threshold.action == ALERT:
            return verdicts
        if now - self._acted_at >= threshold.window_s:
            self._acted_at = now
            verdicts.append(Verdict(threshold.action, QUEUE_LENGTH, threshold.reason))
        return verdicts

    @property
    def crossed(self) -> dict[str, str]:
        return {QUEUE_LENGTH: self._threshold.reason} if self._threshold.is_crossed else {}


def slowest(healths: Mapping[str, InstanceHealth]) -> str:
    """The instance that ended the fewest requests in its window."""
    return min(healths, key=lambda name: healths[name].finished_in_window)


def _edge(threshold: Threshold, value: float | None, has_changed: bool) -> list[Verdict]:
    """Keeps the words of a crossing, the newest ones."""
    if threshold.is_crossed and value is not None and value > threshold.bound:
        threshold.reason = _WORDS[threshold.cause].format(value, threshold.bound)
    if not has_changed:
        return []
    if threshold.is_crossed:
        return [Verdict(ALERT, threshold.cause, threshold.reason)]
    return [_cleared(threshold.cause)]


def _cleared(cause: str) -> Verdict:
    return Verdict(CLEAR, cause, f"its {cause.replace('_', ' ')} is back to normal")
