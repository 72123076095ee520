"""What every database of the registry must do, as suites: a test module gives each its `url`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from smmf_core.errors import ControlError
from smmf_core.store import ModelRegistry, SQLAlchemyStorage
from smmf_core.store.records import (
    EventRecord,
    InstanceRecord,
    ModelChange,
    ModelRecord,
    Stored,
    StoreError,
)
from smmf_core.store.writer import StoreWriter

PATIENCE_S = 60.0  # a loaded machine
_POLL_S = 0.005


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another thread or process does."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "it did not come"
        time.sleep(_POLL_S)


def config(name: str, backend: str = "echo", **model: Any) -> dict[str, Any]:
    return {"model": {"name": name, "backend": backend, **model}}


def remote(name: str, provider: str) -> dict[str, Any]:
    secret = {"proxy_api_key": "${env:SOME_KEY}"}
    return {"model": {"name": name}, "proxy": {"provider": provider}, "authentication": secret}


def event(number: int) -> EventRecord:
    return EventRecord(time=1e9 + number, role="worker", id=f"m-{number}", state="ready", pid=7)


class Run:
    """One run of a server: its writer, and what it was given when it loaded."""

    def __init__(self, url: str, server: str = "default", days: float = 1e5) -> None:
        self.loaded: list[Stored] = []
        self.writer = StoreWriter(url, server, days, retry_s=0.01)

    def begin(self) -> Run:
        self.writer.load(self.loaded.append)
        until(lambda: bool(self.loaded))
        return self

    def end(self) -> None:
        assert self.writer.close(PATIENCE_S), self.writer.state

    def settle(self) -> None:
        until(lambda: self.writer.state.waiting == 0)


class StorageSuite:
    """Plain CRUD, and the schema."""

    @pytest.fixture
    def storage(self, url: str) -> Iterator[SQLAlchemyStorage]:
        storage = SQLAlchemyStorage(url)
        storage.open()
        yield storage
        storage.close()

    def test_models_are_kept_as_they_are(self, storage: SQLAlchemyStorage) -> None:
        wished = {"replicas": 3, "is_stopped": True, "is_pinned": True, "is_runtime": True}
        facts = {"load_s": 1.5, "capabilities": ["tools"], "memory_bytes": 1 << 40}
        record = ModelRecord(
            model_name="a", config=remote("a", "openai"), status="ready", facts=facts, **wished
        )
        storage.put_models([record, ModelRecord(model_name="b")])
        read = storage.model("a")
        assert read is not None
        assert read.created_at is not None
        assert read.created_at == read.updated_at
        assert read.config["authentication"]["proxy_api_key"] == "${env:SOME_KEY}"
        read.created_at = read.updated_at = None
        assert read == record
        assert storage.model("c") is None

    def test_a_model_that_is_put_again_keeps_its_place(self, storage: SQLAlchemyStorage) -> None:
        storage.put_models([ModelRecord(model_name=name) for name in "cab"])
        (first, *_) = storage.models()
        storage.put_models([ModelRecord(model_name="c", status="failed")])
        (changed, *others) = storage.models()
        assert [m.model_name for m in (changed, *others)] == ["c", "a", "b"]
        assert changed.status == "failed"
        assert changed.created_at == first.created_at
        assert changed.updated_at is not None
        assert first.updated_at is not None
        assert changed.updated_at >= first.updated_at
        storage.delete_models(["c", "nobody"])
        assert [m.model_name for m in storage.models()] == ["a", "b"]

    def test_instances(self, storage: SQLAlchemyStorage) -> None:
        records = [
            InstanceRecord("a-0", "a", "ready", device="cuda:0", pid=9, load_s=2.5, restarts=1),
            InstanceRecord("b-0", "b", "failed", reason="SIGSEGV: no\x00thing", is_offline=True),
        ]
        storage.put_instances(records)
        assert storage.instances("a") == records[:1]
        assert storage.instances()[1].reason == "SIGSEGV: nothing"  # no database keeps a zero
        storage.put_instances([InstanceRecord("a-0", "a", "stopped")])
        assert storage.instances("a") == [InstanceRecord("a-0", "a", "stopped")]
        storage.delete_instances(["a-0"])
        assert storage.instances("a") == []

    def test_aliases(self, storage: SQLAlchemyStorage) -> None:
        storage.put_aliases({"gpt-4": "a", "best": "b"})
        storage.put_aliases({"gpt-4": "b"})
        storage.delete_aliases(["best"])
        assert storage.aliases() == {"gpt-4": "b"}

    def test_events_come_in_their_order_and_go_with_age(self, storage: SQLAlchemyStorage) -> None:
        storage.add_events([event(number) for number in range(5)])
        assert storage.events(2) == [event(3), event(4)]
        storage.delete_events(before=1e9 + 3)
        assert storage.events() == [event(3), event(4)]

    def test_a_transaction_is_all_or_nothing(self, storage: SQLAlchemyStorage) -> None:
        def write_both() -> None:
            with storage.transaction():
                storage.put_models([ModelRecord(model_name="a")])
                storage.put_instances([InstanceRecord("a-0", "a", "ready", pid=1 << 70)])

        with pytest.raises(StoreError):
            write_both()
        assert storage.models() == []

    def test_a_value_that_no_column_takes(self, storage: SQLAlchemyStorage) -> None:
        with pytest.raises(StoreError) as caught:
            storage.put_instances([InstanceRecord("a-0", "a", "ready", pid=1 << 70)])
        assert not caught.value.is_passing

    def test_servers_do_not_see_each_other(self, url: str, storage: SQLAlchemyStorage) -> None:
        other = SQLAlchemyStorage(url, "other")
        other.open()
        for one, status in ((storage, "ready"), (other, "failed")):
            one.put_models([ModelRecord(model_name="a", status=status)])
            one.put_aliases({"x": status})
            one.add_events([event(1)])
        other.delete_events(before=2e9)
        other.delete_aliases(["x"])
        assert [m.status for m in storage.models()] == ["ready"]
        assert [m.status for m in other.models()] == ["failed"]
        assert (storage.aliases(), other.aliases()) == ({"x": "ready"}, {})
        assert (len(storage.events()), len(other.events())) == (1, 0)
        other.close()

    def test_several_servers_may_make_the_tables_at_once(self, url: str) -> None:
        storages = [SQLAlchemyStorage(url, f"server-{number}") for number in range(6)]
        with ThreadPoolExecutor(len(storages)) as pool:
            list(pool.map(SQLAlchemyStorage.open, storages))
        for storage in storages:
            assert storage.models() == []
            storage.close()

    def test_a_schema_of_a_later_release_is_refused(self, url: str) -> None:
        self.given(url, "CREATE TABLE smmf_schema (id INT, version INT)")
        self.given(url, "INSERT INTO smmf_schema VALUES (1, 99)")
        with pytest.raises(StoreError, match=r"has schema 99, and this release knows 2: use the"):
            SQLAlchemyStorage(url).open()

    def test_tables_of_somebody_else_are_refused(self, url: str) -> None:
        self.given(url, "CREATE TABLE models (weight INT)")
        with pytest.raises(StoreError, match="table 'models' that is not this registry's"):
            SQLAlchemyStorage(url).open()

    def given(self, url: str, statement: str) -> None:
        url = url.replace("postgresql:", "postgresql+psycopg:")
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.execute(sa.text(statement))
        engine.dispose()


class RegistrySuite:
    """The Python API."""

    @pytest.fixture
    def registry(self, url: str) -> Iterator[ModelRegistry]:
        registry = ModelRegistry.open(url)
        yield registry
        registry.close()

    def test_what_is_registered_is_there(self, url: str, registry: ModelRegistry) -> None:
        registry.register_model(config("a", type="llama"), source="a.toml")
        again = ModelRegistry.open(url)
        model = again.get_model("a")
        assert (model.status, model.is_runtime, model.source) == ("registered", True, "a.toml")
        assert (model.model_type, model.deployment_type, model.provider) == (
            *("llama", "local", "echo"),
        )
        again.close()

    def test_registering_again_replaces_the_config(self, registry: ModelRegistry) -> None:
        registry.register_model(config("a"))
        registry.update_status("a", "failed")
        model = registry.register_model(config("a", backend="vllm"))
        assert (model.provider, model.status) == ("vllm", "failed")
        assert len(registry.list_models()) == 1

    def test_models_are_listed_by_what_they_are(self, registry: ModelRegistry) -> None:
        registry.register_model(config("a", type="llama"))
        registry.register_model(config("b", type="qwen2", backend="vllm"))
        registry.register_model(remote("c", "openai"))
        registry.register_model({"proxy": {"provider": "zhipu", "model": "glm-4"}})
        registry.update_status("b", "failed")

        def names(**wanted: str) -> list[str]:
            return [model.model_name for model in registry.list_models(**wanted)]

        assert names() == ["a", "b", "c", "glm-4"]
        assert names(type="local") == ["a", "b"]
        assert names(type="proxy") == ["c", "glm-4"]
        assert names(type="qwen2") == ["b"]
        assert names(provider="zhipu") == ["glm-4"]
        assert names(status="failed") == ["b"]
        assert names(type="local", status="registered") == ["a"]

    def test_a_status_is_that_of_the_instances(self, registry: ModelRegistry) -> None:
        registry.register_model(config("a"))
        assert registry.update_status("a", "loading", "a-0").status == "starting"
        model = registry.update_status("a", "ready", "a-0")
        assert (model.status, model.is_degraded) == ("ready", False)
        model = registry.update_status("a", "backoff", "a-1")
        assert (model.status, model.is_degraded) == ("ready", True)
        model = registry.update_status("a", "stopped", "a-1")
        assert (model.status, model.is_degraded) == ("ready", False)
        assert [m.model_name for m in registry.list_models(status="ready")] == ["a"]
        registry.update_status("a", "stopped", "a-0")
        assert registry.update_status("a", "stopped").status == "stopped"

    def test_what_does_not_exist(self, registry: ModelRegistry) -> None:
        for call in (registry.get_model, registry.remove_model):
            with pytest.raises(ControlError, match="no model named nobody"):
                call("nobody")
        registry.register_model(config("a"))
        with pytest.raises(ControlError, match="'great' is not a status: there are registered, st"):
            registry.update_status("a", "great")
        with pytest.raises(ControlError, match="a model needs a name"):
            registry.register_model({"deployment": {}})

    def test_a_model_goes_with_all_that_is_its(self, url: str, registry: ModelRegistry) -> None:
        registry.register_model(config("a"))
        registry.update_status("a", "ready", "a-0")
        storage = SQLAlchemyStorage(url)
        storage.open()
        storage.put_aliases({"best": "a"})
        assert registry.get_model("best").model_name == "a"
        registry.remove_model("best")
        assert (storage.models(), storage.instances(), storage.aliases()) == ([], [], {})
        storage.close()


class WriterSuite:
    """What one run saves, the next one is given."""

    def test_a_run_finds_what_the_former_one_left(self, url: str) -> None:
        first = Run(url).begin()
        assert first.loaded == [Stored()]
        first.writer.save_model(
            ModelChange(model_name="a", config=config("a"), is_runtime=True, spec_hash="h")
        )
        first.writer.save_model(ModelChange(model_name="a", status="ready", replicas=3))
        first.writer.save_model(ModelChange(model_name="a", facts={"load_s": 2.0}, is_pinned=True))
        first.writer.save_instance(InstanceRecord("a-0", "a", "ready"))
        first.writer.save_alias("best", "a")
        first.writer.save_event(event(1))
        first.end()
        second = Run(url).begin()
        (stored,) = second.loaded
        (model,) = stored.models
        assert (model.config, model.is_runtime, model.spec_hash) == (config("a"), True, "h")
        assert (model.replicas, model.is_stopped, model.is_pinned) == (3, False, True)
        assert model.facts == {"load_s": 2.0}
        assert model.status == "registered"  # nothing of it runs yet
        assert (stored.aliases, stored.events) == ({"best": "a"}, [event(1)])
        second.end()
        registry = ModelRegistry.open(url)
        assert registry.get_model("a").status == "registered"
        assert registry.get_model("a").instances == []
        registry.close()

    def test_what_is_saved_before_it_was_read_wins(self, url: str) -> None:
        first = Run(url).begin()
        for name in "abc":
            change = ModelChange(model_name=name, config=config(name), replicas=3, spec_hash="old")
            first.writer.save_model(change)
        for alias in "xy":
            first.writer.save_alias(alias, "a")
        first.end()
        second = Run(url)
        second.writer.save_model(
            ModelChange(model_name="a", config=config("a"), spec_hash="new", status="ready")
        )
        second.writer.save_model(ModelChange(model_name="b", replicas=1))
        second.writer.forget_model("c")
        second.writer.save_alias("x", None)
        second.begin()
        (stored,) = second.loaded
        assert [(m.model_name, m.replicas, m.spec_hash) for m in stored.models] == [
            ("a", 3, "old"),
            ("b", 1, "old"),
        ]
        assert stored.aliases == {"y": "a"}
        second.end()
        third = Run(url).begin()
        assert [(m.model_name, m.replicas, m.spec_hash) for m in third.loaded[0].models] == [
            ("a", 3, "new"),
            ("b", 1, "old"),
        ]
        third.end()

    def test_forgetting_takes_all_that_is_the_models(self, url: str) -> None:
        run = Run(url).begin()
        run.writer.save_model(ModelChange(model_name="a", config=config("a"), replicas=5))
        run.writer.save_instance(InstanceRecord("a-0", "a", "ready"))
        run.writer.save_alias("best", "a")
        run.settle()
        run.writer.forget_model("a")
        run.writer.save_model(ModelChange(model_name="a", status="stopped"))  # a late word
        run.end()
        storage = SQLAlchemyStorage(url)
        storage.open()
        assert (storage.models(), storage.instances(), storage.aliases()) == ([], [], {})
        storage.close()

    def test_a_row_that_cannot_be_written_costs_no_other(self, url: str) -> None:
        run = Run(url).begin()
        run.writer.save_model(ModelChange(model_name="a", config=config("a")))
        run.writer.save_instance(InstanceRecord("a-0", "a", "ready", pid=1 << 70))
        run.writer.save_instance(InstanceRecord("a-1", "a", "ready"))
        run.writer.save_event(event(1))
        run.settle()
        state = run.writer.state
        assert state.is_available
        assert state.last_error
        run.end()
        storage = SQLAlchemyStorage(url)
        storage.open()
        assert [i.instance for i in storage.instances()] == ["a-1"]
        assert [m.model_name for m in storage.models()] == ["a"]
        assert storage.events() == [event(1)]
        storage.close()

    def test_old_events_go(self, url: str) -> None:
        now = time.time()
        ages_d = (30.0, 8.0, 6.0, 0.0)
        first = Run(url).begin()
        for days in ages_d:
            first.writer.save_event(EventRecord(time=now - days * 86400, role="r", id=str(days)))
        first.end()
        second = Run(url, days=7).begin()
        second.end()
        third = Run(url).begin()
        assert [e.id for e in third.loaded[0].events] == ["6.0", "0.0"]
        third.end()

    def test_two_servers_on_one_database(self, url: str) -> None:
        runs = [Run(url, name).begin() for name in ("one", "two")]
        for number in range(200):
            for run in runs:
                run.writer.save_model(
                    ModelChange(model_name=f"m-{number}", config=config("m"), source=str(number))
                )
                run.writer.save_event(event(number))
        for run in runs:
            run.end()
        for name in ("one", "two"):
            again = Run(url, name).begin()
            (stored,) = again.loaded
            assert [m.source for m in stored.models] == [str(number) for number in range(200)]
            assert stored.events == [event(number) for number in range(200)]
            again.end()
