"""Which model answers `auto`, and aliases that move while requests wait."""

from __future__ import annotations

from typing import Any

import pytest
from router_rig import Effects, Sink

from smmf_core import control_messages as cm
from smmf_core import messages as m
from smmf_core.api.openai import Require
from smmf_core.config import Timeouts
from smmf_core.errors import ApiError
from smmf_core.router.auto import check, choose
from smmf_core.router.core import RouterCore
from smmf_core.router.fleet import Fleet


def entry(index: int, name: str, **fields: Any) -> cm.ModelEntry:
    values = {
        "aliases": [], "task": "generate", "backend": "echo", "state": "registered", "reason": "",
        "created": 1, "context_length": 1000, "strategy": "round_robin", "max_queue": 0,
        "max_queue_tokens": 0, "defaults": {}, "capabilities": ["chat", "completion"], **fields,
    }  # fmt: skip
    return cm.ModelEntry(index=index, name=name, **values)


def fleet(*entries: cm.ModelEntry, loaded: tuple[int, ...] = ()) -> Fleet:
    made = RouterCore(Effects(), Timeouts()).fleet
    workers = [cm.WorkerEntry(i, 1, i, f"w-{i}", 1.0, True) for i in loaded]
    made.update(cm.Registry(1, list(entries), workers))
    for worker in loaded:
        made.attached(worker, 1, 4)
        made.ready(worker, 1)
    return made


def chosen(made: Fleet, task: str = "generate", capability: str = "chat", **require: Any) -> str:
    wanted = Require(**require) if require else None
    return choose(made, task, capability, wanted, lambda _: True).name


def refused(made: Fleet, **require: Any) -> ApiError:
    with pytest.raises(ApiError) as error:
        chosen(made, **require)
    return error.value


def test_the_cheapest_that_fits() -> None:
    made = fleet(
        entry(0, "dear", cost=9.0, context_length=9000, capabilities=["chat", "tools", "vision"]),
        entry(1, "middle", cost=2.0, context_length=9000, capabilities=["chat", "tools"]),
        entry(2, "cheap", cost=1.0),
    )
    assert chosen(made) == "cheap"
    assert chosen(made, context_length=1000) == "cheap"
    assert chosen(made, context_length=1001) == "middle"
    assert chosen(made, tools=True) == "middle"
    assert chosen(made, tools=False) == "cheap"
    assert chosen(made, vision=True, context_length=5) == "dear"
    assert chosen(made, max_cost=1.5) == "cheap"


def test_of_equals_a_loaded_one_then_the_first() -> None:
    entries = [entry(2, "c"), entry(0, "a"), entry(1, "b")]
    assert chosen(fleet(*entries)) == "a"
    assert chosen(fleet(*entries, loaded=(1, 2))) == "b"


def test_the_route_says_the_task() -> None:
    made = fleet(
        entry(0, "text", capabilities=["completion"]),
        entry(1, "small", task="embed", capabilities=["embed"], dimensions=384),
        entry(2, "large", task="embed", capabilities=["embed"], dimensions=1024, cost=1.0),
        entry(3, "unknown", cost=5.0, capabilities=[]),
    )
    assert chosen(made, "generate", "completion") == "text"
    assert chosen(made, "generate", "chat") == "unknown"
    assert chosen(made, "embed", "embed") == "small"
    assert chosen(made, "embed", "embed", embedding_dimension=1024) == "large"
    with pytest.raises(ApiError, match="No model here does 'rerank'") as error:
        choose(made, "rerank", "rerank", None, lambda _: True)
    assert error.value.code == "model_not_found"


def test_what_is_missing_is_named() -> None:
    made = fleet(
        entry(0, "tool", capabilities=["chat", "tools"]),
        entry(1, "seer", capabilities=["chat", "vision"]),
    )
    error = refused(made, reasoning=True, context_length=5000)
    assert (error.code, error.status, error.param) == ("model_not_found", 404, "smmf.require")
    assert error.message == "No model here has a context of 5000 tokens or reasoning."
    error = refused(made, tools=True, vision=True)
    assert error.message == "No model here meets all of 'smmf.require'; tool lacks vision."


def test_what_is_out_of_service_is_passed_over_or_told() -> None:
    stopped = entry(0, "cheap", state="stopped", reason="by the operator")
    assert chosen(fleet(stopped, entry(1, "dear", cost=5.0))) == "dear"
    error = refused(fleet(stopped))
    assert error.code == "model_unavailable"
    assert "by the operator" in error.message


def test_a_named_model_is_held_to_the_requirements_too() -> None:
    model = fleet(entry(0, "plain", cost=3.0)).find("plain")
    check(model, Require(context_length=1000, max_cost=3.0))
    with pytest.raises(ApiError, match="'plain' does not have vision or a cost of at most 1") as e:
        check(model, Require(vision=True, max_cost=1.0))
    assert (e.value.status, e.value.param) == (400, "smmf.require")


# --- aliases ---


def test_an_alias_that_moves_takes_new_requests_only() -> None:
    effects = Effects()
    core = RouterCore(effects, Timeouts())
    workers = [cm.WorkerEntry(i, 1, i, f"w-{i}", 1.0, True) for i in (0, 1)]
    core.on_registry(cm.Registry(1, [entry(0, "a", aliases=["it"]), entry(1, "b")], workers))
    for worker in (0, 1):
        core.fleet.attached(worker, 1, 1)
        core.fleet.ready(worker, 1)

    def submit() -> Any:
        asked = m.Submit(0, 0, "r", "it", True, 1, None, ["x"], m.Sampling())
        sinks.append(Sink())
        return core.submit(asked, core.fleet.find("it"), sinks[-1], 1, 1, 0, None, 0.0)

    sinks: list[Sink] = []
    running, waiting = submit(), submit()
    core.turn(0.0)
    core.on_registry(cm.Registry(2, [entry(0, "a"), entry(1, "b", aliases=["it"])], workers))
    moved = submit()
    core.turn(0.0)
    core.on_finish(running.key, m.Usage(1, 1), 0.0)
    core.turn(0.0)
    assert (running.worker, waiting.worker, moved.worker) == (0, 0, 1)
    assert [sink.ends for sink in sinks] == [["finished"], [], []]
