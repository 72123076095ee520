"""The Controller's decisions against a recording fake: what to spawn, adopt, connect, end."""

from __future__ import annotations

from typing import Any

import pytest
from controller_rig import R0, SPEC, W0, W1, Rig, model

from smmf_core.control_messages import Detach, Drain, WorkerLost
from smmf_core.controller.core import ADOPT_S, MAX_LOSSES
from smmf_core.controller.lives import DRAIN_MARGIN_S, TERM_WAIT_S
from smmf_core.controller.rings import shares
from smmf_core.controller.table import WORKER
from smmf_core.errors import ConfigError, ControlError
from smmf_core.lifecycle import BACKOFF, DRAINING, FAILED, LOADING, READY, STARTING, STOPPED
from smmf_core.messages import PROTOCOL
from smmf_core.registry import LiveRegistry


def test_routers_start_first_and_what_is_not_to_start_does_not() -> None:
    rig = Rig([model("a", 2), model("b", autostart=False)], routers=2)
    rig.core.start(0.0)
    assert [name for _, name, _ in rig.take("spawn")] == ["router-0", "router-1", "a-0", "a-1"]
    entries = rig.core.registry_message(0.0).models
    assert [(e.name, e.state, e.reason) for e in entries] == [
        ("a", "starting", ""),
        ("b", "registered", "not loaded: its first request loads it"),
    ]


def test_a_pair_is_connected_once_both_have_said_hello() -> None:
    rig = Rig()
    rig.core.start(0.0)
    rig.take()
    rig.hello(W0)
    assert rig.take() == [("welcome", "m-0")]
    rig.hello(R0)
    assert rig.take() == [("welcome", "router-0"), ("attach", "m-0", 1, "router-0", 10)]


@pytest.mark.parametrize(("slots", "dealt"), [(10, [4, 3, 3]), (3, [1, 1, 1]), (1, [1, 1, 1])])
def test_routers_share_a_workers_slots(slots: int, dealt: list[int]) -> None:
    assert shares(slots, 3) == dealt


def test_only_the_workers_word_makes_it_ready() -> None:
    rig = Rig()
    rig.core.start(0.0)
    rig.hello(W0)
    assert rig[W0].state == LOADING
    rig.report(W0, "loading")
    assert rig[W0].state == LOADING
    rig.report(W0, "ready")
    assert rig[W0].state == READY
    [entry] = rig.core.registry_message(0.0).models
    assert (entry.state, entry.context_length, entry.capabilities) == ("ready", 4096, ["chat"])


def test_every_registry_message_has_a_new_version() -> None:
    rig = Rig()
    assert rig.core.registry_message(0.0).version < rig.core.registry_message(0.0).version


def test_a_dead_worker_is_forgotten_and_restarts_at_once() -> None:
    rig = Rig()
    rig.all_ready()
    rig.exit(W0, now=50.0)
    assert rig.take() == [("send", "router-0", Detach(0, 1, 0, 1))]
    assert rig[W0].state == BACKOFF
    assert rig.core.registry_message(0.0).workers == []
    rig.core.on_timer(50.0)
    assert rig.take() == [("spawn", "m-0", 2)]
    rig.hello(W0, 50.1)
    assert ("attach", "m-0", 2, "router-0", 10) in rig.take()


def test_a_dead_router_gets_a_new_epoch_and_fresh_rings() -> None:
    rig = Rig()
    rig.all_ready()
    rig.exit(R0, now=50.0)
    assert rig.take() == [("send", "m-0", Detach(0, 1, 0, 1))]
    rig.core.on_timer(50.0)
    rig.hello(R0, 50.1)
    assert rig.take() == [
        ("spawn", "router-0", 2),
        ("welcome", "router-0"),
        ("attach", "m-0", 1, "router-0", 10),
    ]


def test_a_worker_whose_environment_is_unfit_has_failed_at_once() -> None:
    rig = Rig()
    rig.core.start(0.0)
    rig.take()
    rig.core.on_exit(rig[W0], "no msgspec there", 1.0, is_unfit=True)
    assert (rig[W0].state, rig[W0].reason) == (FAILED, "no msgspec there")


def test_a_load_that_takes_too_long_is_killed_and_counts_as_failed() -> None:
    rig = Rig()
    rig.core.start(0.0)
    rig.hello(W0, 1.0)
    rig.take()
    rig.core.on_timer(899.0)
    assert rig.take() == []
    rig.core.on_timer(900.0)
    assert ("KILL", "m-0") in rig.take()
    rig.exit(W0, 900.1, "killed by SIGKILL")
    assert rig[W0].reason == "not ready within 900 s ([timeouts] load_s)"


def test_settled_is_ready_or_failed_for_now() -> None:
    rig = Rig([model("good"), model("bad")])
    rig.core.start(0.0)
    for key in (R0, W0):
        rig.hello(key)
        rig.report(key, "ready")
    assert not rig.core.is_settled
    rig.exit(W1, 0.0)
    assert not rig.core.is_settled, "it is tried again at once"
    rig.core.on_timer(0.0)
    rig.exit(W1, 0.0)
    assert rig.core.is_settled
    assert rig.core.registry_message(0.0).is_settled


# --- adoption ---


def adopted(**hellos: Any) -> Rig:
    """A Router of epoch 3 and a Worker of incarnation 5 that live, after their Hellos."""
    rig = Rig()
    rig.core.adopt(R0, "router-0", 3, 11, 0.0)
    rig.core.adopt(W0, "m-0", 5, 12, 0.0)
    rig.core.start(0.0)
    assert rig.take() == [], "nothing is started for what may still live"
    fields = {"spec_hash": SPEC, "state": "ready", "attached": [(0, 5, 0, 3)]}
    rig.hello(R0, 0.1, **{**fields, **hellos.get("router", {})})
    rig.hello(W0, 0.2, **{**fields, **hellos.get("worker", {})})
    return rig


def test_survivors_keep_their_ring() -> None:
    rig = adopted()
    assert rig.take() == [("welcome", "router-0"), ("welcome", "m-0")]
    assert (rig[R0].state, rig[W0].state) == (READY, READY)
    assert rig.core.next_deadline == float("inf")


@pytest.mark.parametrize("forgetful", ["router", "worker"])
def test_a_ring_that_one_end_lacks_is_made_anew_for_both(forgetful: str) -> None:
    rig = adopted(**{forgetful: {"attached": []}})
    assert [entry for entry in rig.take() if entry[0] != "welcome"] == [
        ("send", "m-0", Detach(0, 5, 0, 3)),
        ("send", "router-0", Detach(0, 5, 0, 3)),
        ("attach", "m-0", 5, "router-0", 10),
    ]


def test_a_ring_to_a_peer_that_died_meanwhile_is_dropped() -> None:
    rig = adopted(worker={"attached": [(0, 5, 0, 2), (0, 5, 0, 3)]})
    assert [e for e in rig.take() if e[0] != "welcome"] == [("send", "m-0", Detach(0, 5, 0, 2))]


def test_what_died_meanwhile_starts_with_the_next_incarnation() -> None:
    rig = Rig()
    rig.core.adopt(R0, "router-0", 3, 0, 0.0)
    rig.core.adopt(W0, "m-0", 5, 0, 0.0)
    rig.core.start(0.0)
    assert rig.take() == [("spawn", "router-0", 4), ("spawn", "m-0", 6)]


def test_another_protocol_is_drained_then_replaced() -> None:
    rig = adopted(worker={"protocol": PROTOCOL + 1})
    assert rig.take() == [("welcome", "router-0"), ("send", "m-0", Drain(30.0))]
    assert rig[W0].state == DRAINING
    rig.exit(W0, 1.0)
    assert ("spawn", "m-0", 6) in rig.take()


def test_another_spec_serves_until_its_successor_does() -> None:
    rig = adopted(worker={"spec_hash": "another"})
    assert rig.take() == [("welcome", "router-0"), ("welcome", "m-0"), ("spawn", "m-1", 1)]
    rig.hello(W1, 1.0)
    rig.report(W1, "ready", 1.0)
    assert [e for e in rig.take() if e[:2] == ("send", "m-0")] == [("send", "m-0", Drain(600.0))]
    rig.exit(W0, 2.0)
    assert rig.take("spawn") == []


def test_who_stays_silent_is_ended_then_replaced() -> None:
    rig = Rig()
    rig.core.adopt(W0, "m-0", 5, 12, 0.0)
    rig.core.start(0.0)
    rig.take()
    assert rig.core.next_deadline == ADOPT_S
    rig.core.on_timer(ADOPT_S)
    assert rig.take() == [("TERM", "m-0")]
    rig.core.on_timer(ADOPT_S + TERM_WAIT_S)
    assert rig.take() == [("KILL", "m-0")]
    rig.exit(W0, 20.0)
    assert rig.take() == [("spawn", "m-0", 6)]


def test_a_worker_that_nobody_wants_any_more_is_drained_and_forgotten() -> None:
    rig = Rig(ids={"m-0": 4, "old-0": 0})
    rig.core.adopt(W0, "old-0", 2, 12, 0.0)
    rig.core.start(0.0)
    rig.take()
    rig.hello(W0, 0.1, spec_hash="x", state="ready")
    assert rig.take() == [("send", "old-0", Drain(30.0))]
    rig.exit(W0, 1.0)
    assert W0 not in rig.core.children
    assert (WORKER, 4) in rig.core.children, "m-0 kept its number"


def test_who_drains_for_nobody_keeps_its_name_until_it_has_ended() -> None:
    """Two of one name would be taken for one, and their memory counted once."""
    rig = Rig()
    rig.core.adopt((WORKER, 7), "old-0", 2, 12, 0.0)
    rig.core.start(0.0)
    rig.take()
    rig.core.add_model(model("old"), 1.0, is_runtime=True)
    assert [entry[1] for entry in rig.take("spawn")] == ["old-1"]
    assert rig.core.find_instance("old-0").pid == 12


def test_a_survivor_of_a_replacement_is_kept_whatever_its_number() -> None:
    rig = Rig(ids={"m-0": 0, "m-1": 1})
    rig.core.adopt(R0, "router-0", 3, 0, 0.0)
    rig.core.adopt(W0, "m-0", 7, 0, 0.0)
    rig.core.adopt(W1, "m-1", 2, 12, 0.0)
    rig.core.start(0.0)
    assert rig.take("spawn") == [("spawn", "router-0", 4)]
    rig.hello(W1, 0.1, spec_hash=SPEC, state="ready")
    assert rig[W1].state == READY


def test_a_reconnect_changes_nothing() -> None:
    rig = Rig()
    rig.all_ready()
    rig.core.on_disconnect(rig[W0])
    rig.hello(W0, 1.0, spec_hash=SPEC, state="ready", attached=[(0, 1, 0, 1)])
    assert rig.take() == [("welcome", "m-0")]


# --- ending ---


def test_stop_drains_then_insists() -> None:
    rig = Rig()
    rig.all_ready()
    rig.core.stop_instance(rig[W0], force=False, timeout_s=7.0, now=100.0)
    assert rig.take() == [("send", "m-0", Drain(7.0))]
    [entry] = rig.core.registry_message(0.0).workers
    assert not entry.online
    due = 100.0 + 7.0 + DRAIN_MARGIN_S
    rig.core.on_timer(due - 0.1)
    assert rig.take() == []
    rig.core.on_timer(due)
    rig.core.on_timer(due + TERM_WAIT_S)
    assert rig.take() == [("TERM", "m-0"), ("KILL", "m-0")]
    rig.exit(W0, 120.0)
    assert rig[W0].state == STOPPED
    assert rig.take("spawn") == []
    [told] = rig.core.registry_message(0.0).models
    assert (told.state, told.reason) == ("stopped", "stopped by the operator")


def test_stop_by_force_and_stop_of_what_only_loads_do_not_wait() -> None:
    rig = Rig([model(replicas=2)])
    rig.all_ready()
    rig.core.stop_instance(rig[W0], force=True, timeout_s=None, now=1.0)
    assert rig.take() == [("KILL", "m-0")]
    rig.exit(W1, 2.0)
    rig.core.on_timer(2.0)
    rig.take()
    rig.core.stop_instance(rig[W1], force=False, timeout_s=None, now=2.5)
    assert rig.take() == [("KILL", "m-1")]


def test_stop_while_waiting_for_a_restart() -> None:
    rig = Rig()
    rig.all_ready()
    rig.exit(W0, 0.5)
    rig.core.stop_instance(rig[W0], force=False, timeout_s=None, now=0.6)
    assert rig[W0].state == STOPPED
    rig.core.on_timer(1000.0)
    assert rig.take("spawn") == []


def test_a_child_that_drains_by_itself_is_replaced_when_it_has_ended() -> None:
    rig = Rig()
    rig.all_ready()
    rig.report(W0, "draining", 5.0)
    assert rig[W0].state == DRAINING
    rig.exit(W0, 6.0)
    assert ("spawn", "m-0", 2) in rig.take()


def test_shut_down_ends_routers_before_workers() -> None:
    rig = Rig([model(replicas=2)])
    rig.all_ready()
    rig.core.shut_down(force=False, now=10.0)
    assert rig.take() == [("send", "router-0", Drain(30.0))]
    rig.exit(R0, 11.0)
    drains = [entry for entry in rig.take() if isinstance(entry[-1], Drain)]
    assert [name for _, name, _ in drains] == ["m-0", "m-1"]
    assert not rig.core.is_stopped
    rig.exit(W0, 12.0)
    rig.exit(W1, 12.0)
    assert rig.core.is_stopped
    assert rig.take("spawn") == []


def test_a_worker_that_dies_while_the_routers_drain_is_not_restarted() -> None:
    rig = Rig()
    rig.all_ready()
    rig.core.shut_down(force=False, now=10.0)
    rig.exit(W0, 10.5)
    rig.exit(R0, 11.0)
    rig.core.on_timer(1000.0)
    assert rig.core.is_stopped
    assert rig.take("spawn") == []


def test_a_second_shut_down_kills_all() -> None:
    rig = Rig()
    rig.all_ready()
    rig.core.shut_down(force=False, now=10.0)
    rig.take()
    rig.core.shut_down(force=True, now=11.0)
    assert rig.take() == [("KILL", "router-0"), ("KILL", "m-0")]


# --- a Worker that a Router cannot reach ---


def test_a_lost_worker_gets_new_rings_a_few_times_then_a_new_process() -> None:
    rig = Rig()
    rig.all_ready()
    for _ in range(MAX_LOSSES):
        rig.core.on_worker_lost(rig[R0], WorkerLost(0, 1, "no answer"), 5.0)
        assert rig.take("attach") == [("attach", "m-0", 1, "router-0", 10)]
    rig.core.on_worker_lost(rig[R0], WorkerLost(0, 1, "no answer"), 5.0)
    assert rig.take() == [("KILL", "m-0")]


def test_a_loss_of_a_former_incarnation_is_old_news() -> None:
    rig = Rig()
    rig.all_ready()
    rig.core.on_worker_lost(rig[R0], WorkerLost(0, 0, "no answer"), 5.0)
    rig.core.on_worker_lost(rig[R0], WorkerLost(9, 1, "no answer"), 5.0)
    assert rig.take() == []


# --- registry ---


def test_names_and_aliases_are_unique() -> None:
    registry = LiveRegistry()
    first = model("a")
    first.model.aliases = ["b"]
    registry.add(first, 1)
    assert registry.find("b").name == "a"
    with pytest.raises(ConfigError, match="'b'"):
        registry.add(model("b"), 1)
    with pytest.raises(ControlError, match="no model named c"):
        registry.find("c")


def test_indexes_of_a_former_controller_stay() -> None:
    registry = LiveRegistry({"b": 4, "gone": 7}, version=20)
    assert [registry.add(model(name), 1).index for name in ("a", "b", "c")] == [8, 4, 9]
    assert registry.version > 20


def test_states_used_are_known() -> None:
    rig = Rig()
    rig.core.start(0.0)
    assert {child.state for child in rig.core.children.values()} == {STARTING}
