"""The admin API as a Litestar application: reading, stopping, shutting down; OpenAPI at /schema.

Owns its routes, keys and error envelopes; state changes are the core's. Must not be imported
before the children are on their way.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import Any
from urllib.parse import unquote

import msgspec
from litestar import Litestar, Request, Response, Router, get, post
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.handlers.base import BaseRouteHandler
from litestar.openapi.config import OpenAPIConfig

from smmf_core import __version__
from smmf_core.admin import adapters, rows
from smmf_core.admin.rows import Row
from smmf_core.controller.shell import ControllerShell, Event
from smmf_core.errors import ApiError, ControlError
from smmf_core.lifecycle import Child
from smmf_core.registry import Model

_POLL_S = 0.02
_STOP_MARGIN_S = 10.0  # beyond a drain: for signals, and for dying
_STOP = ":stop"
_CODES = {404: "unknown_url", 405: "method_not_supported", 413: "request_too_large"}
_log = logging.getLogger("smmf.admin")


class Stop(msgspec.Struct, forbid_unknown_fields=True):
    """`force`: do not drain. `timeout_s`: how long draining may take; null: the server's own."""

    force: bool = False
    timeout_s: float | None = None


class LoadAdapter(msgspec.Struct, forbid_unknown_fields=True):
    """`path`: on the server's machine; a folder as PEFT writes it, or a file of the engine's."""

    name: str
    path: str


class UnloadAdapter(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class ShutDown(msgspec.Struct, forbid_unknown_fields=True):
    """`force`: do not drain."""

    force: bool = False


@get("/health", summary="Whether the Controller lives, and who it is")
async def get_health(state: State) -> Row:
    return rows.health(state.shell)


@get("/models", summary="All registered models")
async def get_models(state: State) -> list[Row]:
    return rows.models(state.shell)


@get("/models/{name:path}", summary="All about one model, by name or alias")
async def get_model(state: State, name: str) -> Row:
    shell: ControllerShell = state.shell
    return rows.model_details(shell, shell.core.registry.find(_named(name)))


@get("/instances", summary="What is alive or about to be; all=1: the server's own processes too")
async def get_instances(state: State, all: bool = False) -> list[Row]:  # noqa: A002
    return rows.instances(state.shell, everything=all)


@get("/instances/{name:path}", summary="One instance")
async def get_instance(state: State, name: str) -> Row:
    shell: ControllerShell = state.shell
    return rows.instance_row(shell, shell.core.find_instance(_named(name)))


@get("/events", summary="The last changes of state, oldest first")
async def get_events(state: State) -> list[Event]:
    return list(state.shell.events)


@post(
    "/models/{name:path}",
    status_code=200,
    summary="NAME:stop drains and stops all replicas; NAME:load-adapter, NAME:unload-adapter",
)
async def post_model(state: State, name: str, data: dict[str, Any] | None = None) -> Row:
    shell: ControllerShell = state.shell
    target, _, verb = _named(name).rpartition(":")
    if verb not in _MODEL_VERBS:
        raise ApiError("unknown_url", f"No such action: {_named(name)}")
    kind, act = _MODEL_VERBS[verb]
    model = shell.core.registry.find(target)
    try:
        body = msgspec.convert(data or {}, kind)
    except msgspec.ValidationError as error:
        raise ApiError("bad_request", str(error)) from None
    await act(shell, model, body)
    return rows.model_details(shell, model)


async def _stop_model(shell: ControllerShell, model: Model, how: Stop) -> None:
    await _stop(shell, shell.core.replicas(model), how)


async def _load_adapter(shell: ControllerShell, model: Model, what: LoadAdapter) -> None:
    await adapters.load(shell, model, what.name, what.path)


async def _unload_adapter(shell: ControllerShell, model: Model, what: UnloadAdapter) -> None:
    await adapters.unload(shell, model, what.name)


_MODEL_VERBS: dict[str, tuple[Any, Any]] = {  # verb -> (body, what it does)
    "stop": (Stop, _stop_model),
    "load-adapter": (LoadAdapter, _load_adapter),
    "unload-adapter": (UnloadAdapter, _unload_adapter),
}


@post("/instances/{name:path}", status_code=200, summary="ID:stop drains and stops one replica")
async def post_instance(state: State, name: str, data: Stop | None = None) -> Row:
    shell: ControllerShell = state.shell
    child = shell.core.find_instance(_verb_of(name, _STOP))
    await _stop(shell, [child], data or Stop())
    return rows.instance_row(shell, child)


@post("/shutdown", status_code=202, summary="Drain and end the whole server")
async def post_shutdown(state: State, data: ShutDown | None = None) -> Row:
    shell: ControllerShell = state.shell
    asyncio.get_running_loop().call_soon(shell.shut_down, (data or ShutDown()).force)
    return {"status": "stopping"}


async def _stop(shell: ControllerShell, replicas: list[Child], how: Stop) -> None:
    """Returns when all have stopped. Raises ControlError when they take too long."""
    for child in replicas:
        shell.core.stop_instance(child, how.force, how.timeout_s, shell.now)
    drain_s = shell.config.timeouts.drain_s if how.timeout_s is None else how.timeout_s
    deadline = shell.now + drain_s + _STOP_MARGIN_S
    while any(child.is_alive for child in replicas):
        if shell.now > deadline:
            raise ControlError("still stopping")
        await asyncio.sleep(_POLL_S)


def _named(path: str) -> str:
    return unquote(path.removeprefix("/"))


def _verb_of(path: str, verb: str) -> str:
    """The name before the verb. Raises ApiError when it is not that verb."""
    name = _named(path)
    if not name.endswith(verb):
        raise ApiError("unknown_url", f"No such action: {name}")
    return name.removesuffix(verb)


# --- keys and errors ---


def check_key(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Where keys are configured, one of them must come as a bearer token."""
    keys = connection.app.state.shell.config.server.api_keys
    given = connection.headers.get("authorization", "").removeprefix("Bearer ").encode()
    if keys and not any(hmac.compare_digest(given, key.encode()) for key in keys):
        raise ApiError("invalid_api_key", "Incorrect or missing API key.")


def _answer(error: ApiError) -> Response[bytes]:
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(
        error.body(), status_code=error.status, media_type="application/json", headers=headers
    )


def on_api_error(_: Request[Any, Any, Any], error: ApiError) -> Response[bytes]:
    return _answer(error)


def on_control_error(_: Request[Any, Any, Any], error: ControlError) -> Response[bytes]:
    message = str(error)
    code = "model_not_found" if message.startswith("no ") else "internal_error"
    return _answer(ApiError(code, message))


def on_http_error(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    extra = f": {error.extra}" if error.extra else ""
    return _answer(ApiError(_CODES.get(error.status_code, "bad_request"), f"{error.detail}{extra}"))


def on_error(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    _log.error("the admin API failed", exc_info=error)
    return _answer(ApiError("internal_error", f"{type(error).__name__}: {error}"))


def create(shell: ControllerShell) -> Litestar:
    handlers = [
        get_health, get_models, get_model, get_instances, get_instance, get_events,
        post_model, post_instance, post_shutdown,
    ]  # fmt: skip
    return Litestar(
        [Router("/admin/v1", route_handlers=handlers)],
        state=State({"shell": shell}),
        guards=[check_key],
        exception_handlers={
            ApiError: on_api_error,
            ControlError: on_control_error,
            HTTPException: on_http_error,
            Exception: on_error,
        },
        openapi_config=OpenAPIConfig("SMMF admin API", __version__, path="/schema"),
        logging_config=None,
    )
