"""What one run of the core wished and learned, the next one takes up: through a real database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from store_suite import Run
from world import World

from smmf_core.config import ModelConfig, RawConfig, resolve
from smmf_core.controller.remember import Remembrance
from smmf_core.errors import ControlError
from smmf_core.store.records import Stored
from smmf_core.store.storage import SQLAlchemyStorage

SECRET = "${env:SMMF_TEST_WORD}"


@pytest.fixture(autouse=True)
def word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMMF_TEST_WORD", "hidden")


def raw(name: str, **sections: dict[str, Any]) -> RawConfig:
    model = {"name": name, "backend": "echo"}
    return RawConfig({"model": model, "engine": {"text": "words"}, **sections}, f"{name}.toml")


class Server:
    """A core in a simulated world, with a store; its files are `raws`."""

    def __init__(self, url: str, *raws: RawConfig) -> None:
        self.run = Run(url)
        self.raws = {raw.table["model"]["name"]: raw for raw in raws}
        self.world = World(1, [resolve(raw) for raw in raws])
        self.core = self.world.core
        self.remembrance = Remembrance(self.core, self.raws, self.run.writer)
        self.core.models.changed.update(model.index for model in self.core.registry)
        self.problems: list[str] = []
        self.live()

    def recall(self) -> Server:
        self.run.begin()
        self.problems = self.remembrance.recall(self.run.loaded[0], self.world.now)
        return self.live()

    def live(self) -> Server:
        self.world.settle()
        self.world.pass_time(20.0)
        self.remembrance.tell(self.core.models.changed | {m.index for m in self.core.registry})
        self.core.models.changed.clear()
        return self

    def end(self) -> None:
        self.run.end()

    def model(self, name: str) -> Any:
        return self.core.registry.find(name)

    def state(self, name: str) -> tuple[str, int]:
        model = self.model(name)
        return self.core.status_of(model).state, sum(c.is_alive for c in self.core.replicas(model))

    def add(self, given: RawConfig) -> None:
        self.raws[given.table["model"]["name"]] = given
        self.core.add_model(resolve(given), self.world.now, is_runtime=True)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'registry.db'}"


def test_what_was_registered_at_run_time_is_there_again(url: str) -> None:
    first = Server(url, raw("file")).recall()
    first.add(raw("added", inference={"stop": SECRET}))
    first.live()
    assert first.state("added") == ("ready", 1)
    created = first.model("added").created
    first.end()
    second = Server(url, raw("file")).recall()
    model = second.model("added")
    assert second.problems == []
    assert second.state("added") == ("ready", 1)
    assert (model.is_runtime, model.config.inference["stop"]) == (True, "hidden")
    assert model.created > created  # the store's clock; this world's began long ago
    assert model.context_length == 4096
    second.end()


def test_the_database_never_sees_a_secret(url: str, tmp_path: Path) -> None:
    server = Server(url, raw("file", inference={"stop": SECRET})).recall()
    server.add(raw("added", inference={"stop": SECRET}))
    server.live()
    bare = ModelConfig(model=resolve(raw("bare")).model, engine={"api_key": "hidden"})
    server.core.registry.add(bare, 1)  # of a target without a file: nothing to refer to
    server.live().end()
    storage = SQLAlchemyStorage(url)
    storage.open()
    stops = {m.model_name: m.config["inference"].get("stop") for m in storage.models()}
    storage.close()
    assert stops == {"file": SECRET, "added": SECRET, "bare": None}
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"hidden" not in kept


def test_the_operators_wishes_hold(url: str) -> None:
    first = Server(url, raw("a"), raw("b"), raw("c")).recall()
    now = first.world.now
    first.core.scale_model(first.model("a"), 3, now)
    first.core.stop_model(first.model("b"), False, None, now)
    first.core.pin_model(first.model("c"), True, now)
    first.core.point_alias("best", first.model("c"), now)
    first.live()
    assert [first.state(name) for name in "abc"] == [("ready", 3), ("stopped", 0), ("ready", 1)]
    first.end()
    second = Server(url, raw("a"), raw("b"), raw("c")).recall()
    assert [second.state(name) for name in "abc"] == [("ready", 3), ("stopped", 0), ("ready", 1)]
    assert second.model("c").is_pinned
    assert second.model("best").name == "c"
    second.core.start_model(second.model("b"), None, second.world.now)
    second.core.pin_model(second.model("c"), False, second.world.now)
    second.core.forget_alias("best", second.world.now)
    second.live().end()
    third = Server(url, raw("a"), raw("b"), raw("c")).recall()
    assert third.state("b") == ("ready", 1)
    assert not third.model("c").is_pinned
    with pytest.raises(ControlError):
        third.model("best")
    third.end()


def test_a_stopped_model_of_run_time_is_not_even_started(url: str) -> None:
    first = Server(url).recall()
    first.add(raw("a"))
    first.live()
    first.core.scale_model(first.model("a"), 2, first.world.now)
    first.core.stop_model(first.model("a"), False, None, first.world.now)
    first.live().end()
    second = Server(url).recall()
    assert second.state("a") == ("stopped", 0)
    assert second.core.replicas(second.model("a")) == []
    second.core.start_model(second.model("a"), None, second.world.now)
    assert second.live().state("a") == ("ready", 2)
    second.end()


def test_a_file_wins_for_the_count_when_it_has_changed(url: str) -> None:
    first = Server(url, raw("a")).recall()
    first.core.scale_model(first.model("a"), 3, first.world.now)
    first.core.pin_model(first.model("a"), True, first.world.now)
    first.live().end()
    changed = raw("a", deployment={"replicas": 2})
    second = Server(url, changed).recall()
    assert second.state("a") == ("ready", 2)
    assert second.model("a").is_pinned
    second.end()
    third = Server(url, changed).recall()
    assert (third.state("a"), third.model("a").is_scaled) == (("ready", 2), False)
    third.end()


def test_what_was_removed_stays_away(url: str) -> None:
    first = Server(url).recall()
    first.add(raw("a"))
    first.live()
    first.core.remove_model(first.model("a"), first.world.now)
    first.live().end()
    second = Server(url).recall()
    assert list(second.core.registry) == []
    second.end()


def test_a_file_that_now_has_the_name_is_followed(url: str) -> None:
    first = Server(url).recall()
    first.add(raw("a"))
    first.live().end()
    second = Server(url, raw("a", deployment={"replicas": 2})).recall()
    assert second.state("a") == ("ready", 2)
    assert not second.model("a").is_runtime
    second.end()
    third = Server(url).recall()  # the file went: so does the model
    assert list(third.core.registry) == []
    third.end()


def test_what_can_no_longer_be_registered_is_told(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Server(url).recall()
    first.add(raw("a", inference={"stop": SECRET}))
    first.add(raw("b"))
    first.live().end()
    monkeypatch.delenv("SMMF_TEST_WORD")
    second = Server(url).recall()
    (problem,) = second.problems
    assert problem.startswith("a is not registered again: ")
    assert "SMMF_TEST_WORD" in problem
    assert second.state("b") == ("ready", 1)
    second.end()
    monkeypatch.setenv("SMMF_TEST_WORD", "there again")
    third = Server(url).recall()
    assert third.state("a") == ("ready", 1)
    third.end()


def test_recalling_twice_changes_nothing_more(url: str) -> None:
    first = Server(url, raw("a")).recall()
    first.core.scale_model(first.model("a"), 2, first.world.now)
    first.add(raw("b"))
    first.live().end()
    second = Server(url, raw("a"))
    second.remembrance.recall(Stored(), second.world.now)  # the database was away
    second.recall()
    second.remembrance.recall(second.run.loaded[0], second.world.now)
    second.live()
    assert [second.state(name) for name in "ab"] == [("ready", 2), ("ready", 1)]
    second.end()


def test_instances_are_kept_as_they_are(url: str) -> None:
    server = Server(url, raw("a", deployment={"replicas": 2})).recall()
    server.core.scale_model(server.model("a"), 1, server.world.now)
    server.live()
    server.core.set_online(next(iter(server.core.workers())), False, server.world.now)
    server.live().run.settle()
    storage = SQLAlchemyStorage(url)
    storage.open()
    (alive,) = [row for row in storage.instances("a") if row.status == "ready"]
    assert alive.instance == "a-0"
    assert alive.is_offline
    assert alive.pid > 0
    storage.close()
    server.end()
