"""Waiting until what a verb wants is so, and saying in one sentence how it ended.

Owns the sentences; what is wanted and whether it is reached are the core's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from smmf_core.controller.shell import ControllerShell
from smmf_core.errors import ApiError
from smmf_core.lifecycle import BACKOFF, FAILED, READY, STOPPED, Child
from smmf_core.registry import Model

POLL_S = 0.02
SERVING = ("ready", "unhealthy")


async def until(
    shell: ControllerShell,
    reached: Callable[[], bool],
    timeout_s: float | None,
    now: Callable[[], str],
) -> None:
    """Raises ApiError (503) when it takes longer than `timeout_s`, or the server ends.

    `now` says who is in which state, as "m is starting".
    """
    deadline = None if timeout_s is None else shell.now + timeout_s
    while not reached():
        if shell.core.is_stopping:
            raise ApiError("server_draining", "the server is shutting down")
        if deadline is not None and shell.now > deadline:
            message = f"after {timeout_s:g} s {now()}; it goes on"
            raise ApiError("model_loading", message, retry_after_s=1.0)
        await asyncio.sleep(POLL_S)


async def until_models(
    shell: ControllerShell, models: Sequence[Model], timeout_s: float | None
) -> None:
    """Until each is as wanted, or will not be without help."""
    core = shell.core

    def are_there() -> bool:
        return all(map(core.has_reached, models))

    def now() -> str:
        return ", ".join(f"{m.name} is {core.status_of(m).state}" for m in models)

    await until(shell, are_there, timeout_s, now)


async def until_gone(
    shell: ControllerShell, models: Sequence[Model], timeout_s: float | None
) -> None:
    """Until they have drained and are forgotten, or were registered again meanwhile."""
    registry = shell.core.registry

    def are_gone() -> bool:
        return not any(m.is_removed and registry.by_index(m.index) is m for m in models)

    names = ", ".join(model.name for model in models)
    await until(shell, are_gone, timeout_s, lambda: f"{names} still drains")


def check_serves(shell: ControllerShell, model: Model, subject: str = "") -> str:
    """What came of starting it; a sentence on `subject`, or ApiError with why it does not serve.

    1. It loads on its first request.
    2. It serves with all its replicas; if as it was before a change that failed, that is told.
    3. Some replicas could not be had.
    4. Another verb came in between.
    5. None could be had.
    """
    subject = subject or model.name
    status = shell.core.status_of(model)
    ready = [child for child in shell.core.replicas(model) if child.state == READY]
    if status.state == "registered":  # 1
        return f"{subject} loads on its first request"
    if status.state in SERVING and model.reason:  # 2
        raise ApiError("model_unavailable", f"{subject} serves as before: {model.reason}")
    if status.state in SERVING and len(ready) >= model.target:
        return f"{subject} is ready{_figures(ready)}"
    if status.state in SERVING:  # 3
        why = status.reason or _others(shell.core.replicas(model))
        counts = f"{len(ready)} of {model.target} replicas"
        raise ApiError("model_unavailable", f"{subject} runs {counts}{_why(why)}")
    is_meant = status.state in ("stopping", "stopped", "offline")  # 4
    code = "conflict" if is_meant else "model_unavailable"  # 5
    hint = "; `smmf online INSTANCE` puts one back" if status.state == "offline" else ""
    raise ApiError(code, f"{subject} is {status.state}{_why(status.reason)}{hint}")


def check_stopped(shell: ControllerShell, model: Model) -> str:
    """A sentence, or ApiError when another verb came in between."""
    status = shell.core.status_of(model)
    if status.state == "stopped":
        return f"{model.name} is stopped"
    raise ApiError("conflict", f"{model.name} is {status.state} again: it was started meanwhile")


def check_instance_ready(child: Child) -> str:
    if child.state == READY:
        return f"{child.name} is ready{_figures([child])}"
    code = "conflict" if child.state == STOPPED else "model_unavailable"
    raise ApiError(code, _state(child))


def _figures(ready: list[Child]) -> str:
    """How many, and how long the slowest took."""
    count = f"{len(ready)} replicas, " if len(ready) > 1 else ""
    slowest = max((child.load_s for child in ready), default=0.0)
    return f" ({count}loaded in {slowest:.1f} s)" if slowest else ""


def remembered(shell: ControllerShell, message: str) -> str:
    """With a warning, while what was done would be forgotten if the server ended now."""
    if shell.store is None or shell.store.state.is_available:
        return message
    return f"{message} (in memory only, until the registry's database answers)"


def _others(replicas: list[Child]) -> str:
    """Why some are not ready."""
    lost = [child for child in replicas if child.is_stopped or child.state in (BACKOFF, FAILED)]
    return ", ".join(map(_state, lost))


def _state(child: Child) -> str:
    word = "ended, and starts again in a while" if child.state == BACKOFF else f"is {child.state}"
    return f"{child.name} {word}{_why(child.reason)}"


def _why(reason: str) -> str:
    return f": {reason}" if reason else ""
