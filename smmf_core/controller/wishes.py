"""What is wanted and known of models, for the next Controller of this run: `models.json`.

Owns that file; a model's own file wins where it has changed. Must not start anything, nor know the
store (remember does).
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import msgspec

from smmf_core.config import ConfigProblems, RawConfig, resolve, spec_hash
from smmf_core.errors import ConfigError, ControlError
from smmf_core.registry import LiveRegistry, Model

FILE = "models.json"
FACTS = ("context_length", "capabilities", "dimensions", "memory_bytes", "load_s")


class Wish(msgspec.Struct, kw_only=True):
    """One model. `table`: its file's values with references, if it was registered at run time."""

    name: str
    index: int
    spec_hash: str
    target: int
    is_scaled: bool
    is_wanted: bool
    is_on_demand: bool
    is_stopped: bool
    is_pinned: bool
    table: dict[str, Any] | None = None
    source: str = ""
    facts: dict[str, Any] = {}


class Wishes(msgspec.Struct, kw_only=True):
    """All of a server."""

    models: list[Wish] = []
    aliases: dict[str, str] = {}  # pointed by the operator -> model


_decode = msgspec.json.Decoder(Wishes).decode


def load(run_dir: Path) -> Wishes:
    """A former Controller's; none when there was none, or its file is broken."""
    try:
        return _decode((run_dir / FILE).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return Wishes()


def save(run_dir: Path, registry: LiveRegistry, raws: dict[str, RawConfig]) -> None:
    """Replace the file in one step. A full disk or a folder that is gone cost adoption only."""
    models = [_wish(model, raws.get(model.name)) for model in registry if not model.is_removed]
    new = run_dir / f"{FILE}.new"
    with contextlib.suppress(OSError):
        new.touch(mode=0o600)
        new.write_bytes(msgspec.json.encode(Wishes(models=models, aliases=registry.pointed)))
        new.replace(run_dir / FILE)


def forget(run_dir: Path) -> None:
    """Nothing runs any more."""
    (run_dir / FILE).unlink(missing_ok=True)


def restore(registry: LiveRegistry, found: Wishes, raws: dict[str, RawConfig]) -> None:
    """Take over what a former Controller wanted, before anything starts.

    1. A model that no file has, registered at run time, is registered again.
    2. What was learned holds; what was wanted too, unless the file has changed.
    3. Aliases, where their models are still there.
    """
    for wish in found.models:
        model = registry.named(wish.name)
        if model is None and wish.table is not None:  # 1
            model = _register(registry, RawConfig(wish.table, wish.source), raws)
        if model is not None:  # 2
            _take_over(model, wish)
    for alias, name in found.aliases.items():  # 3
        target = registry.named(name)
        if target is not None:
            with contextlib.suppress(ControlError):
                registry.point_alias(alias, target)


def _wish(model: Model, raw: RawConfig | None) -> Wish:
    facts = {name: getattr(model, name) for name in FACTS}
    return Wish(
        name=model.name,
        index=model.index,
        spec_hash=spec_hash(model.config),
        target=model.target,
        is_scaled=model.is_scaled,
        is_wanted=model.is_wanted,
        is_on_demand=model.is_on_demand,
        is_stopped=model.is_stopped,
        is_pinned=model.is_pinned,
        table=raw.table if raw is not None and model.is_runtime else None,
        source=raw.source if raw is not None else "",
        facts={name: value for name, value in facts.items() if value},
    )


def _register(registry: LiveRegistry, raw: RawConfig, raws: dict[str, RawConfig]) -> Model | None:
    try:
        model = registry.add(resolve(raw), int(time.time()))
    except (ConfigProblems, ConfigError):
        return None  # something that it refers to is gone, or a file has taken its name
    model.is_runtime, raws[model.name] = True, raw
    return model


def _take_over(model: Model, wish: Wish) -> None:
    if wish.spec_hash != spec_hash(model.config):
        return
    for name, value in wish.facts.items():
        setattr(model, name, value)
    model.is_wanted, model.is_on_demand = wish.is_wanted, wish.is_on_demand
    model.is_stopped, model.is_pinned = wish.is_stopped, wish.is_pinned
    if wish.is_scaled:
        model.target, model.is_scaled = wish.target, True
