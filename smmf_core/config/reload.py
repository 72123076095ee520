"""What a changed configuration asks for: models to add, replace and remove, settings to apply.

Owns which change needs new processes; must not read files or touch any process.
"""

from __future__ import annotations

from typing import Any

import msgspec

from smmf_core.config.schema import ModelConfig, Routing, ServerConfig, spec_hash

# What the Controller and the Routers alone look at: no Worker is told.
_NOT_A_WORKERS: dict[str, dict[str, Any]] = {
    "model": {"aliases": [], "cost": 0.0},
    "deployment": {
        "memory_gib": 0.0,
        "weight": 1.0,
        "autostart": True,
        "replicas": 1,
        "min_replicas": None,
        "max_replicas": None,
        "keep_alive": "",
    },
}
_LIVE_SECTIONS = frozenset({"health", "limits", "timeouts", "memory"})
CERTIFICATE_KEYS = frozenset({"server.tls_cert", "server.tls_key"})  # live unless TLS comes or goes
_LIVE_KEYS = frozenset({"server.api_keys", "server.no_auth", "server.cors_origins", "log.level"})


class Change(msgspec.Struct, frozen=True):
    """A model whose configuration differs under the same name."""

    old: ModelConfig
    new: ModelConfig
    needs_restart: bool


class ReloadPlan(msgspec.Struct, frozen=True):
    """Each model of the old and of the new configuration once, in the order of its files."""

    added: list[ModelConfig]
    changed: list[Change]
    removed: list[ModelConfig]
    unchanged: list[ModelConfig]  # as they are now; their files may have moved

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.changed or self.removed)


class ServerChanges(msgspec.Struct, frozen=True):
    """Settings that differ, as dotted keys ("server.port")."""

    live: list[str]  # apply at once
    restart: list[str]  # apply when the server starts again


def plan(old: list[ModelConfig], new: list[ModelConfig]) -> ReloadPlan:
    """By name: what stands in one list only, and what differs by spec_hash."""
    before = {config.model.name: config for config in old}
    result = ReloadPlan([], [], [], [])
    for config in new:
        former = before.pop(config.model.name, None)
        if former is None:
            result.added.append(config)
        elif spec_hash(former) == spec_hash(config):
            result.unchanged.append(config)
        else:
            result.changed.append(Change(former, config, needs_restart(former, config)))
    result.removed.extend(before.values())
    return result


def needs_restart(old: ModelConfig, new: ModelConfig) -> bool:
    """Whether Workers would run differently; routing, defaults of requests, aliases, weight,
    keep_alive and the number of replicas are applied to those that run."""
    return spec_hash(_as_worker(old)) != spec_hash(_as_worker(new))


def server_changes(old: ServerConfig, new: ServerConfig) -> ServerChanges:
    """`models` is left to plan."""
    live: list[str] = []
    restart: list[str] = []
    keeps_tls = bool(old.server.tls_cert) and bool(new.server.tls_cert)
    for section in msgspec.structs.fields(ServerConfig):
        if section.name in ("models", "source"):
            continue
        before, after = getattr(old, section.name), getattr(new, section.name)
        for field in msgspec.structs.fields(after):
            if getattr(before, field.name) == getattr(after, field.name):
                continue
            key = f"{section.name}.{field.name}"
            is_live = section.name in _LIVE_SECTIONS or key in _LIVE_KEYS
            is_live = is_live or (keeps_tls and key in CERTIFICATE_KEYS)
            (live if is_live else restart).append(key)
    return ServerChanges(live, restart)


def _as_worker(config: ModelConfig) -> ModelConfig:
    """The configuration with everything at its default that a Worker does not look at."""
    parts = {
        name: msgspec.structs.replace(getattr(config, name), **defaults)
        for name, defaults in _NOT_A_WORKERS.items()
    }
    return msgspec.structs.replace(config, routing=Routing(), inference={}, **parts)
