"""What children are told to be: equal where they would run the same."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from controller_rig import model

from smmf_core.config import Health, ModelConfig, ServerConfig, Timeouts
from smmf_core.controller.specs import Specs
from smmf_core.lifecycle import Child
from smmf_core.registry import LiveRegistry

ROUTER_CHILD = Child("router", 0, "router-0")


def digest(config: ModelConfig) -> str:
    registry = LiveRegistry()
    made = registry.add(config, 1)
    return Specs(ServerConfig(), registry).digest(Child("worker", 0, "m-0", made.index))


def router_digest(**sections: Any) -> str:
    return Specs(ServerConfig(**sections), LiveRegistry()).digest(ROUTER_CHILD)


@pytest.mark.parametrize(
    "deployment", [{"weight": 3.0}, {"autostart": False}, {"keep_alive": "9s"}, {"memory_gib": 2.0}]
)
def test_what_no_worker_looks_at_makes_no_other_spec(deployment: dict[str, Any]) -> None:
    assert digest(model(**deployment)) == digest(model())


def test_what_it_computes_with_does() -> None:
    assert digest(msgspec.structs.replace(model(), engine={"tokens": 1})) != digest(model())
    assert digest(model(device="cpu")) != digest(model())


def test_a_certain_gpu_is_the_only_one_that_its_worker_sees() -> None:
    registry = LiveRegistry()
    registry.add(model(device="cuda:3"), 1)
    spec = Specs(ServerConfig(), registry).of(Child("worker", 0, "m-0", 0))
    assert msgspec.msgpack.decode(spec, type=ModelConfig).deployment.device == "cuda:0"


def test_routers_do_not_look_at_health() -> None:
    assert router_digest(health=Health(heartbeat_s=1.0)) == router_digest()
    assert router_digest(timeouts=Timeouts(inference_s=1.0)) != router_digest()


def test_a_child_of_no_model_has_no_spec() -> None:
    specs = Specs(ServerConfig(), LiveRegistry())
    assert specs.digest(Child("worker", 0, "m-0", 5)) == ""
