"""RouterCore with recording effects: queueing, placing, deaths, deadlines, one end each."""

from __future__ import annotations

import pytest
from router_rig import Rig

from smmf_core import control_messages as cm
from smmf_core import messages as m
from smmf_core.errors import ApiError
from smmf_core.router.core import MAX_ATTEMPTS


def test_a_request_goes_to_a_worker_and_ends() -> None:
    rig = Rig()
    request = rig.submit()
    rig.core.turn(0.0)
    assert rig.effects.submits(0) == [request.key]
    assert request.instance == "m-0"
    rig.core.on_finish(request.key, m.Usage(1, 2), 1.0)
    rig.core.on_finish(request.key, m.Usage(1, 2), 1.0)
    assert rig.ends(request) == ["finished"]
    assert rig.core.scheduler.in_flight(0) == 0


def test_late_binding_waits_for_a_slot() -> None:
    rig = Rig(slots=1)
    first, second = rig.submit(), rig.submit()
    rig.core.turn(0.0)
    assert rig.effects.submits() == [first.key]
    rig.core.on_finish(first.key, m.Usage(1, 1), 0.5)
    rig.core.turn(0.5)
    assert rig.effects.submits() == [first.key, second.key]


def test_a_worker_is_up_only_with_ready_and_descriptors() -> None:
    rig = Rig(workers=0)
    rig.incarnations[0] = 1
    rig.registry()
    rig.submit()
    rig.core.fleet.ready(0, 1)
    rig.core.turn(0.0)
    assert rig.effects.sent == []
    rig.core.fleet.attached(0, 1, 4)
    rig.core.turn(0.0)
    assert len(rig.effects.submits()) == 1


def test_cancel_tells_the_worker_and_frees_the_slot() -> None:
    rig = Rig()
    request = rig.submit()
    rig.core.turn(0.0)
    assert rig.core.cancel(request.key)
    assert not rig.core.cancel(request.key)
    assert rig.effects.cancels() == [(0, request.key)]
    assert rig.core.scheduler.in_flight(0) == 0
    assert rig.ends(request) == []


def test_cancel_while_waiting_tells_nobody() -> None:
    rig = Rig()
    rig.submit()
    waiting = rig.submit()
    rig.core.turn(0.0)
    assert rig.core.cancel(waiting.key)
    assert rig.effects.cancels() == []


def test_nothing_sent_goes_on_elsewhere() -> None:
    rig = Rig(workers=2)
    request = rig.submit()
    rig.core.turn(0.0)
    first = request.worker
    rig.down(first, 1.0)
    rig.core.turn(1.0)
    assert request.worker != first
    assert request.submit.attempt == 1
    assert rig.ends(request) == []


def test_nothing_sent_waits_for_the_replacement() -> None:
    rig = Rig(workers=1)
    request = rig.submit()
    rig.core.turn(0.0)
    rig.down(0, 1.0)
    rig.core.turn(1.0)
    assert request.worker == -1
    rig.restart(0)
    rig.core.turn(2.0)
    assert rig.effects.submits() == [request.key, request.key]


def test_tokens_sent_end_in_an_error_once() -> None:
    rig = Rig(workers=2)
    request = rig.submit()
    rig.core.turn(0.0)
    rig.sinks[request.key].retryable = False
    rig.down(request.worker, 1.0)
    rig.core.turn(1.0)
    assert rig.ends(request) == ["worker_lost"]
    assert rig.core.open == {}


def test_a_request_that_meets_only_deaths_is_poison() -> None:
    rig = Rig(workers=1)
    request = rig.submit()
    for _ in range(MAX_ATTEMPTS):
        rig.core.turn(0.0)
        assert rig.ends(request) == []
        rig.down(0, 0.0)
        rig.restart(0)
    assert rig.ends(request) == ["poison_request"]


def test_waiting_too_long_says_why() -> None:
    rig = Rig()
    rig.submit()
    late = rig.submit()
    rig.core.turn(0.0)
    rig.core.turn(10.1)
    assert rig.ends(late) == ["queue_timeout"]


def test_a_model_that_never_was_ready_is_loading() -> None:
    rig = Rig(workers=0)
    request = rig.submit()
    rig.core.turn(5.1)
    assert rig.ends(request) == ["model_loading"]


def test_a_deadline_also_ends_a_running_request() -> None:
    rig = Rig()
    request = rig.submit(timeout_s=2.0)
    rig.core.turn(0.0)
    rig.core.turn(2.1)
    assert rig.ends(request) == ["inference_timeout"]
    assert rig.effects.cancels() == [(0, request.key)]


def test_a_full_queue_is_refused_with_retry_after() -> None:
    rig = Rig(max_queue=1)
    rig.submit()
    rig.core.turn(0.0)
    rig.submit()
    with pytest.raises(ApiError) as refused:
        rig.submit()
    assert refused.value.code == "queue_full"
    assert refused.value.status == 429
    assert refused.value.retry_after_s


def test_retry_after_follows_the_measured_rate() -> None:
    rig = Rig(max_queue=8)
    for n in range(10):  # one request ends every two seconds
        request = rig.submit(now=2.0 * n)
        rig.core.turn(2.0 * n)
        rig.core.on_finish(request.key, m.Usage(1, 1), 2.0 * n)
    rig.submit(now=20.0)
    rig.core.turn(20.0)
    for _ in range(8):
        rig.submit(now=20.0)
    with pytest.raises(ApiError) as refused:
        rig.submit(now=20.0)
    assert refused.value.retry_after_s == pytest.approx(16.0)


def test_an_unreachable_worker_is_lost_and_its_requests_go_elsewhere() -> None:
    rig = Rig(workers=2)
    rig.effects.unreachable = {0, 1}
    request = rig.submit()
    rig.core.turn(0.0)
    assert sorted(rig.effects.lost) == [0, 1]
    assert rig.ends(request) == []
    rig.effects.unreachable = set()
    rig.restart(1)
    rig.core.turn(1.0)
    assert rig.effects.submits(1) == [request.key]


def test_models_out_of_service_say_why() -> None:
    rig = Rig()
    rig.registry(state="failed", reason="no such file")
    model = rig.core.fleet.find("m")
    error = rig.core.fleet.unavailable(model)
    assert error is not None
    assert error.status == 503
    assert "no such file" in error.message
    assert error.retry_after_s is None


def test_one_that_starts_again_says_when_to_come_again() -> None:
    rig = Rig()
    rig.registry(state="failed", reason="killed by SIGKILL", retry_in_s=7.5)
    error = rig.core.fleet.unavailable(rig.core.fleet.find("m"))
    assert error is not None
    assert error.headers() == [(b"retry-after", b"8")]


def test_a_removed_model_ends_what_waits_and_lets_run_what_runs() -> None:
    rig = Rig()
    running = rig.submit()
    waiting = rig.submit()
    rig.core.turn(0.0)
    rig.core.on_registry(cm.Registry(2, [], []))
    assert rig.ends(waiting) == ["model_unavailable"]
    with pytest.raises(ApiError, match="does not exist"):
        rig.core.fleet.find("m")
    rig.core.on_finish(running.key, m.Usage(1, 1), 1.0)
    assert rig.ends(running) == ["finished"]


@pytest.mark.parametrize("state", ["stopping", "stopped", "failed", "offline"])
def test_what_waits_for_a_model_out_of_service_is_told_at_once(state: str) -> None:
    rig = Rig()
    running = rig.submit()
    waiting = rig.submit()
    rig.core.turn(0.0)
    rig.registry(state=state, reason="the operator said so")
    assert rig.ends(waiting) == ["model_unavailable"]
    assert rig.core.scheduler.waiting(0) == (0, 0)
    assert rig.ends(running) == []
    rig.down(0, 1.0)  # nobody will come in its place
    assert rig.ends(running) == ["model_unavailable"]
    assert rig.core.open == {}


def test_the_worker_of_a_removed_model_dies() -> None:
    rig = Rig()
    running = rig.submit()
    rig.core.turn(0.0)
    rig.core.on_registry(cm.Registry(2, [], []))
    rig.down(0, 1.0)
    assert rig.ends(running) == ["model_unavailable"]
    assert rig.core.open == {}


def test_a_model_started_again_is_waited_for_as_one_that_loads() -> None:
    rig = Rig()
    rig.registry(state="stopped")
    rig.down(0, 1.0)
    rig.registry(state="starting")
    rig.core.turn(1.0)
    request = rig.submit(now=1.0)
    rig.core.turn(6.1)
    assert rig.ends(request) == ["model_loading"]


def test_silence_is_no_fault_while_a_request_waits_or_its_tokens_are_collected() -> None:
    rig = Rig(workers=1, slots=2)
    stream, whole = rig.submit(), rig.submit()
    whole.submit.stream = False
    rig.core.turn(0.0)
    rig.core.on_admit(stream.key, 1)
    rig.core.on_admit(whole.key, 1)
    rig.core.on_stale(whole.key)
    assert rig.ends(whole) == []
    rig.down(0, 1.0)
    rig.core.on_stale(stream.key)
    assert rig.ends(stream) == []
    rig.restart(0)
    rig.core.turn(2.0)
    rig.core.on_stale(stream.key)
    rig.core.on_stale(whole.key)  # its new Worker has not even admitted it
    assert rig.ends(stream) == rig.ends(whole) == ["inference_timeout"]


def test_deadlines_of_ended_requests_are_forgotten() -> None:
    rig = Rig()
    for _ in range(5000):
        request = rig.submit(timeout_s=1000.0)
        rig.core.turn(0.0)
        rig.core.on_finish(request.key, m.Usage(1, 1), 0.0)
    late = rig.submit(timeout_s=2.0)
    rig.core.turn(0.0)
    assert len(rig.core._deadlines) < 2000
    rig.core.turn(2.1)
    assert rig.ends(late) == ["inference_timeout"]


def test_wide_requests_take_and_give_back_all_their_slots() -> None:
    rig = Rig(slots=4)
    wide = rig.submit(width=3)
    narrow = [rig.submit(), rig.submit()]
    rig.core.turn(0.0)
    assert rig.core.scheduler.in_flight(0) == 4
    rig.core.on_finish(wide.key, m.Usage(1, 1), 0.0)
    rig.core.turn(0.0)
    assert rig.effects.submits()[1:] == [request.key for request in narrow]
    assert rig.core.scheduler.in_flight(0) == 2


def test_a_successor_that_speaks_before_the_death_is_seen_waits() -> None:
    rig = Rig(workers=1)
    request = rig.submit()
    rig.core.turn(0.0)
    rig.restart(0)  # registry, descriptors and Ready of incarnation 2, incarnation 1 still up
    assert rig.core.fleet.workers[0].incarnation == 1
    rig.down(0, 1.0)
    assert rig.core.fleet.workers[0].incarnation == 2
    rig.core.turn(1.0)
    assert rig.effects.submits() == [request.key, request.key]


def test_the_routers_own_limit_counts_what_runs_too() -> None:
    rig = Rig(slots=4, max_open=2)
    rig.submit()
    running = rig.submit()
    rig.core.turn(0.0)
    with pytest.raises(ApiError) as refused:
        rig.submit()
    assert refused.value.code == "queue_full"
    rig.core.on_finish(running.key, m.Usage(1, 1), 1.0)
    rig.submit()
