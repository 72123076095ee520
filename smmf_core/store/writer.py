"""The store's own thread: takes changes without making the caller wait, and writes them.

The thread blocks on the database and owns the connection and what is to be written; its callers put
into the outbox and go on. Must not raise at a caller nor block one: while the database is away,
changes wait in memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from smmf_core.store.outbox import Outbox
from smmf_core.store.records import (
    EventRecord,
    InstanceRecord,
    KeyRecord,
    ModelChange,
    Stored,
    StoreError,
    StoreState,
    Usage,
    UsageKey,
)

if TYPE_CHECKING:
    from smmf_core.store.asked import Asked
    from smmf_core.store.scribe import Scribe

RETRY_S = 0.5  # doubled by every failure up to:
RETRY_MAX_S = 15.0
SLOW_S = (
    8.0  # a write that takes longer than SQLite waits for a lock: the database is not available
)
PRUNE_S = 3600.0  # old events go even when nothing happens
_DAY_S = 86_400.0
_POLL_S = 0.005


class Store(Protocol):
    """What the Controller's shell tells and asks. No method but `close` and `read_usage` blocks;
    none but that raises."""

    def load(self, on_loaded: Callable[[Stored], None]) -> None:
        """Begin: open the database in the store's own thread and give what it remembers.

        `on_loaded` is called in that thread (use `loop.call_soon_threadsafe` in it): at once, with
        `is_read` false when the database cannot be read, and again when it could be. Nothing is
        written before it was read. What was saved in the meantime is in it already.
        """

    def save_model(self, change: ModelChange) -> None:
        """Remember what became different; changes of one model are merged until written."""

    def forget_model(self, name: str) -> None:
        """Its row, its instances and the aliases that point at it."""

    def save_instance(self, record: InstanceRecord) -> None: ...
    def forget_instance(self, instance: str) -> None: ...
    def save_event(self, event: EventRecord) -> None:
        """Events beyond the bound push out the oldest that are not written yet."""

    def save_alias(self, alias: str, model: str | None) -> None:
        """An alias pointed at run time; None: no longer."""

    def save_key(self, record: KeyRecord) -> None: ...
    def add_usage(self, added: dict[UsageKey, Usage]) -> None:
        """What came to the sums."""

    def read_usage(self, asked: Asked) -> list[dict[str, Any]]:
        """For a thread that may wait for the database; what was added before is in it.

        Raises StoreError.
        """

    @property
    def state(self) -> StoreState: ...
    def close(self, timeout_s: float) -> bool:
        """Write what waits and end the thread; False when time or the database did not allow."""


class StoreWriter:
    """Implements Store."""

    def __init__(
        self,
        url: str,
        server: str,
        retention_days: float,
        retry_s: float = RETRY_S,
    ) -> None:
        self._url, self._server = url, server
        self._retention_s = retention_days * _DAY_S
        self._retry_s = retry_s
        # of the callers
        self._outbox = Outbox()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        # of the store's thread; others only look
        self._shown_url = ""
        self._is_available = True
        self._last_error = ""
        self._began_at = float("inf")  # the write or read that is under way
        self._written = 0  # of the outbox's puts

    # --- Store ---

    def load(self, on_loaded: Callable[[Stored], None]) -> None:
        self._thread = threading.Thread(
            target=self._run, args=(on_loaded,), name="store", daemon=True
        )
        self._thread.start()

    def save_model(self, change: ModelChange) -> None:
        self._outbox.put_model(change)
        self._wake.set()

    def forget_model(self, name: str) -> None:
        self._outbox.forget_model(name)
        self._wake.set()

    def save_instance(self, record: InstanceRecord) -> None:
        self._outbox.put_instance(record.instance, record)
        self._wake.set()

    def forget_instance(self, instance: str) -> None:
        self._outbox.put_instance(instance, None)
        self._wake.set()

    def save_event(self, event: EventRecord) -> None:
        self._outbox.put_event(event)
        self._wake.set()

    def save_alias(self, alias: str, model: str | None) -> None:
        self._outbox.put_alias(alias, model)
        self._wake.set()

    def save_key(self, record: KeyRecord) -> None:
        self._outbox.put_key(record)
        self._wake.set()

    def add_usage(self, added: dict[UsageKey, Usage]) -> None:
        if added:
            self._outbox.put_usage(added)
            self._wake.set()

    def read_usage(self, asked: Asked) -> list[dict[str, Any]]:
        from smmf_core.store.storage import SQLAlchemyStorage

        deadline, puts = time.monotonic() + SLOW_S, self._outbox.puts
        while self._written < puts:
            if time.monotonic() > deadline or not self.state.is_available:
                raise StoreError(self.state.in_words())
            time.sleep(_POLL_S)
        storage = SQLAlchemyStorage(self._url, self._server)
        try:
            storage.open()
            return storage.usage(asked)
        finally:
            storage.close()

    @property
    def state(self) -> StoreState:
        is_slow = time.monotonic() - self._began_at > SLOW_S
        error = "the database does not answer" if is_slow else self._last_error
        return StoreState(
            url=self._shown_url,
            is_available=self._is_available and not is_slow,
            last_error=error,
            waiting=self._outbox.puts - self._written,
            dropped_events=self._outbox.dropped_events,
        )

    def close(self, timeout_s: float) -> bool:
        if self._thread is None:
            return True
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and self._outbox.puts == self._written

    # --- the store's thread ---

    def _run(self, on_loaded: Callable[[Stored], None]) -> None:
        """A turn for every wake-up; after a failed one again with back-off. The turn that begins
        after `close` was called is the last."""
        from smmf_core.store.database import shown  # slow to import: while the children start
        from smmf_core.store.scribe import Scribe
        from smmf_core.store.storage import SQLAlchemyStorage

        self._shown_url = shown(self._url)
        storage = SQLAlchemyStorage(self._url, self._server)
        scribe = Scribe(storage, self._outbox, self._retention_s)
        delay_s = self._retry_s
        is_told = False
        while True:
            self._wake.clear()  # before looking why it was set
            is_last = self._closing.is_set()
            is_done = self._turn(scribe, on_loaded)
            if not is_done and not is_told:
                on_loaded(Stored(is_read=False))
            is_told = True
            if is_last:
                break
            if is_done:
                delay_s = self._retry_s
                self._wake.wait(PRUNE_S)
            else:
                self._closing.wait(delay_s)
                delay_s = min(2 * delay_s, RETRY_MAX_S)
        storage.close()

    def _turn(self, scribe: Scribe, on_loaded: Callable[[Stored], None]) -> bool:
        """Read what was not read yet, write what waits; False when the database did not let us."""
        puts = self._outbox.puts
        self._began_at = time.monotonic()
        try:
            if not scribe.has_read:
                on_loaded(scribe.read())
            scribe.write()
        except StoreError as error:
            self._last_error, self._is_available = str(error), False
            return False
        except Exception as error:  # a bug; the thread must not end unseen
            self._last_error, self._is_available = f"{type(error).__name__}: {error}", False
            return False
        finally:
            self._began_at = float("inf")
        self._last_error, self._is_available = scribe.refused, True
        self._written = puts
        return True
