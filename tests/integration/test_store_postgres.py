"""The registry's store on a real PostgreSQL: the suites, and what SQLite lacks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg
import pytest
from key_store_suite import KeyStorageSuite, KeyWriterSuite
from postgres_env import PASSWORD, Postgres
from store_suite import RegistrySuite, Run, StorageSuite, WriterSuite, config, event, until

from smmf_core.store.records import ModelChange, StoreError
from smmf_core.store.storage import SQLAlchemyStorage

_numbers = itertools.count()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    postgres = Postgres()
    yield postgres.start()
    postgres.remove()


@pytest.fixture
def url(postgres: Postgres) -> str:
    """Of an empty database."""
    name = f"registry_{next(_numbers)}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.url(name)


class TestStorage(StorageSuite):
    pass


class TestRegistry(RegistrySuite):
    pass


class TestKeyStorage(KeyStorageSuite):
    pass


class TestKeyWriter(KeyWriterSuite):
    pass


class TestWriter(WriterSuite):
    pass


def test_the_short_form_of_the_url(url: str) -> None:
    storage = SQLAlchemyStorage(url.replace("postgresql://", "postgres://"))
    storage.open()
    assert storage.models() == []
    storage.close()


def test_a_password_is_not_told(postgres: Postgres) -> None:
    run = Run(postgres.url("nowhere")).begin()
    until(lambda: not run.writer.state.is_available)
    state = run.writer.state
    assert 'database "nowhere" does not exist' in state.last_error
    assert f"smmf:***@127.0.0.1:{postgres.port}/nowhere" in state.url
    assert PASSWORD not in state.last_error
    run.writer.close(60)


def test_a_wrong_password_is_said_to_be_one(postgres: Postgres) -> None:
    url = postgres.url().replace("a%20word", "another%20word")
    with pytest.raises(StoreError, match="password authentication failed"):
        SQLAlchemyStorage(url).open()


def written(url: str) -> list[str]:
    storage = SQLAlchemyStorage(url)
    storage.open()
    try:
        return [record.id for record in storage.events(100_000)]
    finally:
        storage.close()


def save_some(run: Run, numbers: range) -> list[str]:
    for number in numbers:
        run.writer.save_event(event(number))
        run.writer.save_model(
            ModelChange(model_name="a", config=config("a"), source=f"{number}.toml")
        )
    return [f"m-{number}" for number in numbers]


def test_nothing_is_lost_when_the_database_is_killed(postgres: Postgres, url: str) -> None:
    """Neither what waits while it is away, nor what it was just writing (which may come twice)."""
    run = Run(url).begin()
    expected: list[str] = []
    for turn in range(5):
        start = turn * 2000
        expected += save_some(run, range(start, start + 1000))
        postgres.kill()
        expected += save_some(run, range(start + 1000, start + 2000))
        until(lambda: not run.writer.state.is_available)
        postgres.start()
        until(lambda: run.writer.state.is_available)
    run.end()
    assert run.writer.state.dropped_events == 0
    assert list(dict.fromkeys(written(url))) == expected
    again = Run(url).begin()
    assert [model.source for model in again.loaded[0].models] == ["9999.toml"]
    again.end()


def test_a_database_that_comes_late_is_read_then(postgres: Postgres, url: str) -> None:
    first = Run(url).begin()
    for name in "ab":
        first.writer.save_model(
            ModelChange(model_name=name, config=config(name), is_runtime=True, replicas=2)
        )
    first.end()
    postgres.kill()
    second = Run(url).begin()
    assert second.loaded[0].models == []
    second.writer.save_model(ModelChange(model_name="b", replicas=4))
    postgres.start()
    until(lambda: len(second.loaded) == 2)
    assert [(m.model_name, m.replicas) for m in second.loaded[1].models] == [("a", 2), ("b", 4)]
    second.end()


def test_a_database_that_stands_still_holds_nobody_up(
    postgres: Postgres, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(url).begin()
    run.settle()
    monkeypatch.setattr("smmf_core.store.writer.SLOW_S", 0.05)
    postgres.pause()
    try:
        expected = save_some(run, range(3000))
        until(lambda: not run.writer.state.is_available)
        assert run.writer.state.last_error == "the database does not answer"
        assert not run.writer.close(0.05)
    finally:
        postgres.go_on()
    run.end()
    assert written(url) == expected


def test_a_database_that_was_made_anew_gets_all_again(postgres: Postgres, url: str) -> None:
    run = Run(url).begin()
    for name in "ab":
        run.writer.save_model(ModelChange(model_name=name, config=config(name)))
    run.settle()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    run.writer.save_model(ModelChange(model_name="a", status="ready"))
    run.end()
    again = Run(url).begin()
    assert [model.model_name for model in again.loaded[0].models] == ["a", "b"]
    again.end()
