"""Routes and verbs of instances: one replica's slot of a model.

Owns the verbs' order of things; states are the core's, rows are rows'.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from litestar import Response, get, post
from litestar.datastructures import State

from smmf_core.admin import rows
from smmf_core.admin.bodies import Body, Stop, Wait, describe, read
from smmf_core.admin.errors import find_instance
from smmf_core.admin.models import named, stop_limit_s
from smmf_core.admin.rows import Row
from smmf_core.admin.waiting import check_instance_ready, until
from smmf_core.controller.shell import ControllerShell
from smmf_core.controller.status import is_at_rest
from smmf_core.errors import ApiError
from smmf_core.lifecycle import READY, STOPPED, Child

INSPECT_S = 10.0  # a worker answers between two steps of its engine


async def _start(shell: ControllerShell, child: Child, body: Wait) -> str:
    if child.state == READY:
        return f"{child.name} is ready already"
    shell.core.start_instance(child, shell.now)
    return await _serves(shell, child, body)


async def _restart(shell: ControllerShell, child: Child, body: Wait) -> str:
    former = child.incarnation
    shell.core.restart_instance(child, shell.now)
    return await _serves(shell, child, body, former)


async def _serves(shell: ControllerShell, child: Child, body: Wait, former: int = -1) -> str:
    """Until another incarnation than `former` has settled, or none is wanted any more."""
    if not body.wait:
        return _now(child)

    def is_there() -> bool:
        model = shell.core.registry.by_index(child.model)
        is_new = child.incarnation != former or not child.wanted
        return is_new and is_at_rest(model, child)

    await until(shell, is_there, body.timeout_s, lambda: _now(child))
    return check_instance_ready(child)


async def _stop(shell: ControllerShell, child: Child, body: Stop) -> str:
    already, former = " already" if child.state == STOPPED else "", child.incarnation
    shell.core.stop_instance(child, body.force, body.timeout_s, shell.now)
    if not body.wait:
        return f"{child.name} is stopping"

    def has_ended() -> bool:
        return not child.is_alive or child.incarnation != former

    await until(shell, has_ended, stop_limit_s(shell, body), lambda: _now(child))
    if child.is_alive:
        raise ApiError("conflict", f"{_now(child)} again: it was started meanwhile")
    return f"{child.name} is stopped{already}"


def _now(child: Child) -> str:
    return f"{child.name} is {child.state}"


async def _online(shell: ControllerShell, child: Child, _: Body) -> str:
    return _set_online(shell, child, True)


async def _offline(shell: ControllerShell, child: Child, _: Body) -> str:
    return _set_online(shell, child, False)


def _set_online(shell: ControllerShell, child: Child, online: bool) -> str:
    already = " already" if child.is_offline != online else ""
    shell.core.set_online(child, online, shell.now)
    if not online:
        return f"{child.name} is offline{already}"
    if child.state == READY:
        return f"{child.name} is in rotation{already}"
    return f"{child.name} will be in rotation once it is ready (it is {child.state})"


async def _inspect(shell: ControllerShell, child: Child) -> Row:
    """What the Controller knows of it, and what the Worker tells of itself.

    One that is inside a long step of its engine cannot tell: its stacks go to its log by a signal.
    """
    if not child.is_alive:
        raise ApiError("conflict", f"{child.name} is {child.state}: it has no process to ask")
    row = rows.instance_row(shell, child)
    try:
        return {**row, **await asyncio.wait_for(shell.inspect(child), INSPECT_S)}
    except TimeoutError:
        shell.processes[child.key].signal(signal.SIGUSR1)
        raise ApiError(
            "inference_timeout",
            f"{child.name} has not answered for {INSPECT_S:g} s, it may be inside one long step "
            f"of its engine; its thread stacks are in {shell.log_of(child)} now",
        ) from None


class _Verb(NamedTuple):
    body: type[Body]
    act: Callable[[ControllerShell, Child, Any], Awaitable[str]]


_VERBS = {
    "start": _Verb(Wait, _start),
    "stop": _Verb(Stop, _stop),
    "restart": _Verb(Wait, _restart),
    "online": _Verb(Body, _online),
    "offline": _Verb(Body, _offline),
}


@get("/instances", summary="What is alive or about to be; all=1: the server's own processes too")
async def get_instances(state: State, all: bool = False) -> list[Row]:  # noqa: A002
    return rows.instances(state.shell, everything=all)


@get("/instances/{name:path}", summary="One instance")
async def get_instance(state: State, name: str) -> Row:
    shell: ControllerShell = state.shell
    return rows.instance_row(shell, find_instance(shell, named(name)))


@post(
    "/instances/{name:path}",
    status_code=200,
    summary=f"ID:{' :'.join(_VERBS)}; ID:debug tells its live state",
    description=describe("ID", {verb: kind for verb, (kind, _) in _VERBS.items()}),
)
async def post_instance(
    state: State, name: str, data: dict[str, Any] | None = None
) -> Response[Row]:
    shell: ControllerShell = state.shell
    target, _, verb = named(name).rpartition(":")
    if verb == "debug":
        return Response(await _inspect(shell, find_instance(shell, target)))
    if verb not in _VERBS:
        raise ApiError("unknown_url", f"No such action: {named(name)}")
    kind, act = _VERBS[verb]
    body = read(kind, data)
    child = find_instance(shell, target)
    message = await act(shell, child, body)
    row = {"message": message, **rows.instance_row(shell, child)}
    return Response(row, status_code=200 if getattr(body, "wait", True) else 202)


HANDLERS = [get_instances, get_instance, post_instance]
