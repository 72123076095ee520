"""What is done about the unwell: told, out of rotation, probed, back or restarted; and scaling."""

from __future__ import annotations

from typing import Any

import pytest
from controller_rig import Rig, model

from smmf_core.config.schema import Health
from smmf_core.control_messages import Drain, Probe, WorkerReport
from smmf_core.lifecycle import DRAINING, READY

MANY = 100  # requests: more than [health] min_samples


def ready(replicas: int = 2, **deployment: Any) -> Rig:
    rig = Rig([model(replicas=replicas, **deployment)])
    rig.core.start(0.0)
    rig.start_all(0.0)
    rig.take()
    return rig


class Life:
    """Time goes on: replicas beat, and report how their requests went."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.now = 1.0
        self.counts: dict[str, tuple[int, int]] = {}

    def answer(self, name: str, finished: int, faults: int) -> None:
        former = self.counts.get(name, (0, 0))
        self.counts[name] = (former[0] + finished, former[1] + faults)
        said = WorkerReport("ready", 1.0, "", 4096, ["chat"], 0, 0, 0, 0)
        said.finished, said.faults = self.counts[name]
        self.rig.core.on_worker_report(self.rig.child(name), said, self.now)

    def go_on(self, seconds: float, silent: str = "") -> None:
        for _ in range(int(seconds)):
            self.now += 1.0
            for child in list(self.rig.core.workers()):
                if child.state == READY and child.name != silent:
                    self.rig.core.on_heartbeat(child, self.now)
            self.rig.core.on_tick(self.now)

    def fail(self, name: str) -> None:
        """Half of its requests end in its own errors."""
        self.answer(name, 0, 0)
        self.answer(name, MANY, MANY)
        self.go_on(1)


def online(rig: Rig) -> dict[str, bool]:
    return {w.instance: w.online for w in rig.core.registry_message(0.0).workers}


def notes(rig: Rig) -> list[str]:
    return [f"{name}: {text}" for _, _, name, text in rig.take("note")]


def test_one_that_fails_requests_is_taken_out_of_rotation_and_probed() -> None:
    rig = ready()
    life = Life(rig)
    life.fail("m-0")
    assert online(rig) == {"m-0": False, "m-1": True}
    assert "50% of its requests failed" in rig.child("m-0").removed
    status = rig.core.status_of(rig.core.registry.find("m"))
    assert (status.state, status.is_degraded) == ("ready", True)
    assert [e[1] for e in rig.take() if isinstance(e[-1], Probe)] == ["m-0"]


def test_good_probes_bring_it_back_and_bad_ones_have_it_restarted() -> None:
    for is_ok in (True, False):
        rig = ready()
        life = Life(rig)
        life.fail("m-0")
        child = rig.child("m-0")
        for _ in range(5):
            life.go_on(3)
            rig.core.upkeep.on_probed(child, is_ok, 0.1)
        life.go_on(3)
        if is_ok:
            assert online(rig)["m-0"]
        else:
            assert child.state == DRAINING
            assert "probes failed" in child.reason
            assert child.total_restarts == 1
            rig.core.on_exit(child, "exited with status 0", life.now)
            assert child.state == "starting"


def test_the_last_one_in_rotation_stays() -> None:
    rig = ready(replicas=1)
    life = Life(rig)
    life.fail("m-0")
    assert online(rig) == {"m-0": True}
    status = rig.core.status_of(rig.core.registry.find("m"))
    assert (status.state, status.is_degraded) == ("unhealthy", True)
    assert "requests failed" in status.reason


def test_one_that_was_removed_returns_when_the_other_dies() -> None:
    rig = ready()
    life = Life(rig)
    life.fail("m-0")
    rig.core.on_exit(rig.child("m-1"), "killed", life.now)
    assert online(rig) == {"m-0": True}, "degraded beats dead"
    assert rig.core.status_of(rig.core.registry.find("m")).state == "unhealthy"


def test_one_that_does_not_beat_is_ended_by_signals_and_replaced() -> None:
    rig = ready()
    life = Life(rig)
    life.go_on(5)
    life.go_on(35, silent="m-0")
    child = rig.child("m-0")
    assert rig.take("TERM", "KILL") == [("TERM", "m-0")]
    assert child.state == DRAINING
    rig.core.on_timer(life.now + 10.0)
    assert rig.take("TERM", "KILL") == [("KILL", "m-0")]
    rig.core.on_exit(child, "killed by SIGKILL", life.now + 10.1)
    assert rig.take("spawn") == [("spawn", "m-0", 2)]
    assert rig.child("m-1").state == READY


def test_replicas_that_are_over_at_once_are_restarted_one_at_a_time() -> None:
    rig = ready()
    rig.core.upkeep.config.health = Health(memory_action="restart")
    rig.core.upkeep.set_limits()
    life = Life(rig)
    life.go_on(1)
    for name in ("m-0", "m-1"):
        rig.core.upkeep.on_memory(rig.child(name), 95, 100)
    life.go_on(3)
    assert (rig.child("m-0").state, rig.child("m-1").state) == (DRAINING, READY)
    rig.core.on_exit(rig.child("m-0"), "exited with status 0", life.now)
    life.go_on(3)
    assert rig.child("m-1").state == READY, "nobody would be left in rotation"
    rig.start_all(life.now)
    life.go_on(2)
    assert (rig.child("m-0").state, rig.child("m-1").state) == (READY, DRAINING)


def test_the_only_one_is_restarted_where_that_is_what_was_configured() -> None:
    rig = ready(replicas=1)
    rig.core.upkeep.config.health = Health(memory_action="restart")
    rig.core.upkeep.set_limits()
    life = Life(rig)
    life.go_on(1)
    rig.core.upkeep.on_memory(rig.child("m-0"), 95, 100)
    life.go_on(2)
    assert rig.child("m-0").state == DRAINING


def test_both_may_be_lost_at_once() -> None:
    rig = ready()
    life = Life(rig)
    life.go_on(5)
    for _ in range(35):
        life.now += 1.0
        rig.core.on_tick(life.now)
    assert rig.take("TERM") == [("TERM", "m-0"), ("TERM", "m-1")]


def test_a_long_queue_is_told_once_and_again_when_it_is_over() -> None:
    rig = ready()
    life = Life(rig)
    index = rig.core.registry.find("m").index
    rig.use(index, waiting=150, now=life.now)
    life.go_on(3)
    assert notes(rig) == ["m: 150 requests wait, allowed are 100 ([health] queue_length)"]
    rig.use(index, waiting=0, now=life.now)
    life.go_on(60)
    [told] = notes(rig)
    assert told.endswith("back to normal")


def test_what_is_well_is_left_alone() -> None:
    rig = ready()
    life = Life(rig)
    for _ in range(30):
        life.answer("m-0", 10, 0)
        life.go_on(1)
    assert notes(rig) == []
    assert online(rig) == {"m-0": True, "m-1": True}


@pytest.mark.parametrize("stopped", [False, True])
def test_a_loaded_model_is_scaled_up_by_its_load(stopped: bool) -> None:
    rig = ready(replicas=1, min_replicas=1, max_replicas=3)
    served = rig.core.registry.find("m")
    if stopped:
        rig.core.stop_model(served, True, None, 1.0)
    rig.take()
    life = Life(rig)
    for _ in range(15):
        rig.use(served.index, waiting=20, running=10, now=life.now, oldest_wait_s=5.0)
        life.go_on(1)
    spawned = rig.take("spawn")
    assert bool(spawned) is not stopped
    assert served.target == (1 if stopped else 3)
    assert not served.is_scaled, "it is not the operator's word"


def test_a_model_that_the_operator_scaled_to_nothing_stays_so() -> None:
    rig = ready(replicas=2, min_replicas=1, max_replicas=3)
    served = rig.core.registry.find("m")
    life = Life(rig)
    life.go_on(5)
    rig.core.scale_model(served, 0, life.now)
    rig.take()
    life.go_on(400)
    assert (served.target, served.is_scaled) == (0, True)
    assert rig.take("spawn") == []
    rig.core.scale_model(served, 1, life.now)
    for _ in range(15):
        rig.start_all(life.now)
        rig.use(served.index, waiting=20, running=10, now=life.now, oldest_wait_s=5.0)
        life.go_on(1)
    assert (served.target, served.is_scaled) == (3, False)


def test_a_model_without_load_is_scaled_down_after_a_while() -> None:
    rig = ready(replicas=3, min_replicas=1, max_replicas=3)
    served = rig.core.registry.find("m")
    rig.use(served.index, now=1.0)
    life = Life(rig)
    life.go_on(400)
    assert served.target == 1
    drains = [entry[1] for entry in rig.take() if isinstance(entry[-1], Drain)]
    assert sorted(drains) == ["m-1", "m-2"]
