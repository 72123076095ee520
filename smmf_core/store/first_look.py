"""The keys in a registry's database, read at once: a Router must not listen before they are known.

Without SQLAlchemy, which takes as long to import as the children to start. Must not change the
database, nor make one.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from smmf_core.keys import first_day_of_month
from smmf_core.store.records import KeyRecord, Stored

SQLITE = "sqlite:///"
WAIT_S = 1.0  # for another process's lock
_SCHEMAS = ([1], [2])  # of the one row that there is
_JSON = ("roles", "models")
_TOKENS = """SELECT key_id, SUM(prompt + generated) FROM usage
    WHERE server = ? AND day >= ? GROUP BY key_id"""


def look(url: str, server: str) -> Stored | None:
    """Keys, and the tokens that each has used in this month. None: another kind of database, or one
    that cannot be read."""
    if not url.startswith(SQLITE) or "?" in url:
        return None
    file = Path(url.removeprefix(SQLITE))
    try:
        return _read(file, server) if file.exists() else Stored()  # nothing was ever kept
    except (sqlite3.Error, OSError, msgspec.MsgspecError):
        return None


def read(url: str, server: str) -> Stored:
    """The same of any database, as long as it may take. Raises StoreError."""
    if (found := look(url, server)) is not None:
        return found
    from smmf_core.store.storage import SQLAlchemyStorage

    storage = SQLAlchemyStorage(url, server)
    storage.open()
    try:
        return Stored(keys=storage.api_keys(), month_tokens=storage.tokens_since(_first_day()))
    finally:
        storage.close()


def _read(file: Path, server: str) -> Stored | None:
    address = f"file:{quote(str(file))}?mode=rw"
    with closing(sqlite3.connect(address, uri=True, timeout=WAIT_S)) as connection:
        connection.row_factory = sqlite3.Row
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if "smmf_schema" not in names:
            return None if names else Stored()
        versions = connection.execute("SELECT version FROM smmf_schema").fetchall()
        if [row[0] for row in versions] not in _SCHEMAS:
            return None
        if versions[0][0] == 1:
            return Stored()
        rows = connection.execute("SELECT * FROM api_keys WHERE server = ? ORDER BY id", [server])
        keys = [_record(dict(row)) for row in rows]
        tokens = connection.execute(_TOKENS, [server, _first_day()])
        return Stored(keys=keys, month_tokens=dict(map(tuple, tokens)))


def _record(row: dict[str, Any]) -> KeyRecord:
    decoded = {name: msgspec.json.decode(row[name]) for name in _JSON}
    return msgspec.convert({**row, **decoded}, KeyRecord)


def _first_day() -> str:
    return first_day_of_month(time.time())
