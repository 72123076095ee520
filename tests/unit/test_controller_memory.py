"""Who is loaded where memory is short: eviction, waiting, out of memory, and idle unloading."""

from __future__ import annotations

import msgspec
import pytest
from controller_rig import R0, Rig, model

from smmf_core.config import ModelConfig
from smmf_core.control_messages import Drain, Loading
from smmf_core.lifecycle import FAILED, LOADING, READY, STARTING, WAITING
from smmf_core.registry import Model

GIB = 2**30


def rig_of(*models: ModelConfig, budget_gib: float = 2.0) -> Rig:
    rig = Rig(list(models))
    rig.core.budgets["cpu"] = int(budget_gib * GIB)
    rig.core.start(0.0)
    rig.start_all(0.0)
    rig.take()
    return rig


def on_demand(name: str, gib: float = 2.0, **deployment: object) -> ModelConfig:
    return model(name, autostart=False, memory_gib=gib, **deployment)


def find(rig: Rig, name: str) -> Model:
    return rig.core.registry.find(name)


def load(rig: Rig, name: str, now: float) -> None:
    """Asked for by a request, and loaded."""
    rig.core.on_load_wanted(find(rig, name).index, now)
    rig.start_all(now)
    rig.take()


def end(rig: Rig, name: str, now: float, reason: str = "exited with status 0") -> None:
    rig.core.on_exit(rig.child(name), reason, now)


def drained(rig: Rig) -> list[str]:
    return [entry[1] for entry in rig.take() if isinstance(entry[-1], Drain)]


# --- making room ---


def test_an_idle_model_makes_room_and_stays_registered() -> None:
    rig = rig_of(on_demand("a"), on_demand("b"))
    load(rig, "a", 1.0)
    rig.core.on_load_wanted(find(rig, "b").index, 10.0)
    assert drained(rig) == ["a-0"]
    assert rig.child("b-0").state == WAITING
    status = rig.core.status_of(find(rig, "b"))
    assert (status.state, status.phase) == ("starting", "reserve memory")
    assert rig.core.status_of(find(rig, "a")).state == "registered"
    end(rig, "a-0", 11.0)
    assert rig.take("spawn") == [("spawn", "b-0", 1)]


def test_a_busy_model_is_waited_for() -> None:
    rig = rig_of(on_demand("a"), on_demand("b"))
    load(rig, "a", 1.0)
    rig.use(find(rig, "a").index, running=1, now=2.0)
    rig.core.on_load_wanted(find(rig, "b").index, 2.5)
    assert drained(rig) == []
    assert rig.child("b-0").state == WAITING
    assert "in use" in rig.child("b-0").reason
    rig.use(find(rig, "a").index, running=0, now=3.0)
    assert drained(rig) == ["a-0"]


def test_a_pinned_model_never_makes_room() -> None:
    rig = rig_of(on_demand("a"), on_demand("b"))
    load(rig, "a", 1.0)
    rig.core.pin_model(find(rig, "a"), True, 2.0)
    rig.core.on_load_wanted(find(rig, "b").index, 3.0)
    assert drained(rig) == []
    status = rig.core.status_of(find(rig, "b"))
    assert status.state == "starting"
    assert "unpin one" in status.reason
    assert rig.core.has_reached(find(rig, "b")), "it takes the operator's word"


@pytest.mark.parametrize("word", ["unpin", "stop", "rm", "scale", "budget"])
def test_what_pinned_models_kept_out_comes_in_once_there_is_room(word: str) -> None:
    rig = rig_of(on_demand("a"), on_demand("b"))
    load(rig, "a", 1.0)
    rig.core.pin_model(find(rig, "a"), True, 2.0)
    rig.core.start_model(find(rig, "b"), None, 3.0)
    assert rig.take("spawn") == []
    {
        "unpin": lambda: rig.core.pin_model(find(rig, "a"), False, 4.0),
        "stop": lambda: rig.core.stop_model(find(rig, "a"), True, None, 4.0),
        "rm": lambda: rig.core.remove_model(find(rig, "a"), 4.0),
        "scale": lambda: rig.core.scale_model(find(rig, "a"), 0, 4.0),
        "budget": lambda: rig.core.budgets.update(cpu=4 * GIB),
    }[word]()
    if word != "budget":
        end(rig, "a-0", 5.0)
    rig.core.on_tick(6.0)
    assert rig.child("b-0").state == STARTING


def test_what_is_larger_than_the_budget_fails_with_the_knob() -> None:
    rig = rig_of(model("a", memory_gib=3.0))
    assert rig.child("a-0").state == FAILED
    assert "[memory] budget_gib" in rig.core.status_of(find(rig, "a")).reason
    rig.core.on_tick(1.0)
    assert rig.child("a-0").state == FAILED
    rig.core.budgets["cpu"] = 3 * GIB
    rig.core.on_tick(2.0)
    assert rig.child("a-0").state == STARTING


def test_gpus_without_one_fail_with_the_knob() -> None:
    rig = rig_of(model("a", gpus=1))
    assert rig.child("a-0").state == FAILED
    assert "no GPU here for [deployment]" in rig.child("a-0").reason
    assert rig.child("a-0").reason.endswith("gpus")


def test_whoever_starts_a_model_waits_for_what_is_in_use() -> None:
    rig = rig_of(on_demand("a"), on_demand("b"))
    load(rig, "a", 1.0)
    rig.use(find(rig, "a").index, running=1, now=2.0)
    wanted = find(rig, "b")
    rig.core.start_model(wanted, None, 2.5)
    assert "in use" in rig.core.status_of(wanted).reason
    assert not rig.core.has_reached(wanted), "a may be idle at any time"
    rig.use(find(rig, "a").index, running=0, now=3.0)
    assert drained(rig) == ["a-0"]
    assert not rig.core.has_reached(wanted)
    end(rig, "a-0", 4.0)
    rig.start_all(5.0)
    assert rig.core.has_reached(wanted)
    assert rig.core.status_of(wanted).state == "ready"


def test_but_not_for_longer_than_a_load_may_take() -> None:
    """load_s is 900 here; another word begins the wait anew."""
    rig = rig_of(on_demand("a"), on_demand("b"))
    load(rig, "a", 1.0)
    rig.use(find(rig, "a").index, running=1, now=2.0)
    wanted = find(rig, "b")
    rig.core.start_model(wanted, None, 10.0)
    rig.core.on_tick(909.0)
    assert not rig.core.has_reached(wanted)
    rig.core.on_tick(910.0)
    assert rig.core.has_reached(wanted)
    assert rig.child("b-0").state == WAITING, "it goes on all the same"
    rig.core.start_model(wanted, None, 950.0)
    assert not rig.core.has_reached(wanted)


def test_a_replica_that_has_no_room_beside_its_own_is_not_waited_for() -> None:
    rig = rig_of(model("a", memory_gib=1.5))
    rig.core.scale_model(find(rig, "a"), 2, 1.0)
    assert rig.core.has_reached(find(rig, "a"))
    assert rig.core.status_of(find(rig, "a")).reason == "no memory on cpu beside a-0"


def test_at_the_start_nobody_is_put_out() -> None:
    rig = rig_of(model("a", memory_gib=2.0), model("b", memory_gib=2.0))
    assert rig.states() == {"a-0": READY, "b-0": WAITING}
    assert rig.core.is_settled, "nothing that is under way will change it"
    rig.use(find(rig, "b").index, waiting=1, now=1.0, oldest_wait_s=1.0)
    assert drained(rig) == ["a-0"], "a request waits for it"


def test_requests_that_come_while_it_drains_bring_it_back_later() -> None:
    rig = rig_of(on_demand("a"), on_demand("b"))
    load(rig, "a", 1.0)
    rig.core.on_load_wanted(find(rig, "b").index, 10.0)
    rig.core.on_load_wanted(find(rig, "a").index, 10.1)
    end(rig, "a-0", 11.0)
    assert rig.child("b-0").state == STARTING
    assert sum(c.need_bytes for c in rig.core.workers() if c.is_alive) <= 2 * GIB


def test_what_is_promised_is_not_given_to_another() -> None:
    """b has its place while a drains; c, smaller, does not slip in."""
    rig = rig_of(on_demand("a"), on_demand("b"), on_demand("c", 1.0))
    load(rig, "a", 1.0)
    rig.core.on_load_wanted(find(rig, "b").index, 10.0)
    rig.core.on_load_wanted(find(rig, "c").index, 10.1)
    end(rig, "a-0", 11.0)
    assert rig.child("b-0").state == STARTING
    assert rig.child("c-0").state == WAITING


def test_a_change_that_pinned_models_leave_no_room_for_is_undone() -> None:
    small, large = model("a", memory_gib=1.0), model("a", memory_gib=1.5)
    rig = rig_of(small, model("b", memory_gib=1.0))
    rig.core.pin_model(find(rig, "b"), True, 1.0)
    rig.core.replace_model(find(rig, "a"), msgspec.structs.replace(large, engine={"x": 1}), 2.0)
    end(rig, "a-0", 3.0)
    assert find(rig, "a").config is small
    rig.start_all(4.0)
    status = rig.core.status_of(find(rig, "a"))
    assert status.state == "ready"
    assert status.reason.startswith("the change could not be made: needs 1.5 GiB on cpu")


# --- out of memory ---


def run_out(rig: Rig, name: str, now: float) -> None:
    child = rig.child(name)
    rig.hello(child.key, now)
    rig.report(child.key, "failed", now, "Out of memory: 2.0 GiB asked for")
    end(rig, name, now, "exited with status 1")
    rig.core.on_timer(now)


def test_out_of_memory_is_tried_once_more_with_everything_idle_gone() -> None:
    rig = rig_of(on_demand("a", 0.5), on_demand("b", 0.5))
    load(rig, "a", 1.0)
    rig.core.on_load_wanted(find(rig, "b").index, 10.0)
    rig.take()
    run_out(rig, "b-0", 11.0)
    assert drained(rig) == ["a-0"]
    assert rig.child("b-0").state == WAITING
    end(rig, "a-0", 12.0)
    assert rig.take("spawn") == [("spawn", "b-0", 2)]
    run_out(rig, "b-0", 13.0)
    assert rig.child("b-0").state == FAILED
    assert "[deployment] memory_gib" in rig.child("b-0").reason


def test_out_of_memory_alone_is_tried_once_more_at_once() -> None:
    rig = rig_of(on_demand("a", 0.5))
    rig.core.on_load_wanted(find(rig, "a").index, 1.0)
    rig.take()
    run_out(rig, "a-0", 2.0)
    assert rig.take("spawn") == [("spawn", "a-0", 2)]


def test_what_a_request_loaded_and_failed_may_be_asked_for_again() -> None:
    rig = rig_of(on_demand("a", 0.5))
    rig.core.on_load_wanted(find(rig, "a").index, 1.0)
    run_out(rig, "a-0", 2.0)
    run_out(rig, "a-0", 3.0)
    assert rig.core.status_of(find(rig, "a")).state == "failed"
    rig.core.on_timer(rig.core.next_deadline)
    assert rig.core.status_of(find(rig, "a")).state == "registered"
    rig.take()
    rig.core.on_load_wanted(find(rig, "a").index, 500.0)
    assert rig.take("spawn") == [("spawn", "a-0", 3)]


def test_also_what_the_operator_had_started() -> None:
    rig = rig_of(on_demand("a", 0.5))
    rig.core.start_model(find(rig, "a"), None, 1.0)
    run_out(rig, "a-0", 2.0)
    run_out(rig, "a-0", 3.0)
    assert rig.core.status_of(find(rig, "a")).state == "failed"
    rig.core.on_timer(rig.core.next_deadline)
    assert rig.core.status_of(find(rig, "a")).state == "registered"


# --- idle ---


def test_an_idle_model_is_unloaded_after_its_keep_alive() -> None:
    rig = rig_of(on_demand("a", keep_alive="10s"))
    load(rig, "a", 1.0)
    rig.use(find(rig, "a").index, running=1, now=5.0)
    rig.core.on_tick(100.0)
    assert drained(rig) == [], "it is in use"
    rig.use(find(rig, "a").index, running=0, now=101.0)
    rig.core.on_tick(110.9)
    assert drained(rig) == []
    rig.core.on_tick(111.1)
    assert drained(rig) == ["a-0"]
    assert rig.core.status_of(find(rig, "a")).state == "registered"


@pytest.mark.parametrize(("said", "stays"), [(-1.0, True), (0.0, False), (3600.0, True)])
def test_a_requests_keep_alive_wins(said: float, stays: bool) -> None:
    rig = rig_of(on_demand("a", keep_alive="10s"))
    load(rig, "a", 1.0)
    rig.use(find(rig, "a").index, running=1, now=2.0)
    rig.use(find(rig, "a").index, now=3.0, keep_alive_s=said, words=1)
    rig.core.on_tick(3.1 if not stays else 30.0)
    assert (drained(rig) == []) is stays


def test_a_requests_keep_alive_is_for_one_load() -> None:
    rig = rig_of(on_demand("a", keep_alive="10s"))
    index = find(rig, "a").index
    load(rig, "a", 1.0)
    rig.use(index, now=2.0, keep_alive_s=0.0, words=1)
    rig.core.on_tick(2.1)
    assert drained(rig) == ["a-0"]
    rig.use(index, now=2.2, keep_alive_s=0.0, words=1)  # no news
    assert find(rig, "a").keep_alive_s is None
    rig.use(index, now=2.3, keep_alive_s=0.0, words=2)
    assert find(rig, "a").keep_alive_s == 0.0


def test_a_model_that_starts_with_the_server_stays() -> None:
    rig = rig_of(model("a"))
    rig.core.on_tick(1e6)
    assert drained(rig) == []


def test_a_pinned_model_is_not_unloaded_for_being_idle() -> None:
    rig = rig_of(on_demand("a", keep_alive="10s"))
    load(rig, "a", 1.0)
    rig.core.pin_model(find(rig, "a"), True, 2.0)
    rig.core.on_tick(1000.0)
    assert drained(rig) == []


# --- who waits is told ---


def loading(rig: Rig) -> list[Loading]:
    return [entry[-1] for entry in rig.take() if isinstance(entry[-1], Loading)]


def test_routers_hear_how_far_a_load_is_and_how_long_it_will_take() -> None:
    rig = rig_of(on_demand("a"))
    served = find(rig, "a")
    served.load_s = 10.0
    rig.core.on_load_wanted(served.index, 100.0)
    child = rig.child("a-0")
    rig.hello(child.key, 101.0)
    rig.core.on_tick(104.0)
    [told] = loading(rig)
    assert (told.model, told.phase, told.ready_in_s) == (served.index, "load", 6.0)
    child.progress = 0.5
    rig.core.on_tick(120.0)
    [told] = loading(rig)
    assert (told.progress, told.ready_in_s) == (0.5, 20.0), "half in 20 s, the other half likewise"
    rig.report(child.key, "ready", 121.0)
    assert served.load_s == 21.0
    rig.core.on_tick(122.0)
    assert loading(rig) == []


def test_progress_moves_the_deadline_and_standing_still_does_not() -> None:
    rig = rig_of(on_demand("a"))
    rig.core.on_load_wanted(find(rig, "a").index, 0.0)
    child = rig.child("a-0")
    rig.hello(child.key, 1.0)
    assert child.state == LOADING
    rig.report(child.key, "loading", 800.0)  # its progress is 1.0
    assert rig.core.next_deadline == 1700.0
    rig.report(child.key, "loading", 900.0)
    assert rig.core.next_deadline == 1700.0
    rig.core.on_timer(1700.0)
    assert rig.take("KILL") == [("KILL", "a-0")]
    assert "[timeouts] load_s" in child.reason


def test_a_router_that_ends_takes_its_requests_with_it() -> None:
    rig = rig_of(on_demand("a", keep_alive="10s"))
    load(rig, "a", 1.0)
    rig.use(find(rig, "a").index, running=3, now=2.0)
    rig.core.on_exit(rig[R0], "killed", 3.0)
    assert not find(rig, "a").is_busy
