"""What the registry remembers, as plain structs: rows, and changes on their way there.

Pure. Owns the names of what is kept and how a model's columns follow from its config; must not know
a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

LOCAL, PROXY = "local", "proxy"
REGISTERED, STARTING, READY, UNHEALTHY, OFFLINE = (
    "registered", "starting", "ready", "unhealthy", "offline"
)  # fmt: skip
_ON_ITS_WAY = frozenset({"waiting", STARTING, "loading", "backoff"})
_OUT = frozenset({"draining", "stopping", "stopped"})  # as was wished


class StoreError(Exception):
    """What the registry's database refuses, in one sentence."""

    def __init__(self, message: str, is_passing: bool = True) -> None:
        super().__init__(message)
        self.is_passing = is_passing  # False: these very values are at fault


class ModelRecord(msgspec.Struct, kw_only=True):
    """One row of `models`. `config` is in the form of a model's file, references unresolved."""

    model_name: str
    model_type: str = ""  # architecture
    deployment_type: str = LOCAL  # local | proxy
    provider: str = ""  # of a remote model; a local one's backend
    config: dict[str, Any] = {}
    status: str = REGISTERED  # lifecycle.MODEL_STATES
    is_runtime: bool = False  # registered while serving: no file given at start has it
    source: str = ""  # the file it came from
    spec_hash: str = ""  # of the config that the next three were wished for
    replicas: int | None = None  # as scaled by the operator; None: as the config says
    is_stopped: bool = False  # by the operator
    is_pinned: bool = False
    facts: dict[str, Any] = {}  # learned: memory_bytes, load_s, context_length, capabilities ...
    created_at: datetime | None = None  # None: the store's own time
    updated_at: datetime | None = None


class ModelChange(msgspec.Struct, kw_only=True, frozen=True):
    """What has become different about a model: only the fields that are given.

    Without `config` it changes a model that the store knows; a name it does not know is left alone,
    so that a late word on a forgotten model does not bring it back.
    """

    model_name: str
    config: dict[str, Any] | UnsetType = UNSET
    status: str | UnsetType = UNSET
    is_runtime: bool | UnsetType = UNSET
    source: str | UnsetType = UNSET
    spec_hash: str | UnsetType = UNSET
    replicas: int | UnsetType | None = UNSET
    is_stopped: bool | UnsetType = UNSET
    is_pinned: bool | UnsetType = UNSET
    facts: dict[str, Any] | UnsetType = UNSET

    def given(self) -> dict[str, Any]:
        """The fields that are to change, with their values."""
        names = (name for name in self.__struct_fields__ if name != "model_name")
        values = ((name, getattr(self, name)) for name in names)
        return {name: value for name, value in values if value is not UNSET}

    def on(self, record: ModelRecord | None) -> ModelRecord | None:
        """The record with this change; None when there is none to change."""
        if isinstance(self.config, UnsetType):
            derived: dict[str, str] = {}
        else:
            derived = columns_of(self.config)
            record = record or ModelRecord(model_name=self.model_name)
        if record is None:
            return None
        return msgspec.structs.replace(record, **self.given(), **derived)


class InstanceRecord(msgspec.Struct):
    """One row of `instances`: a replica's slot as it is now."""

    instance: str  # "<model>-<k>"
    model_name: str
    status: str  # lifecycle's state of a child
    reason: str = ""
    device: str = ""
    pid: int = 0
    incarnation: int = 0
    restarts: int = 0
    is_offline: bool = False
    load_s: float | None = None
    memory_bytes: int = 0


class EventRecord(msgspec.Struct, kw_only=True):
    """One row of `events`: a change of state, an alert, an operator's act."""

    time: float  # Unix time
    role: str
    id: str
    former: str = ""
    state: str = ""
    reason: str = ""
    pid: int = 0


class KeyRecord(msgspec.Struct, kw_only=True):
    """One row of `api_keys`. Times are Unix seconds, 0: never; limits 0: none. The key itself is
    nowhere."""

    key_id: str
    digest: bytes  # SHA-256, 32 bytes
    name: str = ""  # whose, or for what
    roles: list[str] = []  # of control_messages.ROLES
    models: list[str] = []  # empty: all
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_concurrency: int = 0
    monthly_tokens: int = 0
    expires_at: float = 0.0
    revoked_at: float = 0.0
    issued_at: float = 0.0


class UsageKey(NamedTuple):
    """Whose sums: one row of `usage`."""

    day: str  # in UTC, as 2026-01-31
    key_id: str  # "": without one
    model_name: str


class Usage(msgspec.Struct, frozen=True):
    """Sums of requests."""

    requests: int = 0
    errors: int = 0
    prompt: int = 0  # tokens, cached ones among them
    cached: int = 0
    generated: int = 0

    def plus(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.errors + other.errors,
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.generated + other.generated,
        )


class Stored(msgspec.Struct, kw_only=True):
    """What a former run of this server left."""

    models: list[ModelRecord] = []
    aliases: dict[str, str] = {}  # pointed at run time: alias -> model
    events: list[EventRecord] = []  # the newest, oldest first
    keys: list[KeyRecord] = []  # revoked ones, too
    month_tokens: dict[str, int] = {}  # by key: prompt and generated, of the month of the reading
    last_used: dict[str, str] = {}  # by key: the day
    is_read: bool = True  # False: the database is away, and nothing is known


class StoreState(msgspec.Struct, kw_only=True, frozen=True):
    """How the registry's database is doing, for `admin` and `doctor`."""

    url: str  # without its password
    is_available: bool  # False: what changes is kept in memory, and written when it is back
    last_error: str = ""
    waiting: int = 0  # changes that are not written yet
    dropped_events: int = 0

    def in_words(self) -> str:
        """For the operator, when it changes."""
        if self.is_available:
            return "the registry's database is there: all that has changed is written"
        return (
            f"the registry's database {self.url} cannot be used: {self.last_error}; "
            f"what changes is kept in memory until it can"
        )


def columns_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The columns that follow from a config in the form of a model's file."""
    model, proxy = config.get("model") or {}, config.get("proxy") or {}
    own = proxy if PROXY in config else model
    return {
        "model_type": str(_first(own, "type", "model_type") or _first(model, "type", "model_type")),
        "deployment_type": PROXY if PROXY in config else LOCAL,
        "provider": str(own.get("provider") or model.get("backend") or ""),
    }


def name_of(config: Mapping[str, Any]) -> str:
    """What clients call the model of a config in the form of a model's file; "" without one."""
    model, proxy = config.get("model") or {}, config.get("proxy") or {}
    return str(_first(model, "name", "model_name") or _first(proxy, "name", "model_name", "model"))


def status_among(own: str, instances: Iterable[str]) -> tuple[str, bool]:
    """A model's status by its instances', and whether it is degraded.

    1. One is ready: ready, unless all are unwell; degraded while another is not.
    2. One is on its way.
    3. Else what was last said of the model itself.
    """
    states = list(instances)
    if READY in states:  # 1
        is_degraded = any(state != READY and state not in _OUT for state in states)
        return UNHEALTHY if own == UNHEALTHY else READY, is_degraded
    if _ON_ITS_WAY.intersection(states):  # 2
        return STARTING, False
    return own, False  # 3


def _first(section: Mapping[str, Any], *keys: str) -> Any:
    return next((section[key] for key in keys if section.get(key)), "")
