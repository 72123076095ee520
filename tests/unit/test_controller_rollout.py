"""Rolling replacement: without a gap where memory allows, and back again if the new fails."""

from __future__ import annotations

import msgspec
from controller_rig import Rig, model

from smmf_core.config import ModelConfig
from smmf_core.control_messages import Drain
from smmf_core.lifecycle import BACKOFF, DRAINING, READY, STARTING
from smmf_core.registry import Model

GIB = 2**30


def changed(config: ModelConfig, **engine: int) -> ModelConfig:
    return msgspec.structs.replace(config, engine=engine or {"tokens": 7})


def ready(replicas: int = 1, budget_gib: float = 0.0) -> tuple[Rig, Model]:
    rig = Rig([model(replicas=replicas, memory_gib=1.0)])
    if budget_gib:
        rig.core.budgets["cpu"] = int(budget_gib * GIB)
    rig.core.start(0.0)
    rig.start_all(0.0)
    rig.take()
    return rig, rig.core.registry.find("m")


def drained(rig: Rig) -> list[str]:
    return [entry[1] for entry in rig.take() if isinstance(entry[-1], Drain)]


def end(rig: Rig, name: str, now: float) -> None:
    rig.core.on_exit(rig.child(name), "exited with status 0", now)


def die(rig: Rig, name: str, now: float) -> None:
    rig.core.on_exit(rig.child(name), "no such file: w", now)
    rig.core.on_timer(now)


def test_each_replica_is_replaced_only_when_its_successor_serves() -> None:
    rig, served = ready(replicas=2)
    rig.core.replace_model(served, changed(served.config), 1.0)
    order = []
    for now in range(2, 12):
        serving = [name for name, state in rig.states().items() if state == READY]
        assert len(serving) >= 2, "never fewer than wanted"
        order += [entry[1] for entry in rig.take("spawn")]
        rig.start_all(float(now))
        for child in list(rig.core.workers()):
            if child.state == DRAINING:
                end(rig, child.name, now + 0.5)
    assert order == ["m-2", "m-3"] or len(order) == 2
    assert set(rig.states().values()) == {READY}
    assert len(rig.states()) == 2
    assert {c.generation for c in rig.core.workers() if c.is_alive} == {served.generation}
    assert served.former is None


def test_without_memory_for_one_more_they_are_renewed_one_at_a_time() -> None:
    rig, served = ready(replicas=2, budget_gib=2.5)
    rig.core.restart_model(served, 1.0)
    assert drained(rig) == ["m-0"]
    end(rig, "m-0", 2.0)
    assert rig.take("spawn") == [("spawn", "m-0", 2)]
    rig.start_all(3.0)
    assert drained(rig) == ["m-1"]
    end(rig, "m-1", 4.0)
    rig.start_all(5.0)
    assert rig.states() == {"m-0": READY, "m-1": READY}
    assert rig.core.has_reached(served)


def test_a_config_that_does_not_load_leaves_the_former_one_serving() -> None:
    rig, served = ready()
    former = served.config
    rig.core.replace_model(served, changed(former), 1.0)
    die(rig, "m-1", 2.0)
    assert rig.child("m-1").state == STARTING, "once more"
    die(rig, "m-1", 3.0)
    assert rig.states() == {"m-0": READY}
    assert served.config is former
    status = rig.core.status_of(served)
    assert status.state == "ready"
    assert status.reason == "the change could not be made: no such file: w"
    assert rig.core.has_reached(served)


def test_a_config_that_does_not_load_is_undone_also_where_nothing_is_left_to_serve() -> None:
    rig, served = ready(budget_gib=1.5)
    former = served.config
    rig.core.replace_model(served, changed(former), 1.0)
    end(rig, "m-0", 2.0)
    die(rig, "m-0", 3.0)
    die(rig, "m-0", 4.0)
    assert served.config is former
    rig.start_all(5.0)
    assert rig.states() == {"m-0": READY}
    assert "could not be made" in rig.core.status_of(served).reason


def test_a_change_that_no_process_depends_on_replaces_none() -> None:
    rig, served = ready(replicas=2)
    config = msgspec.structs.replace(
        served.config, deployment=msgspec.structs.replace(served.config.deployment, weight=3.0)
    )
    rig.core.replace_model(served, config, 1.0)
    assert rig.take() == []
    assert {worker.weight for worker in rig.core.registry_message(0.0).workers} == {3.0}


def test_a_changed_number_of_replicas_wins_over_a_scaled_one() -> None:
    rig, served = ready()
    rig.core.scale_model(served, 3, 1.0)
    rig.start_all(2.0)
    rig.take()
    config = msgspec.structs.replace(
        served.config, deployment=msgspec.structs.replace(served.config.deployment, replicas=2)
    )
    rig.core.replace_model(served, config, 3.0)
    assert len(drained(rig)) == 1
    assert not served.is_scaled


def test_an_old_replica_that_dies_meanwhile_comes_back_as_a_new_one() -> None:
    rig, served = ready(replicas=2)
    rig.core.replace_model(served, changed(served.config), 1.0)
    rig.core.on_exit(rig.child("m-0"), "killed", 50.0)
    assert rig.child("m-0").state == BACKOFF
    rig.core.on_timer(50.0)
    assert rig.child("m-0").generation == served.generation


def test_what_has_not_come_up_yet_is_replaced_at_once() -> None:
    rig = Rig([model()])
    rig.core.start(0.0)
    served = rig.core.registry.find("m")
    rig.take()
    rig.core.replace_model(served, changed(served.config), 1.0)
    assert rig.take() == [("KILL", "m-0")]
    end(rig, "m-0", 1.1)
    assert rig.take("spawn") == [("spawn", "m-0", 2)]


def test_a_second_change_in_the_midst_of_the_first_replaces_both() -> None:
    rig, served = ready()
    first = served.config
    rig.core.replace_model(served, changed(first, tokens=1), 1.0)
    rig.start_all(2.0)
    rig.core.replace_model(served, changed(first, tokens=2), 3.0)
    for now in range(4, 14):
        rig.start_all(float(now))
        for child in list(rig.core.workers()):
            if child.state == DRAINING:
                end(rig, child.name, now + 0.5)
    assert len(rig.states()) == 1
    assert {c.generation for c in rig.core.workers() if c.is_alive} == {served.generation}
    assert served.config.engine == {"tokens": 2}


def test_stop_in_the_midst_of_a_replacement_ends_all() -> None:
    rig, served = ready()
    rig.core.replace_model(served, changed(served.config), 1.0)
    rig.core.stop_model(served, False, None, 2.0)
    for child in list(rig.core.workers()):
        if child.is_alive:
            end(rig, child.name, 3.0)
    assert rig.states() == {}
    assert rig.core.status_of(served).state == "stopped"
    rig.take()
    rig.core.start_model(served, None, 4.0)
    assert len(rig.take("spawn")) == 1
