"""Health of instances: windows, thresholds, hysteresis, probes, restarts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from smmf_core.config.schema import Health
from smmf_core.control_messages import WorkerReport
from smmf_core.controller.health import (
    ALERT,
    BAD_PROBES,
    CLEAR,
    ERROR_RATE,
    GOOD_PROBES,
    HEARTBEAT,
    MAX_RELAPSES,
    MEMORY,
    PROBES,
    QUEUE_LENGTH,
    REMOVE,
    RESPONSE_TIME,
    RESTART,
    RETURN,
    TICK_GAP_S,
    InstanceHealth,
    QueueHealth,
    Verdict,
    slowest,
)
from smmf_core.controller.thresholds import PROBE_EVERY_S, PROBE_TIMEOUT_S, Probes, Window


class Rig:
    """A judged instance: every second a report, a heartbeat and a judgement."""

    def __init__(self, **limits: Any) -> None:
        self.health = InstanceHealth(Health(**limits))
        self.now = 100.0
        self.finished = self.faults = 0
        self.is_ready, self.is_removed, self.beats = True, False, True
        self.verdicts: list[Verdict] = []
        self.tick()

    def tick(
        self,
        seconds: float = 1,
        finished: int = 0,
        faults: int = 0,
        first: tuple[float, ...] = (),
        each_s: float = 1.0,
    ) -> list[tuple[str, str]]:
        """For so many seconds so much a second; what was told meanwhile."""
        told: list[Verdict] = []
        for _ in range(round(seconds / each_s)):
            self.now += each_s
            self.finished, self.faults = self.finished + finished, self.faults + faults
            self.health.on_report(report(self.finished, self.faults, list(first)), self.now)
            if self.beats:
                self.health.on_heartbeat(self.now)
            told += self.health.judge(self.is_ready, self.is_removed, self.now)
        self.verdicts += told
        return [(v.kind, v.cause) for v in told]

    def probe(self, is_ok: bool, seconds: float = 0.1) -> list[tuple[str, str]]:
        self.now += PROBE_EVERY_S
        assert self.health.wants_probe(self.now)
        self.health.on_probed(is_ok, seconds)
        return self.tick()


def report(finished: int = 0, faults: int = 0, first: list[float] | None = None) -> WorkerReport:
    return WorkerReport(
        "ready", 1.0, "", 0, [], 0, 0, 0, 0,
        finished=finished, faults=faults, first_token_s=first or [],
    )  # fmt: skip


# --- error rate -------------------------------------------------------------------------------


def test_a_high_error_rate_removes_and_alerts_once() -> None:
    rig = Rig()
    assert rig.tick(5, finished=18, faults=2)[:2] == [(ALERT, ERROR_RATE), (REMOVE, ERROR_RATE)]
    assert [v.kind for v in rig.verdicts].count(ALERT) == 1
    assert "10% of its requests failed" in rig.verdicts[0].reason
    assert "[health] error_rate" in rig.verdicts[0].reason
    assert set(rig.health.crossed) == {ERROR_RATE}


def test_remove_is_told_until_it_is_done() -> None:
    """The last one in rotation cannot be removed; later it can."""
    rig = Rig()
    rig.tick(2, finished=10, faults=10)
    assert rig.tick(3) == [(REMOVE, ERROR_RATE)] * 3
    rig.is_removed = True
    assert rig.tick(3) == []


def test_few_requests_decide_nothing() -> None:
    rig = Rig()
    assert rig.tick(1, finished=9, faults=10) == []
    assert rig.tick(1, finished=1) == [(ALERT, ERROR_RATE), (REMOVE, ERROR_RATE)]


def test_exactly_at_the_threshold_is_well() -> None:
    rig = Rig()
    assert rig.tick(5, finished=19, faults=1) == []


def test_what_is_older_than_the_window_is_forgotten() -> None:
    rig = Rig()
    rig.tick(1, faults=19)
    assert rig.tick(60) == []
    assert rig.tick(5, finished=10) == []


def test_a_new_process_begins_with_a_clean_slate() -> None:
    rig = Rig()
    rig.tick(1, finished=5, faults=15)
    rig.health.begin()
    rig.finished = rig.faults = 0
    assert rig.health.crossed == {}
    assert rig.tick(30, finished=1) == []


def test_the_first_report_of_an_adopted_process_tells_of_former_days() -> None:
    health = InstanceHealth(Health())
    health.on_report(report(1000, 900), 1.0)
    assert health.judge(True, False, 1.0) == []
    health.on_report(report(1000, 930), 2.0)
    assert [v.kind for v in health.judge(True, False, 2.0)] == [ALERT, REMOVE]


# --- response time ----------------------------------------------------------------------------


def test_slow_first_tokens_alert_by_their_95th_percentile() -> None:
    rig = Rig()
    assert rig.tick(10, first=(1.0,) * 19) == []
    assert rig.tick(10, first=(9.0,) + (1.0,) * 18) == []  # 10 of 380: 2.6 %
    assert rig.tick(5, first=(9.0,) * 4) == [(ALERT, RESPONSE_TIME)]
    assert "9.0 s" in rig.verdicts[-1].reason


def test_the_percentile_is_the_nearest_rank() -> None:
    window = Window(60.0)
    window.add([float(n) for n in range(1, 21)], 0, 0, 0.0)
    assert window.response_time_s(20) == 19.0
    assert window.response_time_s(21) is None


def test_it_is_well_again_only_clearly_below_and_for_a_while() -> None:
    rig = Rig(window_s=20.0)
    rig.tick(5, first=(6.0,) * 5)
    assert rig.tick(60, first=(4.5,) * 5) == []  # below 5, not below 4
    assert rig.health.crossed
    assert rig.tick(20, first=(3.9,) * 5) == []  # the old ones must leave the window
    assert rig.tick(12, first=(3.9,) * 5) == [(CLEAR, RESPONSE_TIME)]
    assert rig.health.crossed == {}


def test_a_value_that_swings_about_the_threshold_alerts_once() -> None:
    rig = Rig(window_s=5.0, min_samples=1)
    for _ in range(20):
        rig.tick(5, first=(5.2,))
        rig.tick(5, first=(4.6,))
    assert [v.kind for v in rig.verdicts] == [ALERT]


def test_silence_is_well() -> None:
    rig = Rig()
    rig.tick(1, first=(9.0,) * 30)
    assert rig.tick(60) == []
    assert rig.tick(35) == [(CLEAR, RESPONSE_TIME)]


def test_a_threshold_of_zero_never_alerts() -> None:
    rig = Rig(response_time_s=0.0, error_rate=0.0, memory=0.0, heartbeat_s=0.0)
    rig.beats = False
    rig.health.on_memory(99, 100)
    assert rig.tick(100, faults=10, first=(99.0,)) == []


# --- memory -----------------------------------------------------------------------------------


def test_memory_alerts_against_what_it_may_take() -> None:
    rig = Rig()
    rig.health.on_memory(90, 100)
    assert rig.tick() == []
    rig.health.on_memory(91, 100)
    assert rig.tick() == [(ALERT, MEMORY)]
    assert "91% of its memory, allowed are 90%" in rig.verdicts[-1].reason


def test_engines_that_reserve_their_memory_are_exempt() -> None:
    rig = Rig()
    rig.health.on_memory(99, 0)
    assert rig.tick(5) == []


def test_restarts_that_do_not_help_get_rarer() -> None:
    rig = Rig(memory_action="restart", window_s=10.0)
    restarts = []
    for _ in range(400):
        rig.health.on_memory(99, 100)
        if (RESTART, MEMORY) in rig.tick():
            restarts.append(rig.now)
            rig.health.begin()
    gaps = [b - a for a, b in pairwise(restarts)]
    assert gaps == [10.0, 20.0, 40.0, 80.0, 160.0]


# --- heartbeat --------------------------------------------------------------------------------


def test_a_lost_heartbeat_restarts() -> None:
    rig = Rig()
    rig.tick(10)
    rig.beats = False
    assert rig.tick(30) == []
    assert rig.tick(1) == [(ALERT, HEARTBEAT), (RESTART, HEARTBEAT)]
    assert rig.tick(20) == []  # told; not again at once


def test_it_need_not_beat_before_it_is_ready() -> None:
    rig = Rig()
    rig.is_ready, rig.beats = False, False
    assert rig.tick(300) == []
    rig.is_ready = True
    assert rig.tick(30) == []
    assert rig.tick(2) == [(ALERT, HEARTBEAT), (RESTART, HEARTBEAT)]


def test_a_controller_that_stood_still_blames_nobody() -> None:
    rig = Rig()
    rig.beats = False
    assert rig.tick(100, each_s=100.0) == []
    assert TICK_GAP_S < 100.0
    assert rig.tick(20) == []


# --- removed ----------------------------------------------------------------------------------


def removed(**limits: Any) -> Rig:
    rig = Rig(**limits)
    rig.tick(1, finished=10, faults=10)
    rig.is_removed = True
    rig.tick()
    return rig


def test_good_probes_bring_it_back_with_a_clean_window() -> None:
    rig = removed()
    for _ in range(GOOD_PROBES - 1):
        assert rig.probe(True) == []
    assert rig.probe(True) == [(RETURN, PROBES), (CLEAR, ERROR_RATE)]
    rig.is_removed = False
    assert rig.tick(10, finished=3) == []


def test_bad_probes_restart_it() -> None:
    rig = removed()
    assert rig.probe(True) == []
    for _ in range(BAD_PROBES - 1):
        assert rig.probe(False) == []
    assert rig.probe(False) == [(RESTART, PROBES)]


def test_a_slow_answer_is_a_bad_probe() -> None:
    rig = removed()
    told = [rig.probe(True, seconds=6.0) for _ in range(BAD_PROBES)]
    assert told[-1] == [(RESTART, PROBES)]


def test_a_probe_without_an_answer_is_a_bad_one() -> None:
    rig = removed()
    told = []
    for _ in range(int(BAD_PROBES * (PROBE_TIMEOUT_S + PROBE_EVERY_S)) + 1):
        rig.health.wants_probe(rig.now)
        told += rig.tick()
    assert told == [(RESTART, PROBES)]


def test_probes_are_not_sent_faster_than_they_are_answered() -> None:
    probes = Probes()
    assert probes.is_due(0.0)
    assert not probes.is_due(PROBE_EVERY_S)
    probes.answered(True)
    assert not probes.is_due(PROBE_EVERY_S - 0.1)
    assert probes.is_due(PROBE_EVERY_S)


def test_it_does_not_return_without_a_heartbeat() -> None:
    rig = removed(heartbeat_action="alert")
    rig.beats = False
    rig.tick(32)
    assert all(rig.probe(True) == [] for _ in range(GOOD_PROBES + 2))


def test_one_that_relapses_again_and_again_is_restarted() -> None:
    rig = removed()
    for _ in range(MAX_RELAPSES):
        for _ in range(GOOD_PROBES):
            rig.probe(True)
        rig.is_removed = False
        told = rig.tick(2, finished=5, faults=10)
        assert (REMOVE, ERROR_RATE) in told
        rig.is_removed = True
        told = rig.tick()
    assert told == [(RESTART, PROBES)]


def test_the_operator_may_put_it_back() -> None:
    rig = removed()
    rig.probe(False)
    rig.is_removed = False
    rig.tick(100, finished=1)
    assert rig.health.crossed == {}
    rig.tick(1, faults=100)
    rig.is_removed = True
    rig.tick()
    for _ in range(BAD_PROBES - 1):
        assert rig.probe(False) == []  # the former one does not count


# --- queue ------------------------------------------------------------------------------------


def test_a_long_queue_alerts_once_per_model_and_clears() -> None:
    health = QueueHealth(Health(window_s=10.0))
    told = [health.judge(waiting, float(n)) for n, waiting in enumerate([100, 101, 500, 90, 101])]
    assert [[v.kind for v in verdicts] for verdicts in told] == [[], [ALERT], [], [], []]
    assert "101" in told[1][0].reason
    assert set(health.crossed) == {QUEUE_LENGTH}
    told = [health.judge(3, 10.0 + n) for n in range(7)]
    assert [v.kind for verdicts in told for v in verdicts] == [CLEAR]


@pytest.mark.parametrize("action", [REMOVE, RESTART])
def test_its_action_is_told_once_a_window(action: str) -> None:
    health = QueueHealth(Health(window_s=10.0, queue_length_action=action))
    told = [v.kind for n in range(25) for v in health.judge(200, float(n))]
    assert told == [ALERT, action, action, action]


def test_the_slowest_instance_is_the_one_that_ended_the_fewest() -> None:
    rigs = {"a": Rig(), "b": Rig(), "c": Rig()}
    for name, finished in (("a", 3), ("b", 1), ("c", 2)):
        rigs[name].tick(5, finished=finished)
    assert slowest({name: rig.health for name, rig in rigs.items()}) == "b"
