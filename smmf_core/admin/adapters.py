"""Loading and unloading LoRA adapters of a running model: asks, waits for every replica's word.

Owns the waiting; what a replica has is the Worker's to tell.
"""

from __future__ import annotations

import asyncio

from smmf_core.control_messages import WorkerReport
from smmf_core.controller import adapters
from smmf_core.controller.shell import ControllerShell
from smmf_core.errors import ApiError
from smmf_core.lifecycle import READY, Child
from smmf_core.registry import Model

_POLL_S = 0.02
_locks: dict[str, asyncio.Lock] = {}  # by model; this process has one event loop
_LOAD_S = 120.0  # a large adapter from a slow disk, between two steps of a busy engine


async def load(shell: ControllerShell, model: Model, name: str, path: str) -> None:
    """Returns when every replica has it. Raises ApiError: 400 with the engine's reason."""
    if not name or ":" in name:
        raise ApiError("invalid_value", "An adapter's name is not empty and has no colon.", "name")
    async with _one_at_a_time(model):
        former = _wanted(model)
        try:
            await _apply(shell, model, {**former, name: path})
        except ApiError:
            adapters.want(model, shell.core.replicas(model), former, shell.send)
            raise


async def unload(shell: ControllerShell, model: Model, name: str) -> None:
    """Returns when no replica has it any more. Raises ApiError: 404 for an unknown one."""
    async with _one_at_a_time(model):
        wanted = _wanted(model)
        if name not in wanted:
            raise ApiError("model_not_found", f"{model.name} has no adapter {name}.", "name")
        rest = {known: path for known, path in wanted.items() if known != name}
        await _apply(shell, model, rest)


def _one_at_a_time(model: Model) -> asyncio.Lock:
    """A wish is the whole set: two at once would undo each other."""
    return _locks.setdefault(model.name, asyncio.Lock())


def _wanted(model: Model) -> dict[str, str]:
    if model.wanted_adapters is not None:
        return model.wanted_adapters
    return dict(model.config.engine.get("adapters") or {})


async def _apply(shell: ControllerShell, model: Model, wanted: dict[str, str]) -> None:
    replicas = [c for c in shell.core.replicas(model) if c.state == READY]
    if not replicas:
        raise ApiError("model_unavailable", f"No replica of {model.name} is ready.")
    adapters.want(model, replicas, wanted, shell.send)
    deadline = shell.now + _LOAD_S
    while pending := [c for c in replicas if not _is_done(c, model.adapter_serial)]:
        if shell.now > deadline:
            raise ApiError("internal_error", f"{pending[0].name} has not answered yet.")
        await asyncio.sleep(_POLL_S)


def _is_done(child: Child, serial: int) -> bool:
    """Raises ApiError when the replica could not, or died."""
    report = child.report
    if child.state != READY or not isinstance(report, WorkerReport):
        raise ApiError("worker_lost", f"{child.name} is {child.state} now.")
    if report.adapter_serial != serial:
        return False
    if report.adapter_error:
        raise ApiError("invalid_value", f"{child.name}: {report.adapter_error}", "path")
    return True
