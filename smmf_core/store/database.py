"""Opening a database: which URLs, with which settings, and whose schema is in it.

Owns engines and the schema check; must not read or write the registry's rows.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from smmf_core.store import tables
from smmf_core.store.records import StoreError

BUSY_S = 5.0  # how long SQLite waits for another process's lock
_POSTGRES = {
    "application_name": "smmf",
    "connect_timeout": 5,
    "keepalives_idle": 10,  # a host that vanished is noticed after half a minute
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
_CREATION_LOCK = 0x736D6D66  # a number of our own among PostgreSQL's advisory locks
FIRST_SCHEMA = 1
_FOREIGN = (
    "the database has a table '{}' that is not this registry's: "
    "give [registry] url a database of its own"
)
_REFUSED = (sa.exc.DataError, sa.exc.IntegrityError)


@contextmanager
def as_store_error() -> Iterator[None]:
    """Whatever SQLAlchemy, a driver or the file system raises leaves as a StoreError."""
    try:
        yield
    except sa.exc.StatementError as error:  # what a driver says, or a value that has no such type
        is_refused = isinstance(error, _REFUSED) or not isinstance(error, sa.exc.DBAPIError)
        raise StoreError(_first_line(error.orig or error), not is_refused) from error
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise StoreError(_first_line(error)) from error
    except (OverflowError, msgspec.MsgspecError) as error:
        raise StoreError(_first_line(error), is_passing=False) from error


def connect(url: str) -> sa.Engine:
    """A database with this release's tables in it, made if there are none. Raises StoreError."""
    with as_store_error():
        checked = _checked(url)
        is_sqlite = checked.get_backend_name() == "sqlite"
        engine = _sqlite_engine(checked) if is_sqlite else _postgres_engine(checked)
        try:
            with engine.begin() as connection:
                _prepare_schema(connection)
        except BaseException:
            engine.dispose()
            raise
        return engine


def shown(url: str) -> str:
    """A URL as it may be told to others: without its password."""
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return "an invalid URL"


def file_of(engine: sa.Engine) -> Path | None:
    """SQLite's file; None for other databases and for one in memory."""
    name = engine.url.database
    is_file = engine.dialect.name == "sqlite" and name not in (None, "", ":memory:")
    return Path(str(name)) if is_file else None


def _checked(text: str) -> sa.URL:
    """The URL with the driver that we use. Raises StoreError."""
    try:
        url = sa.make_url(text.replace("postgres://", "postgresql://", 1))
    except sa.exc.ArgumentError:
        raise StoreError(
            "[registry] url is not a URL such as sqlite:////path/registry.db"
        ) from None
    kind = url.get_backend_name()
    if kind == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise StoreError(f"[registry] url: {kind} is not supported; there are sqlite, postgresql")
    return url.set(drivername="sqlite")


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    """Its file and folder are made for this user alone."""
    engine = _engine(url, connect_args={"timeout": BUSY_S})
    if (file := file_of(engine)) is not None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):  # never opened here: to close it would give up its locks
            os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    sa.event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: Any) -> None:
    """Readers and the writer do not wait for each other; a crash of the machine may cost the last
    changes, never the file."""
    cursor = connection.cursor()
    _use_wal(cursor)
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _use_wal(cursor: Any) -> None:
    """SQLite does not wait for another connection that is doing so at this moment."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > until:
                raise
        time.sleep(0.005)


def _postgres_engine(url: sa.URL) -> sa.Engine:
    try:
        return _engine(url, connect_args=_POSTGRES, pool_pre_ping=True)
    except ModuleNotFoundError:
        message = "[registry] url: PostgreSQL needs psycopg: pip install 'smmf[postgres]'"
        raise StoreError(message) from None


def _engine(url: sa.URL, **settings: Any) -> sa.Engine:
    def to_json(value: Any) -> str:
        return msgspec.json.encode(value).decode()

    return sa.create_engine(
        url, json_serializer=to_json, json_deserializer=msgspec.json.decode, **settings
    )


def _prepare_schema(connection: sa.Connection) -> None:
    """Make the tables where none of them is. Raises StoreError for a schema that is not ours."""
    if not _has_schema(connection):
        _lock_out_others(connection)
        if not _has_schema(connection):
            _make_tables(connection)
    versions = _versions(connection)
    if len(versions) == 1 and versions[0] < tables.SCHEMA:
        _lock_out_others(connection)
        versions = _versions(connection)
        if len(versions) == 1 and FIRST_SCHEMA <= versions[0] < tables.SCHEMA:
            versions = [_migrate(connection, versions[0])]
    if versions != [tables.SCHEMA]:
        there = ", ".join(map(str, versions)) or "of no number"
        raise StoreError(
            f"the registry's database has schema {there}, and this release knows "
            f"{tables.SCHEMA}: use the release that made it, or give [registry] url another one"
        )


def _migrate(connection: sa.Connection, version: int) -> int:
    """From an older schema to this release's: every step so far only adds tables.

    Raises StoreError when something of somebody else's has a new table's name.
    """
    added = [name for made, names in tables.MADE_IN.items() if made > version for name in names]
    there = set(sa.inspect(connection).get_table_names())
    for name in added:
        if name in there:
            raise StoreError(_FOREIGN.format(name))
        tables.metadata.tables[name].create(connection)
    connection.execute(sa.update(tables.schema).values(version=tables.SCHEMA))
    return tables.SCHEMA


def _versions(connection: sa.Connection) -> list[int]:
    return list(connection.scalars(sa.select(tables.schema.c.version)))


def _has_schema(connection: sa.Connection) -> bool:
    found = set(sa.inspect(connection).get_table_names())
    foreign = sorted(found.intersection(tables.metadata.tables))
    if foreign and tables.schema.name not in found:
        raise StoreError(_FOREIGN.format(foreign[0]))
    return tables.schema.name in found


def _lock_out_others(connection: sa.Connection) -> None:
    """Another server may be making the tables at this moment; until the transaction's end."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _make_tables(connection: sa.Connection) -> None:
    tables.metadata.create_all(connection)
    connection.execute(sa.insert(tables.schema).values(id=1, version=tables.SCHEMA))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
