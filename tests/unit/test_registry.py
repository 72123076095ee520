"""The live registry: names and aliases mean one model each, and indexes stay."""

from __future__ import annotations

import math

import pytest
from controller_rig import model

from smmf_core.config import ModelConfig
from smmf_core.config.remote import Proxy
from smmf_core.control_messages import ModelLoad
from smmf_core.errors import ConfigError, ControlError
from smmf_core.registry import LiveRegistry


def named(name: str, *aliases: str, **deployment: object) -> ModelConfig:
    config = model(name, **deployment)
    config.model.aliases = list(aliases)
    return config


def aliases(registry: LiveRegistry) -> dict[str, list[str]]:
    return {found.name: found.aliases for found in registry}


def test_a_file_may_take_an_alias_that_the_operator_pointed_but_no_other() -> None:
    registry = LiveRegistry()
    first = registry.add(named("a", "x"), 1)
    registry.point_alias("y", first)
    registry.add(named("b", "y"), 1)
    assert aliases(registry) == {"a": ["x"], "b": ["y"]}
    with pytest.raises(ConfigError, match="'x'"):
        registry.add(named("c", "x"), 1)
    with pytest.raises(ConfigError, match="'b'"):
        registry.add(named("c", "b"), 1)
    assert len(registry) == 2


def test_models_may_be_arranged_as_the_files_are() -> None:
    registry = LiveRegistry()
    for name in ("given", "b", "c"):
        registry.add(named(name), 1)
    registry.remove(registry.find("b"))
    registry.add(named("a"), 1)
    registry.add(named("b"), 1)
    registry.arrange(["a", "b", "gone", "c"])
    assert [found.name for found in registry] == ["a", "b", "c", "given"]


def test_a_model_costs_what_its_file_says_else_by_its_size() -> None:
    registry = LiveRegistry()
    plain, dear = named("a"), named("b")
    dear.model.cost = 3.0
    provider = named("c")
    provider.proxy = Proxy(provider="openai", model="x")
    small, given, remote = (registry.add(config, 1) for config in (plain, dear, provider))
    assert small.cost(7_650_000_000) == 7.6
    assert small.cost(60_000_000) == 0.0, "as good as nothing: loaded or not is what counts"
    assert given.cost(7_650_000_000) == 3.0
    assert remote.cost(0) > small.cost(900 * 10**9)


def test_an_alias_that_is_the_own_name_is_none() -> None:
    registry = LiveRegistry()
    registry.add(named("a", "a", "x"), 1)
    assert aliases(registry) == {"a": ["x"]}


def test_a_changed_file_gives_up_what_it_no_longer_names_and_keeps_what_was_pointed() -> None:
    registry = LiveRegistry()
    first = registry.add(named("a", "x", "y"), 1)
    registry.point_alias("z", first)
    registry.replace(first, named("a", "y", "w"))
    assert sorted(first.aliases) == ["w", "y", "z"]
    with pytest.raises(ControlError, match="no model named x"):
        registry.find("x")


def test_names_of_what_is_being_removed_are_free() -> None:
    registry = LiveRegistry()
    leaving = registry.add(named("a", "x"), 1)
    registry.point_alias("b", leaving)
    leaving.is_removed = True
    registry.add(named("b", "x"), 1)
    assert aliases(registry) == {"a": [], "b": ["x"]}
    assert registry.pointed == {}
    registry.remove(leaving)
    assert registry.find("x").name == "b"


def test_a_name_that_comes_back_has_its_index_again() -> None:
    registry = LiveRegistry()
    first = registry.add(named("a"), 1)
    registry.add(named("b"), 1)
    registry.remove(first)
    assert registry.by_index(first.index) is None
    assert registry.add(named("a"), 1).index == first.index


def test_whose_a_name_is_by_its_file() -> None:
    registry = LiveRegistry()
    first = registry.add(named("a", "x"), 1)
    registry.point_alias("y", first)
    assert (registry.owner_of("a"), registry.owner_of("x")) == (first, first)
    assert registry.owner_of("y") is None
    assert registry.owner_of("none") is None


@pytest.mark.parametrize(
    ("deployment", "said", "expected"),
    [
        ({}, None, math.inf),
        ({"autostart": False}, None, 300.0),
        ({"keep_alive": "10s"}, None, 10.0),
        ({"keep_alive": "10s"}, 0.0, 0.0),
        ({"keep_alive": "10s"}, -1.0, math.inf),
    ],
)
def test_how_long_a_model_may_be_idle(
    deployment: dict[str, object], said: float | None, expected: float
) -> None:
    registry = LiveRegistry()
    found = registry.add(named("a", **deployment), 1)
    found.keep_alive_s = said
    assert found.idle_s == expected


def test_requests_of_all_routers_count() -> None:
    found = LiveRegistry().add(named("a"), 1)
    assert not found.is_busy
    found.loads = {0: ModelLoad(0, 0, 2, 5), 1: ModelLoad(0, 3, 0, 5)}
    assert (found.waiting, found.running, found.is_busy) == (3, 2, True)
