"""The registry's tables, as SQLAlchemy describes them.

Owns names, types and keys of columns, and the number of this schema; must not open a database.
Every table but the schema's own has a `server` column: servers of different names may share one
database and see nothing of each other.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

SCHEMA = 2
MADE_IN = {2: ("api_keys", "usage")}  # tables that came with a schema, for who has an older one

metadata = sa.MetaData()


class Time(sa.types.TypeDecorator[datetime]):
    """A moment, kept in UTC; SQLite has no time zones."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, default="")


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False, default=False)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, default=0)


def _time(name: str) -> sa.Column[datetime]:
    return sa.Column(name, Time, nullable=False)


def _id() -> sa.Column[int]:
    """SQLite numbers rows by itself only in a column of exactly INTEGER."""
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column("id", kind, primary_key=True, autoincrement=True)


def _table(name: str, *columns: Any) -> sa.Table:
    return sa.Table(name, metadata, _id(), _text("server"), *columns)


schema = sa.Table(
    "smmf_schema",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer, nullable=False),
)
models = _table(
    "models",
    _text("model_name"),
    _text("model_type"),
    _text("deployment_type"),
    _text("provider"),
    sa.Column("config_json", sa.JSON, nullable=False),
    _text("status"),
    _flag("is_runtime"),
    _text("source"),
    _text("spec_hash"),
    sa.Column("replicas", sa.Integer),
    _flag("is_stopped"),
    _flag("is_pinned"),
    sa.Column("facts_json", sa.JSON, nullable=False),
    _time("created_at"),
    _time("updated_at"),
    sa.UniqueConstraint("server", "model_name"),
)
instances = _table(
    "instances",
    _text("instance"),
    _text("model_name"),
    _text("status"),
    _text("reason"),
    _text("device"),
    _count("pid"),
    _count("incarnation"),
    _count("restarts"),
    _flag("is_offline"),
    sa.Column("load_s", sa.Float),
    _count("memory_bytes"),
    _time("created_at"),
    _time("updated_at"),
    sa.UniqueConstraint("server", "instance"),
)
aliases = _table(
    "aliases",
    _text("alias"),
    _text("model_name"),
    _time("created_at"),
    _time("updated_at"),
    sa.UniqueConstraint("server", "alias"),
)
events = _table(
    "events",
    _time("time"),
    _text("role"),
    _text("name"),
    _text("former"),
    _text("state"),
    _text("reason"),
    _count("pid"),
    sa.Index("events_by_time", "server", "time"),
)
api_keys = _table(
    "api_keys",
    _text("key_id"),
    _text("name"),
    sa.Column("digest", sa.LargeBinary, nullable=False),  # SHA-256 of the key
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("models", sa.JSON, nullable=False),
    _count("requests_per_minute"),
    _count("tokens_per_minute"),
    _count("max_concurrency"),
    _count("monthly_tokens"),
    sa.Column("expires_at", sa.Float, nullable=False),  # Unix seconds, as below; 0: never
    sa.Column("revoked_at", sa.Float, nullable=False),
    sa.Column("issued_at", sa.Float, nullable=False),
    _time("created_at"),  # of the row
    _time("updated_at"),
    sa.UniqueConstraint("server", "key_id"),
)
usage = _table(
    "usage",
    _text("day"),  # in UTC, as 2026-01-31
    _text("key_id"),  # "": without one
    _text("model_name"),
    _count("requests"),
    _count("errors"),
    _count("prompt"),
    _count("cached"),
    _count("generated"),
    _time("created_at"),
    _time("updated_at"),
    sa.UniqueConstraint("server", "day", "key_id", "model_name"),
)
