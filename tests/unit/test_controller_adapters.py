"""Which LoRA adapters replicas are told to have, across restarts of them and of the Controller."""

from __future__ import annotations

from smmf_core.config import Deployment, Model, ModelConfig
from smmf_core.control_messages import Adapters, WorkerReport
from smmf_core.controller import adapters
from smmf_core.lifecycle import READY, STARTING, Child
from smmf_core.registry import LiveRegistry
from smmf_core.registry import Model as Served


def report(serial: int, **loaded: str) -> WorkerReport:
    said = WorkerReport("ready", 1.0, "", 4096, ["chat"], 0, 0, 0, 0)
    said.adapter_serial, said.adapters = serial, loaded
    return said


class Rig:
    """A model with replicas that are ready; `sent` is what they were told."""

    def __init__(self, replicas: int = 2) -> None:
        registry = LiveRegistry()
        registry.add(ModelConfig(Model("m", "echo"), Deployment(replicas=replicas)), created=1)
        self.model: Served = next(iter(registry))
        self.replicas = [Child("worker", n, f"m-{n}", self.model.index) for n in range(replicas)]
        self.sent: list[tuple[str, Adapters]] = []
        for child in self.replicas:
            child.state, child.connected = READY, True

    def send(self, child: Child, message: Adapters) -> None:
        self.sent.append((child.name, message))

    def say(self, number: int, said: WorkerReport) -> bool:
        self.replicas[number].report = said
        return adapters.on_report(self.model, said, self.replicas, self.send)


def test_clients_see_what_all_ready_replicas_have() -> None:
    rig = Rig()
    assert rig.say(0, report(0, a="/a", b="/b"))
    assert not rig.say(1, report(0, b="/b", a="/a"))
    assert rig.model.adapters == ["a", "b"]
    assert rig.say(1, report(0, b="/b"))
    assert rig.model.adapters == ["b"]
    rig.replicas[1].state = STARTING
    assert rig.say(0, report(0, a="/a", b="/b"))
    assert rig.model.adapters == ["a", "b"]


def test_a_new_controller_wants_what_the_former_one_had_loaded() -> None:
    rig = Rig()
    rig.say(0, report(3, a="/a", b="/b"))
    assert rig.model.wanted_adapters == {"a": "/a", "b": "/b"}
    adapters.on_welcome(rig.model, rig.replicas[1], rig.send)  # one that was started anew
    assert rig.sent == [("m-1", Adapters({"a": "/a", "b": "/b"}, 3))]


def test_an_answer_to_the_former_controller_is_none_to_the_new_one() -> None:
    rig = Rig()
    rig.say(0, report(1, a="/a"))
    adapters.want(rig.model, rig.replicas, {"a": "/a", "b": "/b"}, rig.send)
    assert rig.model.adapter_serial == 2  # not the one that replica 0 tells of


def test_a_survivor_that_comes_late_gets_the_newer_wish() -> None:
    rig = Rig()
    adapters.want(rig.model, rig.replicas[:1], {"b": "/b"}, rig.send)
    rig.sent.clear()
    rig.say(1, report(7, a="/a"))
    assert rig.sent == [(f"m-{n}", Adapters({"b": "/b"}, 8)) for n in range(2)]


def test_a_replica_that_still_loads_is_told_at_once() -> None:
    """It is ready with them: no client finds an adapter missing for a while."""
    rig = Rig()
    rig.replicas[1].state = STARTING
    adapters.want(rig.model, rig.replicas, {"b": "/b"}, rig.send)
    assert [name for name, _ in rig.sent] == ["m-0", "m-1"]
    rig.say(0, report(1, b="/b"))
    rig.replicas[1].connected = False  # it died, and its successor has not said hello
    adapters.want(rig.model, rig.replicas, {"c": "/c"}, rig.send)
    assert [name for name, _ in rig.sent] == ["m-0", "m-1", "m-0"]
    rig.say(0, report(2, c="/c"))
    assert rig.model.adapters == ["c"]
    rig.replicas[1].state = READY
    assert not rig.say(1, report(2, c="/c"))
    assert rig.model.adapters == ["c"]


def test_no_wish_no_word() -> None:
    rig = Rig()
    rig.say(0, report(0, a="/a"))
    adapters.on_welcome(rig.model, rig.replicas[1], rig.send)
    adapters.on_welcome(None, Child("router", 0, "router-0"), rig.send)
    assert (rig.sent, rig.model.wanted_adapters) == ([], None)
