"""`SQLAlchemyStorage`: create, read, update and delete rows, in SQLite or PostgreSQL.

Owns the engine and its settings; every error leaves as a StoreError. Must not decide what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from smmf_core.store import database, tables
from smmf_core.store.records import EventRecord, InstanceRecord, ModelRecord, StoreError

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

    # --- what they share ---

    def _select(self, table: sa.Table) -> sa.Select[Any]:
        return sa.select(table).where(table.c.server == self.server)

    def _read(self, query: sa.Select[Any], record_of: Callable[[_Row], Record]) -> list[Record]:
        with self._begin() as connection:
            rows = connection.execute(query).mappings()
            return [record_of({str(key): value for key, value in row.items()}) for row in rows]

    def _put(self, table: sa.Table, key: str, rows: Iterable[_Row]) -> None:
        now = datetime.now(UTC)
        stamps = {"server": self.server, "created_at": now, "updated_at": now}
        values = [{**stamps, **_plain(row)} for row in rows]
        if not values:
            return
        with self._begin() as connection:
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            query = dialect.insert(table)
            kept = {"id", "server", "created_at", key}
            changed = {c.name: query.excluded[c.name] for c in table.c if c.name not in kept}
            connection.execute(
                query.on_conflict_do_update(index_elements=["server", key], set_=changed), values
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
