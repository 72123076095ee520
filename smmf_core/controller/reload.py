"""Reads the configuration files again, and has only what changed touched.

All or nothing: what is wrong in any file changes nothing. Owns the order of the changes; what each
means is the core's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from smmf_core import tls
from smmf_core.config import ModelConfig, Problem, RawConfig, ServerConfig
from smmf_core.config.problems import ConfigProblems
from smmf_core.config.reload import CERTIFICATE_KEYS, ReloadPlan, plan, server_changes
from smmf_core.control_messages import ReadCertificate
from smmf_core.controller import sources
from smmf_core.errors import ControlError
from smmf_core.registry import LiveRegistry

if TYPE_CHECKING:
    from smmf_core.controller.shell import ControllerShell

# What the Controller looks at anew each time it needs it. What else can be changed while serving is
# the Routers': they start again, and who connects meanwhile waits.
KEY_KEYS = ("server.api_keys", "server.no_auth")  # Routers are told
OWN_SECTIONS = ("health", "memory")
OWN_KEYS = tuple(f"timeouts.{key}_s" for key in ("load", "hang", "drain", "start", "grace"))


class ReloadResult(msgspec.Struct):
    """Names of models; `restart`: settings of the server that wait for its next start."""

    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: list[str]
    restart: list[str] = []


def reload(shell: ControllerShell) -> ReloadResult:
    """Returns when all changes are under way. Raises ConfigError, and nothing has changed;
    ControlError when this server has no files."""
    if shell.sources is None:
        raise ControlError("this server was started without configuration files")
    server, found = sources.read(shell.sources)
    tls.check(server)
    raws = {config.model.name: raw for raw, config in found}
    registry = shell.core.registry
    present = [m.config for m in registry if not m.is_runtime and not m.is_removed]
    asked = plan(present, [config for _, config in found])
    _check(registry, asked)
    restart = _apply_server(shell, server)
    _apply(shell, asked, raws)
    return ReloadResult(
        added=_names(asked.added),
        changed=[change.new.model.name for change in asked.changed],
        removed=_names(asked.removed),
        unchanged=_names(asked.unchanged),
        restart=restart,
    )


def _check(registry: LiveRegistry, asked: ReloadPlan) -> None:
    """No new name is already that of a model which no file has."""
    problems = []
    for config in (*asked.added, *(change.new for change in asked.changed)):
        for name in (config.model.name, *config.model.aliases):
            owner = registry.owner_of(name)
            if owner is not None and owner.is_runtime and not owner.is_removed:
                text = f"{name} is registered already, as {owner.name}: `smmf rm` it first"
                problems.append(Problem(config.source, 0, "[model]", "value", text))
    if problems:
        raise ConfigProblems(problems)


def _apply(shell: ControllerShell, asked: ReloadPlan, raws: dict[str, RawConfig]) -> None:
    """Names are given up before others take them."""
    core, now = shell.core, shell.now
    for config in asked.removed:
        core.remove_model(core.registry.find(config.model.name), now)
    for change in asked.changed:
        core.registry.give_up_aliases(core.registry.find(change.old.model.name), change.new)
    shell.raws.update(raws)
    for change in asked.changed:
        core.replace_model(core.registry.find(change.old.model.name), change.new, now)
    for config in asked.added:
        core.add_model(config, now, is_runtime=False)
    for config in asked.unchanged:
        core.keep_model(core.registry.find(config.model.name), now)
    core.registry.arrange(raws)


def _apply_server(shell: ControllerShell, server: ServerConfig) -> list[str]:
    """Take over what can be while serving; the keys of what waits for the next start."""
    changes = server_changes(shell.config, server)
    for key in changes.live:
        section, _, name = key.partition(".")
        setattr(getattr(shell.config, section), name, getattr(getattr(server, section), name))
    sections = {key.partition(".")[0] for key in changes.live}
    if "health" in sections:
        shell.core.upkeep.set_limits()
    if "memory" in sections:
        shell.watch.tell_budgets(shell.core)
    if any(key in KEY_KEYS for key in changes.live):
        shell.access.configure()
    if any(not _is_own(key) for key in changes.live):
        shell.restart_routers()
    _renew_certificate(shell)
    return changes.restart


def _renew_certificate(shell: ControllerShell) -> None:
    """Also when its files have kept their names."""
    server = shell.config.server
    if server.tls_cert:
        for router in shell.core.routers():
            shell.send(router, ReadCertificate(server.tls_cert, server.tls_key))
        shell.on_certificate()


def _is_own(key: str) -> bool:
    is_own_section = key.partition(".")[0] in OWN_SECTIONS
    return is_own_section or key in (*OWN_KEYS, *KEY_KEYS, *CERTIFICATE_KEYS)


def _names(configs: list[ModelConfig]) -> list[str]:
    return [config.model.name for config in configs]
