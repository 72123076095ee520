"""`SQLAlchemyStorage`: create, read, update and delete rows, in SQLite or PostgreSQL.

Owns the engine and its settings; every error leaves as a StoreError. Must not decide what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from smmf_core.store import database, tables
from smmf_core.store.asked import Asked, shown
from smmf_core.store.records import (
    EventRecord,
    InstanceRecord,
    KeyRecord,
    ModelRecord,
    StoreError,
    Usage,
    UsageKey,
)

_Row = dict[str, Any]
Record = TypeVar("Record")
_JSON = {"config": "config_json", "facts": "facts_json"}


class SQLAlchemyStorage:
    """Rows of one server (by its name) in the database at `url`; one thread at a time.

    `open` first. Methods are transactions of their own, or parts of `with storage.transaction()`.
    """

    def __init__(self, url: str, server: str = "default") -> None:
        self.server = server
        self._url = url
        self._engine: sa.Engine | None = None
        self._connection: sa.Connection | None = None
        self._file: tuple[Path, int] | None = None  # SQLite's, with its inode

    # --- the database ---

    def open(self) -> None:
        """Connect; make the tables where there are none.

        Raises StoreError when it cannot, or when the schema is not one that this release knows.
        """
        self.close()
        self._engine = database.connect(self._url)
        file = database.file_of(self._engine)
        self._file = None if file is None else (file, file.stat().st_ino)

    @property
    def is_open(self) -> bool:
        return self._engine is not None

    def close(self) -> None:
        engine, self._engine, self._file = self._engine, None, None
        if engine is not None:
            engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Raises StoreError; `is_passing` tells whether to try again."""
        with self._begin():
            yield

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        if self._connection is not None:
            yield self._connection
            return
        with database.as_store_error(), self._opened().begin() as connection:
            self._connection = connection
            try:
                yield connection
            finally:
                self._connection = None

    def _opened(self) -> sa.Engine:
        if self._engine is None:
            raise StoreError("the registry's database is not open")
        if self._file is not None:
            path, inode = self._file
            if not path.exists() or path.stat().st_ino != inode:
                raise StoreError(f"{path} was deleted or replaced")
        return self._engine

    # --- models ---

    def put_models(self, records: Sequence[ModelRecord]) -> None:
        """Insert, or replace what is there; `created_at` of what is there stays."""
        self._put(tables.models, "model_name", map(_model_row, records))

    def models(self) -> list[ModelRecord]:
        """In the order of their registration."""
        query = self._select(tables.models).order_by(tables.models.c.id)
        return self._read(query, _model_record)

    def model(self, name: str) -> ModelRecord | None:
        query = self._select(tables.models).where(tables.models.c.model_name == name)
        return next(iter(self._read(query, _model_record)), None)

    def delete_models(self, names: Iterable[str]) -> None:
        self._delete(tables.models, tables.models.c.model_name, names)

    # --- instances ---

    def put_instances(self, records: Sequence[InstanceRecord]) -> None:
        self._put(tables.instances, "instance", map(msgspec.structs.asdict, records))

    def instances(self, model_name: str = "") -> list[InstanceRecord]:
        """Of one model, or of all."""
        query = self._select(tables.instances).order_by(tables.instances.c.id)
        if model_name:
            query = query.where(tables.instances.c.model_name == model_name)
        return self._read(query, lambda row: msgspec.convert(row, InstanceRecord))

    def delete_instances(self, names: Iterable[str]) -> None:
        self._delete(tables.instances, tables.instances.c.instance, names)

    # --- aliases ---

    def put_aliases(self, pointed: dict[str, str]) -> None:
        rows = ({"alias": alias, "model_name": name} for alias, name in pointed.items())
        self._put(tables.aliases, "alias", rows)

    def aliases(self) -> dict[str, str]:
        query = self._select(tables.aliases).order_by(tables.aliases.c.id)
        return dict(self._read(query, lambda row: (row["alias"], row["model_name"])))

    def delete_aliases(self, aliases: Iterable[str]) -> None:
        self._delete(tables.aliases, tables.aliases.c.alias, aliases)

    # --- events ---

    def add_events(self, records: Sequence[EventRecord]) -> None:
        rows = [{**_event_row(record), "server": self.server} for record in records]
        if rows:
            with self._begin() as connection:
                connection.execute(sa.insert(tables.events), rows)

    def events(self, limit: int = 1000) -> list[EventRecord]:
        """The newest, oldest first."""
        table = tables.events
        query = self._select(table).order_by(table.c.time.desc(), table.c.id.desc()).limit(limit)
        return self._read(query, _event_record)[::-1]

    def delete_events(self, before: float) -> None:
        """Those older than a Unix time."""
        table = tables.events
        moment = datetime.fromtimestamp(before, UTC)
        query = sa.delete(table).where(table.c.server == self.server, table.c.time < moment)
        with self._begin() as connection:
            connection.execute(query)

    # --- keys and usage ---

    def put_keys(self, records: Sequence[KeyRecord]) -> None:
        self._put(tables.api_keys, "key_id", map(msgspec.structs.asdict, records))

    def api_keys(self) -> list[KeyRecord]:
        """In the order of their making; revoked ones, too."""
        query = self._select(tables.api_keys).order_by(tables.api_keys.c.id)
        return self._read(query, lambda row: msgspec.convert(row, KeyRecord))

    def delete_keys(self, ids: Iterable[str]) -> None:
        self._delete(tables.api_keys, tables.api_keys.c.key_id, ids)

    def put_usage(self, sums: Mapping[UsageKey, Usage]) -> None:
        """Whole sums, in place of what is there."""
        rows = ({**key._asdict(), **msgspec.structs.asdict(u)} for key, u in sums.items())
        self._put(tables.usage, UsageKey._fields, rows)

    def usage_of(self, key: UsageKey) -> Usage:
        query = self._select(tables.usage).filter_by(**key._asdict())
        found = self._read(query, lambda row: msgspec.convert(row, Usage))
        return found[0] if found else Usage()

    def usage(self, asked: Asked) -> list[_Row]:
        """Sums by the columns of `asked.by`, in their order."""
        table = tables.usage
        by = [table.c[column] for column in asked.by]
        sums = [
            sa.cast(sa.func.sum(table.c[name]), sa.BigInteger).label(name)
            for name in Usage.__struct_fields__
        ]
        query = sa.select(*by, *sums).where(table.c.server == self.server)
        for column, value in asked.equal().items():
            query = query.where(table.c[column] == value)
        if asked.since:
            query = query.where(table.c.day >= asked.since)
        if asked.until:
            query = query.where(table.c.day <= asked.until)
        found = self._read(query.group_by(*by).order_by(*by), dict)
        return [{shown(column): value for column, value in row.items()} for row in found]

    def tokens_since(self, day: str) -> dict[str, int]:
        """Prompt and generated ones of each key."""
        rows = self.usage(Asked(by=("key_id",), since=day))
        return {row["key"]: row["prompt"] + row["generated"] for row in rows}

    def last_used(self) -> dict[str, str]:
        """The last day on which each key was used."""
        table = tables.usage
        query = sa.select(table.c.key_id, sa.func.max(table.c.day).label("day"))
        query = query.where(table.c.server == self.server).group_by(table.c.key_id)
        return dict(self._read(query, lambda row: (row["key_id"], row["day"])))

    # --- what they share ---

    def _select(self, table: sa.Table) -> sa.Select[Any]:
        return sa.select(table).where(table.c.server == self.server)

    def _read(self, query: sa.Select[Any], record_of: Callable[[_Row], Record]) -> list[Record]:
        with self._begin() as connection:
            rows = connection.execute(query).mappings()
            return [record_of({str(key): value for key, value in row.items()}) for row in rows]

    def _put(self, table: sa.Table, key: str | tuple[str, ...], rows: Iterable[_Row]) -> None:
        keys = (key,) if isinstance(key, str) else key
        now = datetime.now(UTC)
        stamps = {"server": self.server, "created_at": now, "updated_at": now}
        values = [{**stamps, **_plain(row)} for row in rows]
        if not values:
            return
        with self._begin() as connection:
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            query = dialect.insert(table)
            kept = {"id", "server", "created_at", *keys}
            changed = {c.name: query.excluded[c.name] for c in table.c if c.name not in kept}
            connection.execute(
                query.on_conflict_do_update(index_elements=["server", *keys], set_=changed), values
            )

    def _delete(self, table: sa.Table, column: sa.Column[Any], names: Iterable[str]) -> None:
        with self._begin() as connection:
            for name in names:
                connection.execute(
                    sa.delete(table).where(table.c.server == self.server, column == name)
                )


def _plain(row: _Row) -> _Row:
    """Without what PostgreSQL cannot keep in a text: zero characters (a reason may quote any)."""
    return {
        key: value.replace("\0", "") if isinstance(value, str) else value
        for key, value in row.items()
    }


def _model_row(record: ModelRecord) -> _Row:
    row = msgspec.structs.asdict(record)
    if record.created_at is None:
        del row["created_at"]
    del row["updated_at"]
    return {_JSON.get(key, key): value for key, value in row.items()}


def _model_record(row: _Row) -> ModelRecord:
    renamed = {key: row[column] for key, column in _JSON.items()}
    return msgspec.convert({**row, **renamed}, ModelRecord)


def _event_row(record: EventRecord) -> _Row:
    row = _plain(msgspec.structs.asdict(record))
    name = row.pop("id")  # of the column that numbers the rows
    return {**row, "time": datetime.fromtimestamp(record.time, UTC), "name": name}


def _event_record(row: _Row) -> EventRecord:
    return msgspec.convert({**row, "time": row["time"].timestamp(), "id": row["name"]}, EventRecord)
