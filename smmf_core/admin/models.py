"""Routes and verbs of models: each sets what is wanted through the core, waits, and says how it is.

Owns the verbs' order of things; states are the core's, rows are rows'.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import unquote

from litestar import Response, delete, get, post
from litestar.datastructures import State

from smmf_core.admin import adapters, rows
from smmf_core.admin.bodies import (
    Body,
    LoadAdapter,
    Scale,
    Start,
    Stop,
    UnloadAdapter,
    Wait,
    describe,
    read,
)
from smmf_core.admin.errors import find_model
from smmf_core.admin.rows import Row
from smmf_core.admin.waiting import (
    SERVING,
    check_serves,
    check_stopped,
    remembered,
    until_gone,
    until_models,
)
from smmf_core.controller.shell import ControllerShell
from smmf_core.errors import ApiError
from smmf_core.registry import Model

STOP_MARGIN_S = 10.0  # beyond a drain: for signals, and for dying


def named(path: str) -> str:
    return unquote(path.removeprefix("/"))


async def _start(shell: ControllerShell, model: Model, body: Start) -> str:
    is_wanted = body.replicas in (None, model.target)
    if is_wanted and _serves_as_wanted(shell, model):
        return f"{model.name} is ready already"
    shell.core.start_model(model, body.replicas, shell.now)
    return await _serves(shell, model, body)


async def _restart(shell: ControllerShell, model: Model, body: Wait) -> str:
    shell.core.restart_model(model, shell.now)
    return await _serves(shell, model, body)


async def _scale(shell: ControllerShell, model: Model, body: Scale) -> str:
    shell.core.scale_model(model, body.replicas, shell.now)
    if body.replicas:
        return await _serves(shell, model, body)
    if not body.wait:
        return f"{model.name} is stopping"
    await until_models(shell, [model], body.timeout_s)
    return check_stopped(shell, model)


async def _serves(shell: ControllerShell, model: Model, body: Wait) -> str:
    if not body.wait:
        return f"{model.name} is {shell.core.status_of(model).state}"
    await until_models(shell, [model], body.timeout_s)
    return check_serves(shell, model)


def _serves_as_wanted(shell: ControllerShell, model: Model) -> bool:
    status = shell.core.status_of(model)
    has_all = status.state in SERVING and not status.is_degraded
    return has_all and shell.core.has_reached(model)


async def _stop(shell: ControllerShell, model: Model, body: Stop) -> str:
    if model.is_stopped and shell.core.status_of(model).state == "stopped":
        return f"{model.name} is stopped already"
    shell.core.stop_model(model, body.force, body.timeout_s, shell.now)
    if not body.wait:
        return f"{model.name} is stopping"
    await until_models(shell, [model], stop_limit_s(shell, body))
    return check_stopped(shell, model)


def stop_limit_s(shell: ControllerShell, body: Stop) -> float:
    drain_s = shell.config.timeouts.drain_s if body.timeout_s is None else body.timeout_s
    return drain_s + STOP_MARGIN_S


async def _pin(shell: ControllerShell, model: Model, _: Body) -> str:
    return _set_pinned(shell, model, True)


async def _unpin(shell: ControllerShell, model: Model, _: Body) -> str:
    return _set_pinned(shell, model, False)


def _set_pinned(shell: ControllerShell, model: Model, pinned: bool) -> str:
    was_pinned = model.is_pinned
    shell.core.pin_model(model, pinned, shell.now)
    if pinned:
        return f"{model.name} is pinned{' already' if was_pinned else ''}"
    return f"{model.name} {'is' if was_pinned else 'was'} not pinned"


async def _load_adapter(shell: ControllerShell, model: Model, body: LoadAdapter) -> str:
    await adapters.load(shell, model, body.name, body.path)
    return f"{model.name} has {body.name}"


async def _unload_adapter(shell: ControllerShell, model: Model, body: UnloadAdapter) -> str:
    await adapters.unload(shell, model, body.name)
    return f"{model.name} no longer has {body.name}"


class _Verb(NamedTuple):
    body: type[Body]
    act: Callable[[ControllerShell, Model, Any], Awaitable[str]]


_VERBS = {
    "start": _Verb(Start, _start),
    "stop": _Verb(Stop, _stop),
    "restart": _Verb(Wait, _restart),
    "scale": _Verb(Scale, _scale),
    "pin": _Verb(Body, _pin),
    "unpin": _Verb(Body, _unpin),
    "load-adapter": _Verb(LoadAdapter, _load_adapter),
    "unload-adapter": _Verb(UnloadAdapter, _unload_adapter),
}


@get("/models", summary="All registered models, in the order of their files")
async def get_models(state: State) -> list[Row]:
    return rows.models(state.shell)


@get("/models/{name:path}", summary="All about one model, by name or alias")
async def get_model(state: State, name: str) -> Row:
    shell: ControllerShell = state.shell
    return rows.model_details(shell, find_model(shell, named(name)))


@delete("/models/{name:path}", status_code=200, summary="Drain, stop and unregister it")
async def delete_model(state: State, name: str) -> Row:
    shell: ControllerShell = state.shell
    model = find_model(shell, named(name))
    shell.core.remove_model(model, shell.now)
    limit_s = shell.config.timeouts.drain_s + STOP_MARGIN_S
    await until_gone(shell, [model], limit_s)
    until_when = "" if model.is_runtime else f" until the server reads {model.config.source} again"
    message = remembered(shell, f"{model.name} is removed{until_when}")
    return {"name": model.name, "message": message}


@post(
    "/models/{name:path}",
    status_code=200,
    summary=f"NAME:{' :'.join(_VERBS)}",
    description=describe("NAME", {verb: kind for verb, (kind, _) in _VERBS.items()}),
)
async def post_model(state: State, name: str, data: dict[str, Any] | None = None) -> Response[Row]:
    shell: ControllerShell = state.shell
    target, _, verb = named(name).rpartition(":")
    if verb not in _VERBS:
        raise ApiError("unknown_url", f"No such action: {named(name)}")
    kind, act = _VERBS[verb]
    body = read(kind, data)
    model = find_model(shell, target)
    message = remembered(shell, await act(shell, model, body))
    row = {"message": message, **rows.model_details(shell, model)}
    return Response(row, status_code=200 if getattr(body, "wait", True) else 202)


HANDLERS = [get_models, get_model, delete_model, post_model]
