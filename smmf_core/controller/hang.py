"""Whether a Worker stands still though its process lives: by the words of its loop, not its beat.

Pure. Owns the clocks of one process; must not act. Heartbeats come from a native thread, which goes
on when an engine's step never ends; reports come from the loop, every second.
"""

from __future__ import annotations

import math

from smmf_core.control_messages import WorkerReport

TICK_GAP_S = 5.0  # nobody looked for so long: what was not heard meanwhile counts for nothing
_SILENT = "it hangs: no word for {0:.0f} s, allowed are {1:g} s ([timeouts] hang_s)"
_STILL = (
    "it hangs: requests run, and no step for {0:.0f} s, allowed are {1:g} s "
    "([timeouts] hang_s, first_token_s, inference_s)"
)


class Pulse:
    """Call `judge` about once a second while the Worker serves or drains, and only then."""

    def __init__(self) -> None:
        self._judged_at = -math.inf
        self._asked_at: float | None = None  # since when its loop owes a word
        self._steps = 0
        self._stepped_at: float | None = None  # since when it makes no step, though requests run

    def on_report(self, report: WorkerReport, now: float) -> None:
        self._asked_at = None
        if not report.running:
            self._stepped_at = None
        elif report.steps != self._steps or self._stepped_at is None:
            self._steps, self._stepped_at = report.steps, now

    def judge(self, has_work: bool, hang_s: float, answer_s: float, now: float) -> str:
        """Why it is taken for hung; "" if it is not, or `hang_s` is 0.

        1. It has work, and its loop has said nothing for `hang_s`.
        2. Its loop speaks, requests run, and none of them has come further for `answer_s`, in which
           each should have been answered or given up.
        """
        if now - self._judged_at > TICK_GAP_S:
            self._asked_at = self._stepped_at = None
        self._judged_at = now
        if has_work and self._asked_at is None:
            self._asked_at = now
        silent_s, still_s = _since(self._asked_at, now), _since(self._stepped_at, now)
        if hang_s and silent_s > hang_s:  # 1
            return _SILENT.format(silent_s, hang_s)
        bound_s = max(hang_s, answer_s)
        if hang_s and still_s > bound_s:  # 2
            return _STILL.format(still_s, bound_s)
        return ""


def _since(when: float | None, now: float) -> float:
    return now - when if when is not None else 0.0
