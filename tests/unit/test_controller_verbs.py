"""Each of the operator's words: twice, on what is starting, on what is dead, on the unknown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from controller_rig import R0, W0, W1, Rig, model

from smmf_core.config import ModelConfig
from smmf_core.control_messages import Drain
from smmf_core.errors import ConfigError, ControlError
from smmf_core.lifecycle import BACKOFF, DRAINING, FAILED, READY, STARTING, STOPPED, Child
from smmf_core.registry import Model


def rig_with(*models: ModelConfig) -> tuple[Rig, Model]:
    """All replicas of autostart models are ready; the first model."""
    rig = Rig(list(models) or [model()])
    rig.core.start(0.0)
    rig.start_all(0.0)
    rig.take()
    return rig, next(iter(rig.core.registry))


def drained(rig: Rig) -> list[str]:
    """Who was told to drain since the last look."""
    return [entry[1] for entry in rig.take() if isinstance(entry[-1], Drain)]


def end(rig: Rig, name: str, now: float) -> None:
    rig.core.on_exit(rig.child(name), "exited with status 0", now)


def fail(rig: Rig, name: str, now: float) -> None:
    """It dies so often that it is FAILED."""
    child = rig.child(name)
    while child.state != FAILED:
        rig.core.on_exit(child, "no such file", now)
        now = child.act_at if child.state == BACKOFF else now
        rig.core.on_timer(now)
    rig.take()


# --- twice ---


@pytest.mark.parametrize(
    "say",
    [
        lambda core, model: core.start_model(model, None, 5.0),
        lambda core, model: core.scale_model(model, 2, 5.0),
        lambda core, model: core.pin_model(model, True, 5.0),
        lambda core, model: core.want_loaded(model, 5.0),
        lambda core, model: core.set_online(core.find_instance("m-0"), True, 5.0),
        lambda core, model: core.start_instance(core.find_instance("m-0"), 5.0),
    ],
)
def test_to_want_what_is_there_does_nothing(say: Callable[[Any, Model], None]) -> None:
    rig, served = rig_with(model(replicas=2))
    say(rig.core, served)
    say(rig.core, served)
    assert rig.take() == []
    assert rig.core.has_reached(served)


def test_stop_twice_drains_once() -> None:
    rig, served = rig_with()
    rig.core.stop_model(served, False, None, 5.0)
    rig.core.stop_model(served, False, None, 6.0)
    assert drained(rig) == ["m-0"]
    assert rig.core.status_of(served).state == "stopping"
    end(rig, "m-0", 7.0)
    rig.core.stop_model(served, False, None, 8.0)
    status = rig.core.status_of(served)
    assert (status.state, status.reason) == ("stopped", "stopped by the operator")
    assert rig.core.has_reached(served)


def test_an_impatient_stop_kills_what_drains() -> None:
    rig, served = rig_with()
    rig.core.stop_model(served, False, None, 5.0)
    rig.take()
    rig.core.stop_model(served, True, None, 6.0)
    assert rig.take() == [("KILL", "m-0")]


def test_restart_while_it_restarts_begins_no_second_round() -> None:
    rig, served = rig_with()
    rig.core.restart_model(served, 5.0)
    assert rig.take("spawn") == [("spawn", "m-1", 1)]
    rig.core.restart_model(served, 6.0)
    assert rig.take("spawn", "KILL") == [("KILL", "m-1")], "what has not come up yet is too old"
    end(rig, "m-1", 6.1)
    assert rig.take("spawn") == [("spawn", "m-1", 2)]
    rig.start_all(7.0)
    assert drained(rig) == ["m-0"]
    end(rig, "m-0", 8.0)
    assert rig.states() == {"m-1": READY}
    assert rig.core.has_reached(served)


# --- stopped and started again ---


def test_stop_then_start_before_it_has_ended_does_not_wait_for_that() -> None:
    rig, served = rig_with()
    rig.core.stop_model(served, False, 600.0, 5.0)
    rig.core.start_model(served, None, 6.0)
    assert rig.take("spawn") == [("spawn", "m-1", 1)]
    end(rig, "m-0", 9.0)
    assert rig.take("spawn") == []
    assert rig.states() == {"m-1": STARTING}


def test_start_brings_back_the_scaled_number_and_single_stopped_replicas() -> None:
    rig, served = rig_with(model(replicas=2))
    rig.core.scale_model(served, 3, 1.0)
    rig.start_all(2.0)
    rig.core.stop_instance(rig.child("m-1"), True, None, 3.0)
    end(rig, "m-1", 3.1)
    assert sorted(rig.states()) == ["m-0", "m-2"], "it is not replaced"
    rig.core.stop_model(served, True, None, 4.0)
    for name in ("m-0", "m-2"):
        end(rig, name, 4.1)
    rig.take()
    rig.core.start_model(served, None, 5.0)
    assert sorted(entry[1] for entry in rig.take("spawn")) == ["m-0", "m-1", "m-2"]


def test_scale_to_nothing_and_back() -> None:
    rig, served = rig_with(model(replicas=2))
    rig.core.scale_model(served, 0, 1.0)
    assert drained(rig) == ["m-0", "m-1"]
    for name in ("m-0", "m-1"):
        end(rig, name, 2.0)
    assert rig.core.status_of(served).reason == "scaled to 0"
    rig.core.start_model(served, None, 3.0)
    assert len(rig.take("spawn")) == 2


def test_scaling_down_lets_the_last_ones_drain() -> None:
    rig, served = rig_with(model(replicas=3))
    rig.core.scale_model(served, 1, 1.0)
    assert sorted(drained(rig)) == ["m-1", "m-2"]
    with pytest.raises(ControlError, match="from 0 to"):
        rig.core.scale_model(served, -1, 1.0)
    assert served.target == 1


def test_a_model_that_scales_by_itself_keeps_its_bounds() -> None:
    rig, served = rig_with(model(min_replicas=1, max_replicas=2))
    words = r"m scales by itself between 1 and 2 replicas \(\[deployment\] min_replicas, max_r"
    with pytest.raises(ControlError, match=words):
        rig.core.scale_model(served, 3, 1.0)
    with pytest.raises(ControlError, match=words):
        rig.core.start_model(served, 3, 1.0)
    rig.core.scale_model(served, 2, 1.0)
    assert served.target == 2
    rig.core.scale_model(served, 0, 2.0)
    rig.core.start_model(served, None, 3.0)
    assert served.target == 1


# --- on what starts, and on what is dead ---


def test_stop_of_what_starts_does_not_wait() -> None:
    rig = Rig()
    rig.core.start(0.0)
    rig.take()
    rig.core.stop_model(rig.core.registry.find("m"), False, None, 1.0)
    assert rig.take() == [("KILL", "m-0")]
    end(rig, "m-0", 1.1)
    assert rig.take("spawn") == []


@pytest.mark.parametrize("word", ["start", "restart", "start instance", "restart instance"])
def test_what_has_failed_is_tried_again_when_asked(word: str) -> None:
    rig, served = rig_with()
    fail(rig, "m-0", 0.5)
    assert rig.core.status_of(served).state == "failed"
    assert rig.core.has_reached(served), "it will not get better by itself"
    child = rig.child("m-0")
    {
        "start": lambda: rig.core.start_model(served, None, 9.0),
        "restart": lambda: rig.core.restart_model(served, 9.0),
        "start instance": lambda: rig.core.start_instance(child, 9.0),
        "restart instance": lambda: rig.core.restart_instance(child, 9.0),
    }[word]()
    assert child.state == STARTING
    assert child.short_lives == 0, "no former failure counts against it"


def test_what_waits_for_its_next_start_is_started_at_once() -> None:
    rig, served = rig_with()
    for now in (0.1, 0.2):
        rig.core.on_exit(rig.child("m-0"), "killed", now)
        rig.core.on_timer(now)
    assert rig.child("m-0").is_delayed
    rig.take()
    rig.core.start_model(served, None, 1.0)
    assert [entry[:2] for entry in rig.take("spawn")] == [("spawn", "m-0")]


def test_stop_of_what_has_failed_stops_it() -> None:
    rig, served = rig_with()
    fail(rig, "m-0", 0.5)
    rig.core.stop_model(served, False, None, 1.0)
    assert rig.states() == {}
    assert rig.core.status_of(served).state == "stopped"


# --- one instance ---


def test_an_offline_replica_runs_and_gets_no_requests() -> None:
    rig, served = rig_with(model(replicas=2))
    rig.core.set_online(rig.child("m-0"), False, 1.0)
    [first, second] = rig.core.registry_message(0.0).workers
    assert (first.online, second.online) == (False, True)
    status = rig.core.status_of(served)
    assert (status.is_degraded, status.reason) == (True, "offline (by the operator)")
    rig.core.set_online(rig.child("m-1"), False, 1.0)
    status = rig.core.status_of(served)
    assert (status.state, status.reason) == ("offline", "taken out of rotation by the operator")
    rig.core.set_online(rig.child("m-0"), True, 2.0)
    assert rig.core.status_of(served).state == "ready"


def test_only_what_runs_is_taken_out_of_rotation_and_its_slot_forgets_it() -> None:
    rig, first = rig_with(model(replicas=2))
    gone = rig.child("m-1")
    rig.core.set_online(gone, False, 0.0)
    rig.core.scale_model(first, 1, 1.0)
    end(rig, "m-1", 2.0)
    with pytest.raises(ControlError, match="m-1 is stopped"):
        rig.core.set_online(gone, False, 3.0)
    rig.core.scale_model(first, 2, 4.0)
    assert not rig.child("m-1").is_offline


@pytest.mark.parametrize("is_before", [True, False])
def test_what_a_stop_ends_comes_back_into_rotation(is_before: bool) -> None:
    """Whether it was taken out of rotation before, or while it drained."""
    rig, served = rig_with(model(replicas=2))
    if is_before:
        rig.core.set_online(rig.child("m-1"), False, 1.0)
    rig.core.stop_instance(rig.child("m-1"), False, None, 1.0)
    if not is_before:
        rig.core.set_online(rig.child("m-1"), False, 1.0)
    end(rig, "m-1", 2.0)
    rig.core.start_model(served, 2, 3.0)
    rig.start_all(4.0)
    assert rig.core.status_of(served).is_degraded is False


def test_why_one_failed_says_more_than_that_another_is_offline() -> None:
    rig, served = rig_with(model(replicas=3))
    rig.core.set_online(rig.child("m-0"), False, 1.0)
    fail(rig, "m-1", 2.0)
    assert rig.core.status_of(served).reason == "no such file"


def test_offline_outlives_the_process() -> None:
    rig, _ = rig_with()
    rig.core.set_online(rig.child("m-0"), False, 1.0)
    rig.core.on_exit(rig.child("m-0"), "killed", 5.0)
    rig.core.on_timer(5.0)
    rig.start_all(6.0)
    assert not rig.child("m-0").is_online


def test_restart_of_an_instance_keeps_its_name() -> None:
    rig, _ = rig_with(model(replicas=2))
    rig.core.restart_instance(rig.child("m-0"), 1.0)
    assert drained(rig) == ["m-0"]
    assert rig.child("m-0").state == DRAINING
    end(rig, "m-0", 2.0)
    assert rig.take("spawn") == [("spawn", "m-0", 2)]


def test_start_of_an_instance_that_nobody_needs_says_so() -> None:
    rig, served = rig_with(model(replicas=2))
    rig.core.scale_model(served, 1, 1.0)
    end(rig, "m-1", 2.0)
    with pytest.raises(ControlError, match="m has its 1 replica without m-1: scale it up"):
        rig.core.start_instance(rig.child("m-1"), 3.0)
    rig.core.stop_model(served, True, None, 4.0)
    with pytest.raises(ControlError, match="start the model"):
        rig.core.start_instance(rig.child("m-0"), 5.0)
    with pytest.raises(ControlError, match="no instance named m-9"):
        rig.core.find_instance("m-9")


# --- registering ---


def test_another_config_needs_other_memory_than_was_measured() -> None:
    rig, served = rig_with()
    served.memory_bytes = 7
    same = msgspec.structs.replace(served.config, inference={"temperature": 0.1})
    rig.core.replace_model(served, same, 1.0)
    assert served.memory_bytes == 7
    rig.core.replace_model(served, msgspec.structs.replace(same, engine={"tokens": 9}), 2.0)
    assert served.memory_bytes == 0


def test_what_could_not_be_changed_is_forgotten_once_the_files_have_it_as_it_is() -> None:
    rig, served = rig_with()
    rig.core.replace_model(served, msgspec.structs.replace(model(), engine={"tokens": 9}), 1.0)
    rig.core.on_exit(rig.child("m-1"), "no such file", 2.0, is_unfit=True)
    assert rig.core.status_of(served).reason.startswith("the change could not be made")
    rig.core.keep_model(served, 3.0)
    assert rig.core.status_of(served).reason == ""
    rig.core.remove_model(served, 4.0)
    rig.core.keep_model(served, 5.0)
    assert rig.core.status_of(served).reason == "was removed"


def test_routers_are_told_what_a_model_costs() -> None:
    small = model("s", memory_gib=1.0)
    rig, _ = rig_with(model("l", memory_gib=4.0), small)
    costs = {entry.name: entry.cost for entry in rig.core.registry_message(0.0).models}
    assert costs == {"l": 4.2, "s": 1.0}


def test_a_model_that_is_added_starts_and_one_that_is_removed_drains() -> None:
    rig, served = rig_with()
    added = rig.core.add_model(model("n"), 1.0, is_runtime=True)
    assert rig.take("spawn") == [("spawn", "n-0", 1)]
    with pytest.raises(ConfigError, match="'n'"):
        rig.core.add_model(model("n"), 1.0, is_runtime=True)
    rig.core.remove_model(served, 2.0)
    rig.core.remove_model(served, 2.0)
    status = rig.core.status_of(served)
    assert (status.state, status.reason) == ("stopping", "was removed")
    with pytest.raises(ControlError, match="being removed"):
        rig.core.start_model(served, None, 3.0)
    end(rig, "m-0", 4.0)
    assert [m.name for m in rig.core.registry] == [added.name]
    assert W0 not in rig.core.children
    with pytest.raises(ControlError, match="no model named m"):
        rig.core.registry.find("m")


def test_a_model_may_come_back_while_it_is_being_removed() -> None:
    rig, served = rig_with()
    rig.core.remove_model(served, 1.0)
    again = rig.core.add_model(model(replicas=2), 2.0, is_runtime=True)
    assert again is served
    assert served.desired == 2
    end(rig, "m-0", 3.0)
    rig.start_all(4.0)
    assert len(rig.states()) == 2
    assert rig.core.has_reached(served)


def test_a_model_without_autostart_is_registered_until_it_is_wanted() -> None:
    rig, served = rig_with(model(autostart=False))
    assert rig.take("spawn") == []
    assert rig.core.status_of(served).state == "registered"
    rig.core.on_load_wanted(served.index, 1.0)
    rig.core.on_load_wanted(served.index, 1.5)
    assert rig.take("spawn") == [("spawn", "m-0", 1)], "one load for all who wait"
    rig.core.on_load_wanted(99, 2.0)


def test_nobody_loads_what_the_operator_stopped() -> None:
    rig, served = rig_with(model(autostart=False))
    rig.core.stop_model(served, False, None, 1.0)
    rig.core.on_load_wanted(served.index, 2.0)
    assert rig.take("spawn") == []


def test_an_alias_may_be_pointed_elsewhere_but_no_model_renamed() -> None:
    first = model("a")
    first.model.aliases = ["chat"]
    rig, served = rig_with(first, model("b"))
    other = rig.core.registry.find("b")
    rig.core.point_alias("chat", other, 1.0)
    rig.core.point_alias("chat", other, 1.0)
    entries = {entry.name: entry.aliases for entry in rig.core.registry_message(0.0).models}
    assert entries == {"a": [], "b": ["chat"]}
    with pytest.raises(ControlError, match="own name"):
        rig.core.point_alias("a", other, 2.0)
    rig.core.forget_alias("chat", 3.0)
    with pytest.raises(ControlError, match="no alias named chat"):
        rig.core.forget_alias("chat", 3.0)
    assert served.aliases == []


def test_a_file_wins_for_the_aliases_that_it_names() -> None:
    first = model("a")
    first.model.aliases = ["chat"]
    rig, served = rig_with(first, model("b"))
    rig.core.point_alias("chat", rig.core.registry.find("b"), 1.0)
    changed = msgspec.structs.replace(first, inference={"temperature": 0.1})
    rig.core.replace_model(served, changed, 2.0)
    assert rig.core.registry.find("chat") is served


def test_a_pin_is_told_and_kept() -> None:
    rig, served = rig_with()
    rig.core.pin_model(served, True, 1.0)
    assert served.index in rig.core.models.changed
    rig.core.pin_model(served, False, 1.0)
    assert not served.is_pinned


def test_slots_of_a_model_keep_their_numbers() -> None:
    rig, served = rig_with(model("m", replicas=2))
    names: dict[tuple[str, int], Child] = dict(rig.core.children)
    rig.core.scale_model(served, 1, 1.0)
    end(rig, "m-1", 2.0)
    rig.core.scale_model(served, 2, 3.0)
    assert dict(rig.core.children) == names
    assert {R0, W0, W1} == set(names)
    assert rig.child("m-1").state == STARTING
    assert rig.child("m-0").state != STOPPED
