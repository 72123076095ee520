"""Keys and usage in the registry of a server that does not run, as its admin API would tell them.

Owns the connection to the database; whoever uses it holds the lock of the server's name.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from smmf_core.admin.wording import wrong_field
from smmf_core.cli.http import CliError
from smmf_core.config import ServerConfig
from smmf_core.controller.keys import KeyBook
from smmf_core.errors import ApiError
from smmf_core.native._limits import ROWS
from smmf_core.store.asked import Asked, columns
from smmf_core.store.issue import KeyWanted, issue, row
from smmf_core.store.location import registry_url
from smmf_core.store.records import StoreError
from smmf_core.store.storage import SQLAlchemyStorage

Row = dict[str, Any]


class KeyRegistry:
    """A key_place.Place."""

    def __init__(self, config: ServerConfig) -> None:
        """Raises CliError when the database cannot be used."""
        self._server = config.server.name
        self._storage = SQLAlchemyStorage(registry_url(config), self._server)
        self._book = KeyBook(ROWS)
        self._book.configure(config.server.api_keys)
        try:
            self._storage.open()
            self._book.learn(self._storage.api_keys())
            self._last_used = self._storage.last_used()
        except StoreError as error:
            raise _failed(error) from None

    def create(self, wanted: Row) -> Row:
        now = time.time()
        try:
            record, key = issue(msgspec.convert(wanted, KeyWanted), now)
            self._book.add(record)
            self._storage.put_keys([record])
        except StoreError as error:
            raise _failed(error) from None
        except msgspec.ValidationError as error:
            raise CliError(wrong_field(str(error))) from None
        except ValueError as error:
            raise CliError(str(error)) from None
        message = (
            f"in the registry of {self._server}, which does not run; the key is shown this once"
        )
        return {**row(record, {}, now), "key": key, "message": message}

    def keys(self, with_revoked: bool) -> list[Row]:
        now = time.time()
        records = [r for r in self._book.records() if with_revoked or not r.revoked_at]
        return [row(record, self._last_used, now) for record in records]

    def revoke(self, key_id: str) -> Row:
        now = time.time()
        try:
            record = self._book.revoke(key_id, now)
            self._storage.put_keys([record])
        except StoreError as error:
            raise _failed(error) from None
        except ApiError as error:
            raise CliError(error.message) from None
        message = f"{key_id} is revoked, in the registry of {self._server}, which does not run"
        return {**row(record, self._last_used, now), "message": message}

    def usage(self, asked: dict[str, str]) -> list[Row]:
        question = Asked(
            by=columns(asked["by"]),
            key_id=asked.get("key"),
            model_name=asked.get("model"),
            since=asked.get("since", ""),
            until=asked.get("until", ""),
        )
        try:
            return self._storage.usage(question)
        except StoreError as error:
            raise _failed(error) from None


def _failed(error: StoreError) -> CliError:
    return CliError(f"the registry's database cannot be used: {error}")
