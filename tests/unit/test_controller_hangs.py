"""A Worker whose process lives and whose loop does not: found out, ended by signals, replaced."""

from __future__ import annotations

import pytest
from controller_rig import R0, W0, W1, Rig, model

from smmf_core.control_messages import RouterReport, WorkerReport
from smmf_core.controller.hang import TICK_GAP_S, Pulse
from smmf_core.controller.table import Key
from smmf_core.lifecycle import DRAINING, LOADING, READY, STARTING

HANG_S = 20.0
ANSWER_S = 60.0


def report(steps: int = 0, running: int = 0, state: str = "ready") -> WorkerReport:
    return WorkerReport(state, 1.0, "", 4096, ["chat"], running, 0, steps, 0)


# --- the clocks -----------------------------------------------------------------------------------


def look(pulse: Pulse, has_work: bool, since: float, until: float) -> float | None:
    """Judge once a second; when it is taken for hung."""
    now = since
    while now < until:
        now += 1.0
        if pulse.judge(has_work, HANG_S, ANSWER_S, now):
            return now
    return None


def test_silence_counts_from_the_first_request_that_it_owes_a_word() -> None:
    pulse = Pulse()
    pulse.on_report(report(), 0.0)
    assert look(pulse, False, 0.0, 100.0) is None, "nobody asks it"
    assert look(pulse, True, 100.0, 200.0) == 101.0 + HANG_S + 1.0
    pulse.on_report(report(), 123.0)
    assert not pulse.judge(True, HANG_S, ANSWER_S, 124.0), "it has spoken"


def test_the_request_may_be_given_up_before_it_is_found_out() -> None:
    pulse = Pulse()
    look(pulse, True, 0.0, 2.0)
    assert look(pulse, False, 2.0, 100.0) == 1.0 + HANG_S + 1.0


def test_a_loop_that_speaks_may_take_as_long_as_an_answer_may() -> None:
    pulse = Pulse()
    for second in range(61):
        pulse.on_report(report(steps=7, running=1), float(second))
        assert not pulse.judge(True, HANG_S, ANSWER_S, second + 0.1), second
    assert "no step for 60 s" in pulse.judge(True, HANG_S, ANSWER_S, 61.1)


@pytest.mark.parametrize(("steps", "running"), [(1, 1), (0, 0)])
def test_a_loop_that_steps_or_has_nothing_to_do_is_well(steps: int, running: int) -> None:
    pulse = Pulse()
    for second in range(300):
        pulse.on_report(report(second * steps, running), float(second))
        assert not pulse.judge(True, HANG_S, ANSWER_S, second + 0.1)


def test_a_controller_that_stood_still_blames_nobody() -> None:
    pulse = Pulse()
    pulse.on_report(report(steps=7, running=1), 0.0)
    pulse.judge(True, HANG_S, ANSWER_S, 1.0)
    assert not pulse.judge(True, HANG_S, ANSWER_S, 1.0 + 100 * TICK_GAP_S)


def test_zero_is_never() -> None:
    pulse = Pulse()
    for second in range(1000):
        assert not pulse.judge(True, 0.0, ANSWER_S, float(second))


# --- what is done ---------------------------------------------------------------------------------


def ready(replicas: int = 1) -> Rig:
    rig = Rig([model(replicas=replicas)])
    rig.core.start(0.0)
    rig.start_all(0.0)
    rig.take()
    return rig


def go_on(rig: Rig, since: float, until: float, *silent: Key, busy: int = 1) -> None:
    """All beat; all but the `silent` report; the first Worker has `busy` requests open."""
    for second in range(int(since) + 1, int(until) + 1):
        now = float(second)
        rig.core.on_router_report(rig[R0], RouterReport([], [(0, busy)], 0, "ready", b""), now)
        for child in list(rig.core.workers()):
            if child.state in (READY, DRAINING):
                rig.core.on_heartbeat(child, now)
                if child.key not in silent:
                    rig.core.on_worker_report(child, report(second, 1, child.state), now)
        rig.core.on_tick(now)


def test_one_that_hangs_is_out_of_rotation_ended_by_signals_and_replaced() -> None:
    rig = ready(replicas=2)
    go_on(rig, 0, 121, W0)
    assert rig.take("TERM", "KILL") == []
    go_on(rig, 121, 122, W0)
    assert {w.instance: w.online for w in rig.core.registry_message(122.0).workers} == {
        "m-0": False,
        "m-1": True,
    }
    assert [entry for entry in rig.log if entry[0] in ("TERM", "note")] == [
        ("note", "alert", "m-0", "restarted: " + rig[W0].reason.removeprefix("restarted: ")),
        ("TERM", "m-0"),
    ]
    assert "no word for 121 s, allowed are 120 s ([timeouts] hang_s)" in rig[W0].reason
    rig.core.on_timer(130.0)
    assert rig.take("KILL") == [("KILL", "m-0")]
    rig.exit(W0, 130.1, "killed by SIGKILL")
    assert rig.take("spawn") == [("spawn", "m-0", 2)]
    assert rig[W0].total_restarts == 1
    assert rig[W1].state == READY


def test_the_only_one_is_restarted_too() -> None:
    rig = ready()
    go_on(rig, 0, 122, W0)
    assert rig.take("TERM") == [("TERM", "m-0")]


def test_one_that_is_silent_without_requests_is_left_alone() -> None:
    rig = ready()
    go_on(rig, 0, 600, W0, busy=0)
    assert rig.take("TERM", "KILL") == []
    assert rig[W0].state == READY


def test_one_that_loads_may_be_silent() -> None:
    rig = Rig()
    rig.core.start(0.0)
    rig.hello(R0)
    rig.report(R0, "ready")
    rig.hello(W0)
    go_on(rig, 0, 600, W0)
    assert rig.take("TERM", "KILL") == []
    assert rig[W0].state == LOADING


def test_one_that_is_to_drain_and_hangs_is_ended_by_signals() -> None:
    rig = ready()
    go_on(rig, 0, 10)
    rig.core.models.unload(rig.core.registry.find("m"), "not used", 10.0)
    assert rig[W0].state == DRAINING
    assert rig[W0].act_at > 600.0
    rig.take()
    go_on(rig, 10, 132, W0, busy=0)
    assert rig.take("TERM", "KILL") == [("TERM", "m-0")]
    rig.core.on_timer(140.0)
    assert rig.take("TERM", "KILL") == [("KILL", "m-0")]


def test_one_that_is_to_drain_and_is_stopped_is_ended_by_signals() -> None:
    rig = ready()
    go_on(rig, 0, 10)
    rig.core.models.unload(rig.core.registry.find("m"), "not used", 10.0)
    rig.take()
    for second in range(11, 42):
        rig.core.on_tick(float(second))
    assert rig.take("TERM", "KILL") == [("TERM", "m-0")]
    rig.core.on_tick(42.0)
    assert rig.take("TERM", "KILL") == [], "it is being ended"
    rig.core.on_timer(50.0)
    assert rig.take("TERM", "KILL") == [("KILL", "m-0")]


def test_one_that_drains_and_speaks_has_its_time() -> None:
    rig = ready()
    go_on(rig, 0, 10)
    rig.core.models.unload(rig.core.registry.find("m"), "not used", 10.0)
    rig.take()
    go_on(rig, 10, 400)
    assert rig.take("TERM", "KILL") == []
    rig.exit(W0, 401.0, "exited with status 0")
    rig.core.want_loaded(rig.core.registry.find("m"), 402.0)
    assert rig[W0].state == STARTING
