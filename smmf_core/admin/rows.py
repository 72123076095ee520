"""What the admin API tells, as plain rows; keys are the CLI's column names.

Owns the columns; must not change anything or know HTTP.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from smmf_core import __version__
from smmf_core.config import redacted
from smmf_core.config.addresses import client_address, inference_url
from smmf_core.control_messages import RouterReport, WorkerReport
from smmf_core.controller.process import memory_bytes
from smmf_core.controller.shell import ControllerShell
from smmf_core.controller.vitals import GpuShares, gpu_shares
from smmf_core.lifecycle import LOADING, READY, STARTING, WAITING, Child
from smmf_core.registry import Model

_ON_ITS_WAY = (WAITING, STARTING, LOADING)
Row = dict[str, Any]


def health(shell: ControllerShell) -> Row:
    core, server = shell.core, shell.config.server
    return {
        "status": "stopping" if core.is_stopping else "ok",
        "name": server.name,
        "pid": os.getpid(),
        "version": __version__,
        "inference_url": inference_url(server),
        "client_address": client_address(server, shell.ports.public_key),
        "run_dir": str(shell.run_dir.path),
        "started_at": shell.started_at,
        "models": len(core.registry),
        "ready": sum(core.status_of(model).state == "ready" for model in core.registry),
        "registry": msgspec.to_builtins(shell.store.state) if shell.store is not None else None,
    }


def models(shell: ControllerShell) -> list[Row]:
    return [model_row(shell, model) for model in shell.core.registry]


def model_row(shell: ControllerShell, model: Model) -> Row:
    """`progress`: 0..1 while it starts; `degraded`: it serves, but not as it was wanted."""
    config = model.config
    status = shell.core.status_of(model)
    is_starting = status.state == "starting"
    return {
        "name": model.name,
        "task": config.model.task,
        "backend": config.model.backend,
        "deployment_type": "proxy" if config.is_remote else "local",
        "status": status.state,
        "capabilities": model.capabilities,
        "aliases": model.aliases,
        "replicas": model.target,
        "ready": sum(child.state == READY for child in shell.core.replicas(model)),
        "degraded": status.is_degraded,
        "pinned": model.is_pinned,
        "phase": status.phase if is_starting else "",
        "progress": status.progress if is_starting else None,
        "reason": status.reason,
    }


def model_details(shell: ControllerShell, model: Model) -> Row:
    config = model.config
    seen = _look(shell)
    return {
        **model_row(shell, model),
        "type": config.model.type,
        "context_length": model.context_length,
        "dimensions": model.dimensions,
        "path": config.model.path,
        "device": config.deployment.device,
        "adapters": model.adapters,
        "max_concurrency": config.deployment.max_concurrency,
        "strategy": config.routing.strategy,
        "queue": model.waiting,
        "until": until_s(shell, model),
        "memory_bytes": model.memory_bytes,
        "load_s": model.load_s,
        "cost": model.cost(shell.core.room.need(model)),
        "runtime": model.is_runtime,
        "source": config.source,
        "created": model.created,
        "config": redacted(raw.table) if (raw := shell.raws.get(model.name)) else {},
        "instances": [
            _instance_row(shell, child, seen)
            for child in shell.core.replicas(model)
            if is_shown(child)
        ],
    }


def is_shown(child: Child) -> bool:
    """What is alive or about to be, and what has failed: an operator must see it."""
    return child.is_shown or child.state == "failed"


def instances(shell: ControllerShell, everything: bool) -> list[Row]:
    """What is alive or about to be; with `everything` also Routers and the Controller."""
    core = shell.core
    seen = _look(shell)
    rows = [_instance_row(shell, child, seen) for child in core.workers() if child.is_shown]
    if everything:
        rows = [{**row, "role": "worker"} for row in rows]
        rows += [_process_row(c.name, "router", c.state, c.pid) for c in core.routers()]
        state = "draining" if core.is_stopping else READY
        rows.append(_process_row("controller", "controller", state, os.getpid()))
    return rows


def instance_row(shell: ControllerShell, child: Child) -> Row:
    return _instance_row(shell, child, _look(shell))


def _instance_row(shell: ControllerShell, child: Child, seen: _Seen) -> Row:
    model = shell.core.registry.by_index(child.model)
    is_starting = child.state in _ON_ITS_WAY
    return {
        "id": child.name,
        "model": model.name if model is not None else "",
        "state": shown_state(child),
        "backend": model.config.model.backend if model is not None else "",
        "device": _device(child, model),
        "pid": child.pid,
        "mem": memory_bytes(child.pid) if child.pid else 0,
        "gpu_mem": _gpu_mem(seen.shares.get(child.name)),
        "gpu_util": _gpu_util(seen.shares.get(child.name)),
        "in_flight": seen.in_flight[child.id],
        "queue": model.waiting if model is not None else 0,
        "tok_s": round(child.rate(shell.now), 1),
        "until": until_s(shell, model) if model is not None else None,
        "phase": child.phase if is_starting else "",
        "progress": child.progress if is_starting else None,
        "load_s": round(child.load_s, 3),
        "restarts": child.total_restarts,
        "reason": child.removed or child.unwell or child.reason,
    }


def shown_state(child: Child) -> str:
    """A replica that is ready but not in rotation says so."""
    if child.state == READY and child.is_offline:
        return "offline"
    if child.state == READY and child.removed:
        return "unhealthy"
    return child.state


def until_s(shell: ControllerShell, model: Model) -> float | None:
    """Seconds until the model is unloaded if nobody asks for it; None: it stays."""
    limit_s = model.idle_s
    if math.isinf(limit_s) or model.is_pinned or not model.is_wanted:
        return None
    if model.is_busy:
        return limit_s
    return round(max(0.0, model.last_used + limit_s - shell.now), 1)


def _device(child: Child, model: Model | None) -> str:
    """Where the engine says that it computes; until it has loaded, where it was placed."""
    if isinstance(child.report, WorkerReport) and child.report.device:
        return child.report.device
    return child.device or (model.config.deployment.device if model is not None else "")


def _process_row(name: str, role: str, state: str, pid: int) -> Row:
    empty = dict.fromkeys(("model", "backend", "device", "until"))
    counts = dict.fromkeys(("in_flight", "queue", "tok_s"))
    memory = memory_bytes(pid) if pid else 0
    return {"id": name, "role": role, "state": state, "pid": pid, "mem": memory, **empty, **counts}


class _Seen(NamedTuple):
    """What all instances' rows are made with."""

    in_flight: Counter[int]  # requests that Routers have open, by Worker
    shares: Mapping[str, GpuShares]  # by instance


def _look(shell: ControllerShell) -> _Seen:
    counts: Counter[int] = Counter()
    for router in shell.core.routers():
        if isinstance(router.report, RouterReport):
            counts.update(dict(router.report.workers))
    return _Seen(counts, gpu_shares(list(shell.core.workers()), shell.watch.gpus))


def _gpu_mem(shares: GpuShares | None) -> int | None:
    """Bytes on all its GPUs; None without one."""
    return sum(size for _, size in shares.values()) if shares else None


def _gpu_util(shares: GpuShares | None) -> float | None:
    """0..1, the mean of its GPUs."""
    return sum(ratio for ratio, _ in shares.values()) / len(shares) if shares else None
