"""What the admin API tells, as plain rows; keys are the CLI's column names.

Owns the columns; must not change anything or know HTTP.
"""

from __future__ import annotations

import os
from typing import Any

from smmf_core import __version__
from smmf_core.controller.process import memory_bytes
from smmf_core.controller.shell import ControllerShell
from smmf_core.lifecycle import READY, Child
from smmf_core.messages import RouterReport, WorkerReport
from smmf_core.registry import Model

Row = dict[str, Any]


def health(shell: ControllerShell) -> Row:
    core, server = shell.core, shell.config.server
    return {
        "status": "stopping" if core.is_stopping else "ok",
        "name": server.name,
        "pid": os.getpid(),
        "version": __version__,
        "inference_url": f"http://{server.host}:{server.port}",
        "started_at": shell.started_at,
        "models": len(core.registry),
        "ready": sum(core.state_of(r)[0] == "ready" for r in core.replicas_by_model().values()),
    }


def models(shell: ControllerShell) -> list[Row]:
    replicas = shell.core.replicas_by_model()
    return [model_row(shell, model, replicas[model.index]) for model in shell.core.registry]


def model_row(shell: ControllerShell, model: Model, replicas: list[Child]) -> Row:
    config = model.config
    status, reason = shell.core.state_of(replicas)
    return {
        "name": model.name,
        "task": config.model.task,
        "backend": config.model.backend,
        "deployment_type": "local",
        "status": status,
        "capabilities": model.capabilities,
        "aliases": config.model.aliases,
        "replicas": config.deployment.replicas,
        "ready": sum(child.state == READY for child in replicas),
        "reason": reason,
    }


def model_details(shell: ControllerShell, model: Model) -> Row:
    config = model.config
    replicas = shell.core.replicas(model)
    return {
        **model_row(shell, model, replicas),
        "context_length": model.context_length,
        "path": config.model.path,
        "device": config.deployment.device,
        "adapters": model.adapters,
        "max_concurrency": config.deployment.max_concurrency,
        "strategy": config.routing.strategy,
        "queue": _waiting(shell, model.index),
        "source": config.source,
        "created": model.created,
        "instances": [instance_row(shell, child) for child in replicas],
    }


def instances(shell: ControllerShell, everything: bool) -> list[Row]:
    """What is alive or about to be; with `everything` also Routers and the Controller."""
    core = shell.core
    workers = [c for c in core.workers() if c.is_alive or c.state == "backoff"]
    rows = [instance_row(shell, child) for child in workers]
    if everything:
        rows = [{**row, "role": "worker"} for row in rows]
        rows += [_process_row(c.name, "router", c.state, c.pid, shell) for c in core.routers()]
        state = "draining" if core.is_stopping else READY
        rows.append(_process_row("controller", "controller", state, os.getpid(), shell))
    return rows


def instance_row(shell: ControllerShell, child: Child) -> Row:
    model = next((m for m in shell.core.registry if m.index == child.model), None)
    return {
        "id": child.name,
        "model": model.name if model is not None else "",
        "state": child.state,
        "backend": model.config.model.backend if model is not None else "",
        "device": _device(child, model),
        "pid": child.pid,
        "mem": memory_bytes(child.pid) if child.pid else 0,
        "in_flight": _in_flight(shell, child),
        "queue": _waiting(shell, child.model),
        "tok_s": round(child.rate(shell.now), 1),
        "until": None,
        "reason": child.reason,
    }


def _device(child: Child, model: Model | None) -> str:
    """Where the engine says that it computes; until it has loaded, where it was told to."""
    if isinstance(child.report, WorkerReport) and child.report.device:
        return child.report.device
    return model.config.deployment.device if model is not None else ""


def _process_row(name: str, role: str, state: str, pid: int, shell: ControllerShell) -> Row:
    empty = dict.fromkeys(("model", "backend", "device", "until"))
    counts = dict.fromkeys(("in_flight", "queue", "tok_s"))
    memory = memory_bytes(pid) if pid else 0
    return {"id": name, "role": role, "state": state, "pid": pid, "mem": memory, **empty, **counts}


def _in_flight(shell: ControllerShell, child: Child) -> int:
    """Requests that Routers have open on it."""
    return sum(
        count
        for router in shell.core.routers()
        if isinstance(router.report, RouterReport)
        for worker, count in router.report.workers
        if worker == child.id
    )


def _waiting(shell: ControllerShell, model: int) -> int:
    """Requests that wait in the Routers for any replica of a model."""
    return sum(
        waiting
        for router in shell.core.routers()
        if isinstance(router.report, RouterReport)
        for index, waiting, _ in router.report.models
        if index == model
    )
