"""The Controller's part in API keys: tells Routers which there are, and adds up what is used.

Owns the file of the table of limits, which Routers map, and `keys.json` beside it; who may do what
is decided in keys. Nothing waits for the store. Must not be asked during a request for a model.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from smmf_core.config import Server, ServerConfig
from smmf_core.config.addresses import client_hosts, is_loopback
from smmf_core.control_messages import KeyEntry, Keys, UsageDelta
from smmf_core.controller.keys import UNKNOWN, KeyBook, SavedKeys
from smmf_core.errors import ControlError
from smmf_core.keys import day_of, month_of
from smmf_core.lifecycle import Child
from smmf_core.native._limits import ROWS, LimitTable
from smmf_core.store.records import KeyRecord, Stored, Usage, UsageKey
from smmf_core.store.writer import Store

TABLE, SAVED = "limits", "keys.json"
_MONTH_TOKENS = 4  # of LimitTable.state
Send = Callable[[Child, Keys, Sequence[int]], None]

_log = logging.getLogger("smmf.controller")
_decode = msgspec.json.Decoder(SavedKeys).decode


class Access:
    """`begin` before any Router is welcomed. `routers` gives those that there are."""

    def __init__(
        self,
        config: ServerConfig,
        run_dir: Path,
        store: Store | None,
        send: Send,
        routers: Callable[[], Iterable[Child]],
    ) -> None:
        self._config = config
        self._run_dir = run_dir
        self._store = store
        self._send = send
        self._routers = routers
        self._is_late = False  # the database has been waited for
        self._version = 0
        self._fd = -1
        self._table: LimitTable | None = None
        self.last_used: dict[str, str] = {}  # by key: the day
        self.book = KeyBook(ROWS)

    # --- start and end ---

    def begin(self, adopted: set[int], first: Stored | None) -> None:
        """`adopted`: Routers of a former Controller that live. `first`: what a first look into the
        database has found; None: it could not be read. A Controller that was killed has left what
        it may not have told the database."""
        self.book = KeyBook(ROWS, _load(self._run_dir / SAVED))
        self._open_table(keeps=bool(adopted))
        self.book.configure(self._config.server.api_keys)
        for router in self._routers():
            if router.id not in adopted:
                self.forget_router(router.id)
        if first is not None:
            self.learn(first)
        elif self._store is None:
            self.learn(Stored())

    def close(self) -> None:
        """Nothing runs any more."""
        self._table = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        for name in (TABLE, SAVED):
            (self._run_dir / name).unlink(missing_ok=True)

    # --- keys ---

    @property
    def is_open(self) -> bool:
        """Other machines reach the admin port."""
        return not is_loopback(self._config.server.admin_host)

    def open_key(self) -> str:
        """Which key of [server] lets other machines in without an API key, and was not told to;
        "": none."""
        server = self._config.server
        if self.book.entries() or server.no_auth:
            return ""
        hosts = client_hosts(server)
        return next((key for key, host in hosts.items() if not is_loopback(host)), "")

    def check_start(self) -> None:
        """Other machines reach no port that needs no key. Raises ControlError."""
        server = self._config.server
        name = "" if server.name == Server().name else f" --server {server.name}"
        if key := self.open_key():
            raise ControlError(
                f"other machines reach [server] {key} {client_hosts(server)[key]}, and there is no "
                f"API key: make one with `smmf keys create{name}` or give [server] api_keys; or "
                "let everybody in with --no-auth or [server] no_auth = true"
            )
        if self.is_open and not self.book.has_admin:
            raise ControlError(
                f"other machines reach [server] admin_host {server.admin_host}, and no API key has "
                f"the role admin: make one with `smmf keys create --role admin{name}` or give "
                "[server] api_keys"
            )

    def learn(self, stored: Stored) -> None:
        """What the database has, or that it cannot be read."""
        if not stored.is_read:
            self.too_late()
            return
        missing = self.book.learn(stored.keys)
        for record in missing:
            self._save(record)
        for key, day in stored.last_used.items():
            self.last_used[key] = max(day, self.last_used.get(key, ""))
        self._changed()
        self._load_month(stored.month_tokens)

    def too_late(self) -> None:
        """The database was waited for long enough: configured keys must do, until it is there."""
        if self.book.entries() and not (self._is_late or self.book.is_known):
            _log.warning("the registry cannot be read: only keys of [server] api_keys are known")
        self._is_late = True

    def configure(self) -> None:
        """`[server]` has changed."""
        self.book.configure(self._config.server.api_keys)
        self._changed()

    def add(self, record: KeyRecord) -> None:
        """Raises ControlError."""
        self.book.add(record)
        self._save(record)
        self._changed()

    def revoke(self, key_id: str) -> KeyRecord:
        """From now on Routers refuse it; what is open goes on. Raises ApiError, ControlError."""
        record = self.book.revoke(key_id, time.time())
        self._save(record)
        self._changed()
        return record

    def welcome(self, router: Child) -> None:
        """Right after its Welcome; it opens its port when it has been told."""
        if self._fd >= 0:
            self._send(router, self._message(), [self._fd])

    def announce(self) -> None:
        for router in self._routers():
            self.welcome(router)

    def _message(self) -> Keys:
        entries = self.book.entries()
        is_required = bool(entries or self.open_key())
        return Keys(self._version, entries, is_required, "" if self.book.is_known else UNKNOWN)

    def _changed(self) -> None:
        self._version += 1
        if self._table is not None:
            for slot in self.book.fresh:
                self._table.forget(slot)
            self.book.fresh.clear()
        self._keep()
        self.announce()

    def _save(self, record: KeyRecord) -> None:
        if self._store is not None:
            self._store.save_key(record)

    def _keep(self) -> None:
        """A full disk or a folder that is gone cost adoption only."""
        new = self._run_dir / f"{SAVED}.new"
        with contextlib.suppress(OSError):
            new.touch(mode=0o600)
            new.write_bytes(msgspec.json.encode(self.book.saved()))
            new.replace(self._run_dir / SAVED)

    # --- the table of limits ---

    def forget_router(self, router: int) -> None:
        """It is gone, and its open requests with it."""
        if self._table is not None:
            self._table.forget_router(router)

    def _open_table(self, keeps: bool) -> None:
        """The one that living Routers have, else a new file: one that is mapped must not shrink."""
        path = self._run_dir / TABLE
        if keeps:
            with contextlib.suppress(OSError, ValueError):
                self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                self._table = LimitTable.map(self._fd)
                return
        if self._fd >= 0:
            os.close(self._fd)
        path.unlink(missing_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._table = LimitTable.create(self._fd)

    def _load_month(self, tokens: dict[str, int]) -> None:
        """The table of a former Controller knows more than the database."""
        now = time.time()
        month = month_of(now)
        for entry in self.book.entries():
            missing = tokens.get(entry.id, 0) - self._month_tokens(entry, now)
            if missing > 0:
                assert self._table is not None
                self._table.add_month(entry.slot, month, missing)

    def _month_tokens(self, entry: KeyEntry, now: float) -> int:
        assert self._table is not None
        return int(self._table.state(entry.slot, int(now), month_of(now))[_MONTH_TOKENS])

    # --- usage ---

    def used(self, deltas: Iterable[UsageDelta]) -> None:
        """As a Router reports it, once a second. The store hears of it at once: what waits here is
        lost with this process."""
        day = day_of(time.time())
        added: dict[UsageKey, Usage] = {}
        for delta in deltas:
            usage = Usage(delta.requests, delta.errors, delta.prompt, delta.cached, delta.generated)
            added[UsageKey(day, delta.key, delta.model)] = usage  # a report has each but once
            self.last_used[delta.key] = day
        if added and self._store is not None:
            self._store.add_usage(added)


def _load(path: Path) -> SavedKeys | None:
    """None: there was none, or its file is broken."""
    try:
        return _decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None
