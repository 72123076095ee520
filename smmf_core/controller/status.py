"""What Routers and operators are told of a model: its state, why, how far it is.

Pure; owns the words, and whether a wish is fulfilled. Must not change anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from smmf_core.config import Limits
from smmf_core.control_messages import (
    Loading,
    ModelEntry,
    Registry,
    WorkerEntry,
)
from smmf_core.controller.table import Table
from smmf_core.lifecycle import (
    BACKOFF,
    DRAINING,
    FAILED,
    LOADING,
    SETTLED,
    STARTING,
    WAITING,
    Child,
    Status,
    model_state,
)
from smmf_core.registry import LiveRegistry, Model

OFFLINE = "offline (by the operator)"
CLEAR_PROGRESS = 0.05  # below it, a remembered load tells more than what has been seen of this one


def status_of(model: Model, replicas: list[Child]) -> Status:
    """In one line."""
    state = model_state(model, replicas)
    wanted = [child for child in replicas if child.wanted]
    if state in ("ready", "unhealthy"):
        ill = [c for c in wanted if not c.is_online or c.unwell]
        is_degraded = bool(ill) or sum(c.is_online for c in wanted) < model.desired
        return Status(state, model.reason or _reason(ill), is_degraded)
    child = furthest(wanted) if state == "starting" else None
    if child is not None:
        return Status(state, child.reason, False, child.phase, child.progress)
    return Status(state, _why(state, model, replicas))


def loading(model: Model, replicas: list[Child], now: float) -> Loading | None:
    """What Routers are told of a model that loads; None: it does not."""
    if not model.is_wanted or all(child.state in SETTLED for child in replicas):
        return None
    found = status_of(model, replicas)
    child = furthest(replicas)
    if found.state != "starting" or child is None:
        return None
    return Loading(model.index, found.phase, found.progress, ready_in(model, child, now))


def furthest(replicas: Iterable[Child]) -> Child | None:
    """Of those that start, the one that will be ready first."""
    ranks = {WAITING: 0, STARTING: 1, LOADING: 2}
    starting = [child for child in replicas if child.state in ranks]
    return max(starting, key=lambda c: (ranks[c.state], c.progress), default=None)


def ready_in(model: Model, child: Child, now: float) -> float:
    """Seconds, an estimate; 0: none.

    1. By what the last load took, less what this one has taken.
    2. It takes longer than that, or is the first: by its progress.
    """
    elapsed_s = now - child.started_at if child.state != WAITING else 0.0
    if model.load_s > elapsed_s:  # 1
        return model.load_s - elapsed_s
    if child.progress > CLEAR_PROGRESS:  # 2
        return elapsed_s * (1.0 - child.progress) / child.progress
    return 0.0


def retry_in(replicas: Iterable[Child], now: float) -> float:
    """Seconds until one that died is tried again; 0: none is to be."""
    due = [c.act_at for c in replicas if c.wanted and c.state in (BACKOFF, FAILED)]
    at = min(due, default=math.inf)
    return max(1.0, at - now) if at < math.inf else 0.0


def has_reached(model: Model, replicas: list[Child]) -> bool:
    """It is what is wanted of it, or will not be without help.

    1. Nothing is wanted: nothing lives.
    2. Each replica that is wanted is at rest, and no other one lives.
    """
    if model.is_removed or not model.desired:  # 1
        return not any(child.is_alive for child in replicas)
    return all(is_at_rest(model, c) if c.wanted else not c.is_alive for c in replicas)  # 2


def is_at_rest(model: Model | None, child: Child) -> bool:
    """It goes nowhere by itself. What was asked for, and waits for the memory of others that are in
    use, does: they will be idle, or have had their turn."""
    is_asked = model is not None and model.is_asked
    waits_for_others = is_asked and child.is_stuck and not child.is_blocked
    return child.is_settled and not waits_for_others


def is_placed(child: Child) -> bool:
    """Whether Routers may give it requests, once it has told them that it is ready."""
    return child.state != DRAINING and not child.is_offline and not child.removed


def registry_message(
    registry: LiveRegistry,
    table: Table,
    limits: Limits,
    is_settled: bool,
    need: Callable[[Model], int],
    now: float,
) -> Registry:
    """All models and living Workers. Linear in both."""
    models: list[ModelEntry] = []
    workers: list[WorkerEntry] = []
    for model in registry:
        replicas = table.replicas(model.index)
        found = status_of(model, replicas)
        reason = "" if found.state == "ready" else found.reason
        retry_in_s = retry_in(replicas, now) if found.state == "failed" else 0.0
        if retry_in_s:
            reason = f"{reason}; starts again in {math.ceil(retry_in_s)} s"
        models.append(model.entry(found.state, reason, limits, need(model), retry_in_s))
        weight = model.config.deployment.weight
        workers += [
            WorkerEntry(c.id, c.incarnation, c.model, c.name, weight, is_placed(c))
            for c in replicas
            if c.is_alive
        ]
    return Registry(registry.changed(), models, workers, is_settled)


def _reason(children: Iterable[Child]) -> str:
    """The first; that one is offline says least."""
    found = list(children)
    reasons = filter(None, (c.reason or c.unwell or c.removed for c in found))
    by_operator = OFFLINE if any(child.is_offline for child in found) else ""
    return next(reasons, by_operator)


def _why(state: str, model: Model, replicas: list[Child]) -> str:
    """Why it does not serve."""
    if model.reason:
        return model.reason
    if state == "registered":
        return "not loaded: its first request loads it"
    if state == "offline":
        return "taken out of rotation by the operator"
    if model.is_stopped:
        return "stopped by the operator"
    if not model.target:
        return "scaled to 0"
    return _reason(child for child in replicas if child.wanted or child.is_stopped)
