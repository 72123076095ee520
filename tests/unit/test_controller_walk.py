"""Verbs race with requests, crashes and each other, in seeded random walks over the pure core.

After each walk the world is left alone: it must come to what is wanted, and answer every request.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from world import World, config

from smmf_core.errors import ConfigError, ControlError
from smmf_core.lifecycle import BACKOFF, FAILED, READY, SETTLED, STOPPED, WAITING
from smmf_core.registry import Model

WALKS = 2000
SHARDS = 8
STEPS = 40
CALM_S = 1500.0  # longer than all back-offs in a row

Step = Callable[[World, random.Random], None]


def any_model(world: World, rng: random.Random) -> Model | None:
    models = list(world.core.registry)
    return rng.choice(models) if models else None


def verb(name: str, *arguments: Any) -> Step:
    def act(world: World, rng: random.Random) -> None:
        model = any_model(world, rng)
        if model is not None:
            given = [rng.choice(choice) for choice in arguments]
            getattr(world.core, name)(model, *given, world.now)

    return act


def instance_verb(name: str, *arguments: Any) -> Step:
    def act(world: World, rng: random.Random) -> None:
        children = list(world.core.workers())
        if children:
            given = [rng.choice(choice) for choice in arguments]
            getattr(world.core, name)(rng.choice(children), *given, world.now)

    return act


def arrive(world: World, rng: random.Random) -> None:
    model = any_model(world, rng)
    if model is not None:
        for _ in range(rng.choice((1, 1, 5))):
            world.arrive(model.index)


def crash(world: World, rng: random.Random) -> None:
    if world.processes:
        world.die(rng.choice(list(world.processes.values())), "killed by SIGKILL")


def hang(world: World, rng: random.Random) -> None:
    """One stands still, perhaps with a heart that beats on: only SIGKILL ends it."""
    if world.processes:
        process = rng.choice(list(world.processes.values()))
        process.is_hung = rng.random() < 0.5
        process.is_still = process.ignores_drain = True


def sicken(world: World, rng: random.Random) -> None:
    """One fails what it is given, or is well again."""
    if world.processes:
        process = rng.choice(list(world.processes.values()))
        process.is_sick = not process.is_sick


def lose_controller(world: World, rng: random.Random) -> None:
    world.lose_controller()


def add(world: World, rng: random.Random) -> None:
    new = config(rng.choice("abcx"), rng.choice((0.0, 1.0, 2.0)), autostart=rng.random() < 0.5)
    world.core.add_model(new, world.now, is_runtime=True)


def replace(world: World, rng: random.Random) -> None:
    model = any_model(world, rng)
    if model is not None:
        new = msgspec.structs.replace(model.config, engine={"tokens": rng.randrange(100)})
        if rng.random() < 0.3:
            new = msgspec.structs.replace(model.config, routing=new.routing, source="elsewhere")
        world.core.replace_model(model, new, world.now)


def alias(world: World, rng: random.Random) -> None:
    model = any_model(world, rng)
    if model is not None:
        world.core.point_alias(rng.choice(["nick", "name", "a"]), model, world.now)


STEPS_BY_WEIGHT: list[tuple[int, Step]] = [
    (30, arrive),
    (8, crash),
    (2, hang),
    (3, sicken),
    (1, lose_controller),
    (4, verb("start_model", (None, None, 1, 3))),
    (4, verb("stop_model", (False, False, True), (None, 2.0))),
    (4, verb("restart_model")),
    (4, verb("scale_model", (0, 1, 2, 3))),
    (2, verb("pin_model", (True, False))),
    (2, verb("remove_model")),
    (2, verb("want_loaded")),
    (3, add),
    (5, replace),
    (1, alias),
    (2, instance_verb("start_instance")),
    (2, instance_verb("stop_instance", (False, True), (None, 1.0))),
    (2, instance_verb("restart_instance")),
    (3, instance_verb("set_online", (True, False))),
]


def new_world(seed: int, rng: random.Random) -> World:
    needs = (0.5, 1.0, 2.0)
    models = [
        config("a", rng.choice(needs), replicas=rng.choice((1, 2)), autostart=rng.random() < 0.7),
        config(
            "b", rng.choice(needs), autostart=rng.random() < 0.5, keep_alive=rng.choice(("", 5))
        ),
        config("c", rng.choice(needs), autostart=False, keep_alive=rng.choice(("", 0, 3))),
    ]
    return World(seed, models, budget_gib=rng.choice((0.0, 2.0, 3.0, 6.0)))


def walk(seed: int) -> World:
    rng = random.Random(seed)
    world = new_world(seed, rng)
    world.chaos = rng.choice((0.0, 0.3, 1.0))
    weights = [weight for weight, _ in STEPS_BY_WEIGHT]
    for _ in range(STEPS):
        [(_, step)] = rng.choices(STEPS_BY_WEIGHT, weights)
        with contextlib.suppress(ControlError, ConfigError):  # refused, as an operator would be
            step(world, rng)
        world.settle()
        world.finish(0.3)
        world.pass_time(rng.choice((0.0, 0.0, 0.05, 0.5, 2.0, 6.0)))
    return world


def leave_alone(world: World) -> None:
    """Nothing goes wrong any more, what is pinned is free to go, and time passes."""
    world.chaos = 0.0
    for process in world.processes.values():
        process.ignores_drain, process.is_sick = process.is_still, False
        process.fate = process.fate if process.fate == "hang" else ""
    for model in world.core.registry:
        if model.is_pinned:
            world.core.pin_model(model, False, world.now)
    calm = 0.0
    while calm < CALM_S and not (calm > 10 and is_at_rest(world)):
        world.pass_time(5.0)
        world.finish(1.0)
        calm += 5.0


def is_at_rest(world: World) -> bool:
    core = world.core
    is_quiet = not any(r.waiting or r.running for r in world.routers.values())
    children = core.children.values()
    is_settled = all(c.state in SETTLED or c.is_stuck for c in children)
    return is_quiet and is_settled and all(map(core.has_reached, core.registry))


def check_end(world: World) -> None:
    """Desired is actual; whatever is not, says why and cannot be helped."""
    core = world.core
    for child in core.children.values():
        assert child.state in (READY, FAILED, STOPPED, WAITING), f"{child.name} is {child.state}"
        assert child.state != WAITING or child.is_stuck, f"{child.name} waits for nothing"
        if child.state == STOPPED:
            assert not child.wanted, f"{child.name} is wanted, and nobody starts it"
        if child.state in (FAILED, BACKOFF, WAITING):
            assert child.reason, f"{child.name} is {child.state} without a reason"
    assert {key for key, child in core.children.items() if child.is_alive} == set(world.processes)
    for model in core.registry:
        assert not model.is_removed, f"{model.name} was removed and is still there"
        replicas = core.replicas(model)
        stopped = sum(child.is_stopped for child in replicas)
        wanted = [child for child in replicas if child.wanted]
        has_failed = any(child.state == FAILED for child in wanted)
        assert core.has_reached(model)
        if not has_failed:
            assert len(wanted) == max(0, model.desired - stopped), f"{model.name}: {wanted}"
            for child in wanted:
                if child.state == READY:
                    assert child.generation == model.generation, f"{child.name} is of the past"
        status = core.status_of(model)
        assert status.state == "ready" or status.reason, f"{model.name} is {status.state}: why?"
    waiting = 0
    for router in world.routers.values():
        assert not router.running
        for index, count in router.waiting.items():
            waiting += count
            assert not count or has_offline(world, index), "requests wait for ever"
    assert world.arrived == world.served + world.refused + waiting, "a request was lost"


def has_offline(world: World, index: int) -> bool:
    """The operator keeps memory from it by a replica that answers nobody."""
    return any(child.is_offline for child in world.core.table.replicas(index))


@pytest.mark.parametrize("shard", range(SHARDS))
def test_whatever_happens_the_core_comes_to_what_is_wanted(shard: int) -> None:
    for seed in range(shard, WALKS, SHARDS):
        try:
            world = walk(seed)
            leave_alone(world)
            check_end(world)
        except Exception as error:
            raise AssertionError(f"walk {seed}: {error!r}") from error


def test_the_walks_meet_what_they_are_for() -> None:
    """Swaps, failures, refusals and removals do happen in them."""
    notes: set[str] = set()
    states: set[str] = set()
    for seed in range(60):
        world = walk(seed)
        notes |= {note.split(": ")[1] for note in world.notes}
        states |= {world.core.status_of(model).state for model in world.core.registry}
    assert {"unloaded", "removed"} <= notes
    assert {"registered", "starting", "ready", "stopped", "failed"} <= states


def test_a_walk_can_be_repeated() -> None:
    assert walk(7).notes == walk(7).notes
