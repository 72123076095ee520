"""RouterCore and models that are not loaded: who is asked to load them, how long requests wait."""

from __future__ import annotations

import msgspec
import pytest
from router_rig import Rig

from smmf_core import control_messages as cm
from smmf_core import messages as m
from smmf_core.errors import ApiError
from smmf_core.router.core import Open

QUEUE_S, LOAD_WAIT_S = 10.0, 5.0  # the rig's


def waiting_rig(state: str = "registered") -> Rig:
    """A model with no Worker in that state."""
    rig = Rig(workers=0)
    rig.registry(state=state)
    return rig


def load(rig: Rig) -> None:
    """A Worker comes up."""
    rig.incarnations[0] = rig.incarnations.get(0, 0) + 1
    rig.registry()
    rig.up(0)


def unload(rig: Rig, state: str = "registered") -> None:
    """The Worker drains and ends."""
    rig.registry(state=state, online=False)
    rig.core.turn(0.0)
    rig.down(0, 0.0)
    del rig.incarnations[0]
    rig.registry(state=state)


def error_of(rig: Rig, request: Open) -> ApiError:
    error = rig.sinks[request.key].error
    assert error is not None
    return error


def test_the_first_request_asks_for_the_load_at_once_and_others_do_not() -> None:
    rig = waiting_rig()
    for n in range(5):
        rig.submit(now=0.1 * n)
    assert rig.effects.wanted == [0]


def test_it_is_asked_again_every_second_while_somebody_waits() -> None:
    rig = waiting_rig()
    request = rig.submit(now=0.0)
    for tick in range(1, 13):  # four a second
        rig.core.want_loads(tick * 0.25)
    assert rig.effects.wanted == [0] * 4
    rig.core.cancel(request.key)
    rig.core.want_loads(9.0)
    assert rig.effects.wanted == [0] * 4


def test_a_model_that_starts_already_is_not_asked_for_until_that_is_given_up() -> None:
    rig = waiting_rig("starting")
    rig.submit(now=0.0)
    rig.core.want_loads(2.0)
    assert rig.effects.wanted == []
    rig.registry(state="registered")
    rig.core.want_loads(2.25)
    assert rig.effects.wanted == [0]


def test_a_request_that_came_while_the_model_was_leaving_asks_for_it() -> None:
    rig = Rig()
    running, waiting = rig.submit(), rig.submit()
    rig.core.turn(0.0)
    rig.registry(state="registered", online=False)  # it drains: no new request goes there
    rig.core.turn(1.0)
    assert rig.effects.wanted == [0]
    rig.core.on_finish(running.key, m.Usage(1, 1), 1.0)
    rig.core.turn(1.0)
    assert rig.ends(running) == ["finished"]
    assert waiting.worker == -1
    rig.down(0, 1.5)
    load(rig)
    rig.core.turn(2.0)
    assert rig.effects.submits() == [running.key, waiting.key]
    rig.core.want_loads(4.0)
    assert rig.effects.wanted == [0]


def test_past_the_wait_it_is_told_how_far_the_load_is() -> None:
    rig = waiting_rig()
    request = rig.submit(now=0.0)
    rig.registry(state="starting")
    rig.core.fleet.on_loading(cm.Loading(0, "load", 0.43, 14.0), 3.0)
    rig.core.turn(4.9)
    assert rig.ends(request) == []
    rig.core.turn(5.0)
    error = error_of(rig, request)
    assert (error.code, error.status, error.param) == ("model_loading", 503, "model")
    assert error.message == "The model 'm' is loading: 43 %, about 12 s left."
    assert error.retry_after_s == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("ready_in_s", "expected"), [(0.5, "1"), (30.2, "31"), (600.0, "60"), (0.0, "5")]
)
def test_retry_after_is_the_estimate_within_a_minute(ready_in_s: float, expected: str) -> None:
    rig = waiting_rig("starting")
    request = rig.submit(now=0.0)
    rig.core.fleet.on_loading(cm.Loading(0, "spawn", 0.0, ready_in_s), 5.0)
    rig.core.turn(5.0)
    assert dict(error_of(rig, request).headers())[b"retry-after"].decode() == expected
    assert "0 % (spawn)" in error_of(rig, request).message


def test_why_a_load_cannot_begin_is_told() -> None:
    rig = waiting_rig()
    rig.registry(state="starting", reason="3.0 GiB are needed, 1.0 GiB are free")
    request = rig.submit(now=0.0)
    rig.core.turn(5.0)
    assert error_of(rig, request).message == (
        "The model 'm' is not loaded yet: 3.0 GiB are needed, 1.0 GiB are free."
    )


def test_a_former_loads_progress_is_not_told_of_the_next_one() -> None:
    rig = waiting_rig("starting")
    rig.core.fleet.on_loading(cm.Loading(0, "load", 0.9, 1.0), 0.0)
    load(rig)
    unload(rig)
    request = rig.submit(now=1.0)
    rig.core.turn(6.0)
    assert error_of(rig, request).message == "The model 'm' is still loading."


def test_the_time_in_the_queue_begins_when_the_model_is_ready() -> None:
    rig = waiting_rig()
    first, second = rig.submit(now=0.0), rig.submit(now=0.0)
    rig.core.turn(0.0)
    load(rig)
    rig.core.turn(4.0)  # the only slot is the first one's
    assert first.worker == 0
    rig.core.turn(4.0 + QUEUE_S - 0.1)
    assert rig.ends(second) == []
    rig.core.turn(4.0 + QUEUE_S)
    assert rig.ends(second) == ["queue_timeout"]


def test_the_clients_own_time_holds_over_load_and_queue() -> None:
    rig = waiting_rig()
    long, short = rig.submit(now=0.0, timeout_s=30.0), rig.submit(now=0.0, timeout_s=2.0)
    rig.submit(now=0.0, timeout_s=30.0)
    rig.core.turn(2.0)
    assert rig.ends(short) == ["model_loading"]
    rig.core.turn(25.0)  # longer than load_wait_s: it said so
    assert rig.ends(long) == []
    load(rig)
    rig.core.turn(26.0)
    assert long.worker == 0
    rig.core.turn(30.0)  # of the second one too, though its time in the queue is not over
    assert rig.ends(long) == ["inference_timeout"]
    assert rig.core.open == {}


def test_a_restart_never_shortens_a_wait() -> None:
    rig = Rig()
    rig.submit(now=0.0)
    rig.core.turn(0.0)
    soon, late = rig.submit(now=0.0), rig.submit(now=8.0)
    rig.down(0, 8.0)
    rig.registry(state="starting")
    rig.core.turn(8.0)
    rig.core.turn(8.0 + LOAD_WAIT_S - 0.1)
    assert rig.ends(soon) == []
    rig.core.turn(8.0 + LOAD_WAIT_S)
    assert rig.ends(soon) == ["model_loading"]
    assert rig.ends(late) == []


def test_an_unhealthy_model_serves() -> None:
    rig = Rig()
    rig.registry(state="unhealthy")
    request = rig.submit()
    rig.core.turn(0.0)
    assert request.worker == 0


def test_loads_tell_what_waits_runs_and_came() -> None:
    rig = Rig()
    first = rig.submit(now=1.0)
    rig.submit(now=2.0)
    rig.submit(now=3.0)
    rig.core.turn(3.0)
    rig.core.fleet.find("m").keep(7.0)
    assert rig.core.loads(5.0) == [cm.ModelLoad(0, 2, 1, 3, 3.0, 7.0, 1)]
    rig.core.on_finish(first.key, m.Usage(1, 1), 5.0)
    rig.core.turn(5.0)
    assert rig.core.loads(5.0) == [cm.ModelLoad(0, 1, 1, 3, 2.0, 7.0, 1)]


def test_what_was_said_of_a_load_ends_with_it() -> None:
    rig = Rig()
    found = rig.core.fleet.find("m")
    found.keep(7.0)
    rig.down(0, 1.0)
    assert (found.keep_alive_s, found.words) == (None, 1)
    rig.restart(0)
    found.keep(8.0)
    rig.submit()
    rig.submit()
    rig.core.turn(2.0)
    rig.down(0, 3.0)
    assert found.keep_alive_s == 8.0, "it is the word of who still waits"


@pytest.mark.parametrize(
    ("known", "asked"),
    [("m", "m:latest"), ("m", "alias:latest"), ("m:latest", "m"), ("a/b:latest", "a/b")],
)
def test_the_tag_latest_may_be_left_out_and_added(known: str, asked: str) -> None:
    rig = Rig()
    entry = msgspec.structs.replace(rig.core.fleet.find("m").entry, index=1, name=known)
    rig.core.on_registry(cm.Registry(2, [entry], []))
    assert rig.core.fleet.find(asked).name == known
    with pytest.raises(ApiError):
        rig.core.fleet.find("other:latest")


def test_what_waits_for_a_model_that_never_was_up_is_told_too() -> None:
    rig = waiting_rig()
    assert rig.core.loads(0.0) == []
    rig.submit(now=0.0)
    assert rig.core.loads(1.0) == [cm.ModelLoad(0, 1, 0, 1, 1.0, None)]


def test_a_router_is_ready_while_one_model_can_answer() -> None:
    rig = waiting_rig("starting")
    fleet = rig.core.fleet
    assert not fleet.is_ready
    load(rig)
    assert fleet.is_ready
    unload(rig)
    assert fleet.is_ready  # its next request loads it
    rig.registry(state="stopped")
    assert not fleet.is_ready


def test_a_model_that_is_registered_again_while_its_worker_drains() -> None:
    rig = Rig()
    rig.core.on_registry(cm.Registry(2, [], []))
    rig.registry()
    model = rig.core.fleet.find("m")
    assert model.is_loaded
    rig.down(0, 1.0)
    assert not model.is_loaded


def test_a_replica_out_of_rotation_takes_nothing_until_it_is_back() -> None:
    rig = Rig()
    rig.registry(online=False)
    request = rig.submit(now=0.0)
    rig.core.turn(0.0)
    assert request.worker == -1
    assert not rig.core.fleet.find("m").is_loaded
    rig.registry(online=True)
    rig.core.turn(1.0)
    assert request.worker == 0
    assert rig.core.fleet.find("m").is_loaded
