"""Which API keys there are, who needs one, and which row of the table of limits each has.

Pure. Owns the records of this server's keys, made by the operator or written in its configuration;
must not know a key itself, only its digest, nor files and sockets.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping

import msgspec

from smmf_core.control_messages import ROLES, KeyEntry
from smmf_core.errors import ApiError, ControlError
from smmf_core.keys import digest
from smmf_core.store.records import KeyRecord

CONFIG = "config"
ADMIN, READ = "admin", "read"
UNKNOWN = (
    "It is not known yet which API keys there are: the database of the registry cannot be read."
)
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class SavedKeys(msgspec.Struct):
    """For the next Controller of this run: rows must stay whose they are, and nothing that was
    revoked may come back because the database was away."""

    records: list[KeyRecord] = []
    slots: dict[str, int] = {}


class KeyBook:
    """`rows`: of the table of limits. `is_known`: what the operator made in former runs is in it;
    until then nobody can say that a port needs no key."""

    def __init__(self, rows: int, saved: SavedKeys | None = None) -> None:
        self._rows = rows
        self.is_known = saved is not None
        saved = saved or SavedKeys()
        self._made = {record.key_id: record for record in saved.records}
        self._configured: dict[str, KeyRecord] = {}
        self._slots = dict(saved.slots)
        self._next = max(self._slots.values(), default=-1) + 1
        self._entries: dict[bytes, KeyEntry] = {}  # by digest
        self.fresh: set[int] = set()  # rows that have another owner than before; whoever clears it

    def saved(self) -> SavedKeys:
        return SavedKeys(list(self._made.values()), dict(self._slots))

    # --- changes ---

    def configure(self, keys: Iterable[str]) -> None:
        """`[server] api_keys`: any text, all roles, no limits."""
        self._configured = {
            f"{CONFIG}-{number}": KeyRecord(
                key_id=f"{CONFIG}-{number}", digest=digest(key.encode()), roles=list(ROLES)
            )
            for number, key in enumerate(keys, start=1)
        }
        self._arrange()

    def learn(self, stored: Iterable[KeyRecord]) -> list[KeyRecord]:
        """Take over what the database has. Returns what it lacks of what is known here: a key that
        either knows as revoked is revoked."""
        there = {record.key_id: record for record in stored}
        missing = []
        for record in self._made.values():
            other = there.get(record.key_id)
            if other is None or (record.revoked_at and not other.revoked_at):
                there[record.key_id] = record
                missing.append(record)
        self._made, self.is_known = there, True
        self._arrange()
        return missing

    def add(self, record: KeyRecord) -> None:
        """Raises ControlError when there is no row left."""
        if len(self._slots) >= self._rows:
            raise ControlError(f"there are {self._rows} keys already: revoke one")
        self._made[record.key_id] = record
        self._arrange()

    def revoke(self, key_id: str, now: float) -> KeyRecord:
        """Its record, then. Raises ApiError for an unknown one, ControlError for a configured."""
        if key_id in self._configured:
            raise ControlError(f"{key_id} stands in [server] api_keys: take it out there")
        record = self.find(key_id)
        if not record.revoked_at:
            record = msgspec.structs.replace(record, revoked_at=now)
            self._made[key_id] = record
            self._arrange()
        return record

    # --- questions ---

    def records(self) -> list[KeyRecord]:
        """Configured ones first; revoked ones, too."""
        return [*self._configured.values(), *self._made.values()]

    def find(self, key_id: str) -> KeyRecord:
        """Raises ApiError."""
        record = self._configured.get(key_id) or self._made.get(key_id)
        if record is None:
            raise ApiError("key_not_found", f"There is no key {key_id[:40]}.")
        return record

    def entries(self) -> list[KeyEntry]:
        """Those that are not revoked."""
        return list(self._entries.values())

    def entry_of(self, key: bytes) -> KeyEntry | None:
        """By the key itself. The digest is what is looked up: how long that takes says nothing of
        the key."""
        given = digest(key)
        entry = self._entries.get(given)
        return entry if entry is not None and hmac.compare_digest(entry.digest, given) else None

    @property
    def made_roles(self) -> set[str]:
        """That a key has beside the configured ones."""
        made = (record.roles for record in self._made.values() if not record.revoked_at)
        return {role for roles in made for role in roles}

    @property
    def has_admin(self) -> bool:
        return any(ADMIN in entry.roles for entry in self._entries.values())

    def check_admin(
        self, key: bytes, method: str, now: float, is_open: bool, asks_health: bool = False
    ) -> None:
        """Whether a request on the admin port may be answered; `is_open`: other machines reach it.
        `asks_health`: where models are asked is for any key to know.

        1. A key that is known means what it means, even where none is needed.
        2. A key is needed once one with the role admin exists, and where others can reach the port.
        3. It is not known yet who needs one: whoever is on this machine may look.

        Raises ApiError.
        """
        entry = self.entry_of(key) if key else None
        if entry is not None:  # 1
            _check_role(entry, method, now, asks_health)
        elif is_open or self.has_admin:  # 2
            raise ApiError("invalid_api_key", "Incorrect or missing API key.")
        elif not self.is_known and method not in _READING:  # 3
            raise ApiError("registry_unavailable", UNKNOWN, retry_after_s=1)

    # --- inside ---

    def _arrange(self) -> None:
        living = [record for record in self.records() if not record.revoked_at]
        wanted = {record.key_id for record in living}
        self._slots = {name: slot for name, slot in self._slots.items() if name in wanted}
        taken = set(self._slots.values())
        for record in living[: self._rows]:
            if record.key_id not in self._slots:
                slot = self._slots[record.key_id] = self._free(taken)
                taken.add(slot)
                self.fresh.add(slot)
        self._entries = {
            record.digest: _entry(record, self._slots)
            for record in living
            if record.key_id in self._slots
        }

    def _free(self, taken: set[int]) -> int:
        """The one that was given back longest ago: a revoked key's requests still settle on it."""
        while self._next % self._rows in taken:
            self._next += 1
        slot = self._next % self._rows
        self._next += 1
        return slot


def _check_role(entry: KeyEntry, method: str, now: float, asks_health: bool) -> None:
    """Raises ApiError."""
    if entry.expires_at and now >= entry.expires_at:
        raise ApiError("invalid_api_key", f"The API key {entry.id} has expired.")
    may_look = READ in entry.roles or asks_health
    if ADMIN in entry.roles or (may_look and method in _READING):
        return
    what = "may only look" if READ in entry.roles else "is for inference only"
    raise ApiError("permission_denied", f"The API key {entry.id} {what}.")


def _entry(record: KeyRecord, slots: Mapping[str, int]) -> KeyEntry:
    return KeyEntry(
        id=record.key_id,
        slot=slots[record.key_id],
        digest=record.digest,
        roles=record.roles,
        models=record.models,
        expires_at=record.expires_at,
        requests_per_minute=record.requests_per_minute,
        tokens_per_minute=record.tokens_per_minute,
        max_concurrency=record.max_concurrency,
        monthly_tokens=record.monthly_tokens,
    )
