"""The admin API as a Litestar application; OpenAPI at /schema.

Owns what belongs to the whole server; state changes are the core's. Must not be imported before the
children are on their way.
"""

from __future__ import annotations

import asyncio

from litestar import Litestar, Router, get, post
from litestar.datastructures import State
from litestar.openapi.config import OpenAPIConfig

from smmf_core import __version__
from smmf_core.admin import (
    aliases,
    events,
    instances,
    keys,
    logs,
    models,
    registering,
    router,
    rows,
    usage,
)
from smmf_core.admin.bodies import ShutDown
from smmf_core.admin.errors import HANDLERS, check_key
from smmf_core.admin.rows import Row
from smmf_core.controller.shell import ControllerShell


@get("/health", summary="Whether the Controller lives, and who it is")
async def get_health(state: State) -> Row:
    return rows.health(state.shell)


@post("/shutdown", status_code=202, summary="Drain and end the whole server")
async def post_shutdown(state: State, data: ShutDown | None = None) -> Row:
    shell: ControllerShell = state.shell
    asyncio.get_running_loop().call_soon(shell.shut_down, (data or ShutDown()).force)
    return {"status": "stopping"}


def create(shell: ControllerShell) -> Litestar:
    handlers = [
        get_health,
        *models.HANDLERS,
        *registering.HANDLERS,
        *instances.HANDLERS,
        *events.HANDLERS,
        *logs.HANDLERS,
        *router.HANDLERS,
        *aliases.HANDLERS,
        *keys.HANDLERS,
        *usage.HANDLERS,
        post_shutdown,
    ]
    return Litestar(
        [Router("/admin/v1", route_handlers=handlers)],
        state=State({"shell": shell}),
        guards=[check_key],
        exception_handlers=HANDLERS,
        openapi_config=OpenAPIConfig("SMMF admin API", __version__, path="/schema"),
        logging_config=None,
    )
