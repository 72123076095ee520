"""What every database of the registry must do with API keys and sums of usage: a test module gives
each its `url`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from store_suite import Run

from smmf_core.keys import digest
from smmf_core.store import SQLAlchemyStorage, tables
from smmf_core.store.asked import Asked
from smmf_core.store.records import KeyRecord, StoreError, Usage, UsageKey

COUNTS = len(Usage.__struct_fields__)
ONE = Usage(requests=1, errors=0, prompt=10, cached=4, generated=5)


def key(key_id: str, **values: Any) -> KeyRecord:
    return KeyRecord(key_id=key_id, digest=digest(key_id.encode()), roles=["inference"], **values)


def of(day: str, name: str, model: str = "m") -> UsageKey:
    return UsageKey(day, name, model)


def execute(url: str, *statements: str) -> None:
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()


class KeyStorageSuite:
    @pytest.fixture
    def storage(self, url: str) -> Iterator[SQLAlchemyStorage]:
        storage = SQLAlchemyStorage(url)
        storage.open()
        yield storage
        storage.close()

    def test_keys_are_kept_as_they_are(self, storage: SQLAlchemyStorage) -> None:
        full = key(
            "b", name="Ann's", models=["x/y", "z"], requests_per_minute=1, tokens_per_minute=2,
            max_concurrency=3, monthly_tokens=10**14, expires_at=2e9, issued_at=1.5e9,
        )  # fmt: skip
        storage.put_keys([full, key("a")])
        assert storage.api_keys() == [full, key("a")]
        storage.put_keys([key("b", revoked_at=1.6e9)])
        assert storage.api_keys() == [key("b", revoked_at=1.6e9), key("a")]
        storage.delete_keys(["b", "nobody"])
        assert storage.api_keys() == [key("a")]

    def test_sums_are_replaced_and_added_up_by_what_is_asked(
        self, storage: SQLAlchemyStorage
    ) -> None:
        storage.put_usage({of("2026-01-31", "a"): ONE, of("2026-02-01", "a"): ONE})
        storage.put_usage({of("2026-02-01", "a", "n"): ONE, of("2026-02-02", ""): ONE})
        twice = ONE.plus(ONE)
        storage.put_usage({of("2026-02-02", ""): twice})
        assert storage.usage_of(of("2026-02-02", "")) == twice
        assert storage.usage_of(of("2026-02-03", "")) == Usage()

        def asked(**question: Any) -> list[tuple[Any, ...]]:
            rows = storage.usage(Asked(**question))
            return [(*list(row.values())[:-COUNTS], row["requests"]) for row in rows]

        assert asked() == [("", "m", 2), ("a", "m", 2), ("a", "n", 1)]
        assert asked(by=("day",)) == [("2026-01-31", 1), ("2026-02-01", 2), ("2026-02-02", 2)]
        assert asked(by=("key_id",), since="2026-02-01") == [("", 2), ("a", 2)]
        assert asked(by=("key_id",), until="2026-02-01") == [("a", 3)]
        assert asked(by=("model_name",), key_id="a") == [("m", 2), ("n", 1)]
        assert asked(by=("key_id",), key_id="", model_name="m") == [("", 2)]
        assert asked(by=("key_id",), key_id="nobody") == []
        (row,) = storage.usage(Asked(by=("key_id",), key_id=""))
        assert row == {"key": "", "requests": 2, "errors": 0, "prompt": 20, "cached": 8,
                       "generated": 10}  # fmt: skip
        assert storage.tokens_since("2026-02-01") == {"": 30, "a": 30}
        assert storage.last_used() == {"": "2026-02-02", "a": "2026-02-01"}

    def test_servers_do_not_see_each_others_keys(
        self, url: str, storage: SQLAlchemyStorage
    ) -> None:
        other = SQLAlchemyStorage(url, "other")
        other.open()
        storage.put_keys([key("a", name="ours")])
        other.put_keys([key("a", name="theirs")])
        other.put_usage({of("2026-02-01", "a"): ONE})
        assert [record.name for record in storage.api_keys()] == ["ours"]
        assert storage.usage(Asked()) == []
        other.close()

    def test_a_database_of_the_first_schema_gets_the_new_tables(self, url: str) -> None:
        make_first_schema(url)
        storage = SQLAlchemyStorage(url)
        storage.open()
        assert list(storage.aliases().items()) == [("best", "a")]
        assert (storage.api_keys(), storage.usage(Asked())) == ([], [])
        storage.put_keys([key("a")])
        storage.close()
        storage.open()  # it is of this release now
        assert storage.api_keys() == [key("a")]
        storage.close()

    def test_what_is_in_the_way_of_a_migration_stays_as_it_is(self, url: str) -> None:
        make_first_schema(url)
        execute(url, "CREATE TABLE usage (weight INT)")
        storage = SQLAlchemyStorage(url)
        for _ in range(2):
            with pytest.raises(StoreError, match="table 'usage' that is not this registry's"):
                storage.open()
        execute(url, "DROP TABLE usage")
        storage.open()
        assert storage.api_keys() == []
        storage.close()

    def test_a_schema_before_the_first_is_refused(self, url: str) -> None:
        execute(url, "CREATE TABLE smmf_schema (id INT, version INT)",
                "INSERT INTO smmf_schema VALUES (1, 0)")  # fmt: skip
        with pytest.raises(StoreError, match="has schema 0, and this release knows 2"):
            SQLAlchemyStorage(url).open()


class KeyWriterSuite:
    def test_a_run_finds_the_keys_of_the_former_one(self, url: str) -> None:
        first = Run(url).begin()
        for record in (key("a"), key("b"), key("a", revoked_at=7.0)):
            first.writer.save_key(record)
        first.end()
        second = Run(url).begin()
        assert second.loaded[0].keys == [key("a", revoked_at=7.0), key("b")]
        assert second.loaded[0].is_read
        second.end()

    def test_sums_of_several_runs_add_up(self, url: str) -> None:
        for _ in range(2):
            run = Run(url).begin()
            run.writer.add_usage({of("2999-01-01", "a"): ONE})
            run.writer.add_usage({of("2999-01-01", "a"): ONE, of("2999-01-02", "a"): ONE})
            run.settle()
            run.writer.add_usage({of("2999-01-01", "a"): ONE})  # a day that is over
            assert {row["day"]: row["requests"] for row in
                    run.writer.read_usage(Asked(by=("day",)))}["2999-01-02"]  # fmt: skip
            run.end()
        last = Run(url).begin()
        rows = last.writer.read_usage(Asked(by=("day",)))
        assert [(row["day"], row["requests"]) for row in rows] == [
            ("2999-01-01", 6),
            ("2999-01-02", 2),
        ]
        assert last.loaded[0].month_tokens == {"a": 8 * 15}
        assert last.loaded[0].last_used == {"a": "2999-01-02"}
        last.end()

    def test_a_question_is_answered_with_all_that_was_added_before(self, url: str) -> None:
        run = Run(url).begin()
        for number in range(1, 30):
            run.writer.add_usage({of("2026-01-01", "a"): ONE})
            (row,) = run.writer.read_usage(Asked())
            assert row["requests"] == number
        run.end()


def make_first_schema(url: str) -> None:
    """As the first release left it: without the tables that came later."""
    storage = SQLAlchemyStorage(url)
    storage.open()
    storage.put_aliases({"best": "a"})
    storage.close()
    later = [name for names in tables.MADE_IN.values() for name in names]
    drops = [f"DROP TABLE {name}" for name in later]
    execute(url, *drops, "UPDATE smmf_schema SET version = 1")
