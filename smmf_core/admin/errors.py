"""How the admin API says no: one envelope for every error; and who may ask at all.

Owns keys and the mapping from exceptions to statuses; must not know any route.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from typing import Any

from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException
from litestar.handlers.base import BaseRouteHandler
from litestar.types import ExceptionHandlersMap

from smmf_core.admin.rows import is_shown
from smmf_core.admin.wording import wrong_field
from smmf_core.config.problems import nearest
from smmf_core.controller.shell import ControllerShell
from smmf_core.errors import ApiError, ConfigError, ControlError
from smmf_core.lifecycle import Child
from smmf_core.registry import Model

_CODES = {404: "unknown_url", 405: "method_not_supported", 413: "request_too_large"}
_HEALTH = "/admin/v1/health"
_FIELD = re.compile(r"([a-z_]+(?:\[\d+\])?): ")  # that a sentence begins with
_log = logging.getLogger("smmf.admin")


def check_key(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Where a key is needed, one whose role allows it must come: as a bearer token, or as
    `X-Api-Key`. Raises ApiError."""
    access = connection.app.state.shell.access
    scheme, _space, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        key = connection.headers.get("x-api-key", "")
    method = str(connection.scope.get("method", ""))
    given, asks_health = key.strip().encode("latin-1"), connection.scope["path"] == _HEALTH
    access.book.check_admin(given, method, time.time(), access.is_open, asks_health)


def find_model(shell: ControllerShell, name: str) -> Model:
    """By name or alias. Raises ApiError naming the nearest."""
    registry = shell.core.registry
    try:
        return registry.find(name)
    except ControlError as error:
        known = [word for model in registry for word in (model.name, *model.aliases)]
        raise ApiError("model_not_found", f"{error}{nearest(name, known)}") from None


def find_instance(shell: ControllerShell, name: str) -> Child:
    """By its id. Raises ApiError naming the nearest, or the instances of the model of that name."""
    try:
        return shell.core.find_instance(name)
    except ControlError as error:
        raise ApiError("instance_not_found", f"{error}{_hint(shell, name)}") from None


def _hint(shell: ControllerShell, name: str) -> str:
    try:
        model = shell.core.registry.find(name)
    except ControlError:
        return nearest(name, [child.name for child in shell.core.workers() if is_shown(child)])
    instances = [child.name for child in shell.core.replicas(model) if is_shown(child)]
    return f"; {name} is a model, its instances: {', '.join(instances) or 'none'}"


def _answer(error: ApiError) -> Response[bytes]:
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(
        error.body(), status_code=error.status, media_type="application/json", headers=headers
    )


def _on_api_error(_: Request[Any, Any, Any], error: ApiError) -> Response[bytes]:
    return _answer(error)


def _on_control_error(_: Request[Any, Any, Any], error: ControlError) -> Response[bytes]:
    """The core refused: as things stand, that cannot be done."""
    return _answer(ApiError("conflict", str(error)))


def _on_config_error(_: Request[Any, Any, Any], error: ConfigError) -> Response[bytes]:
    return _answer(ApiError("bad_request", str(error)))


def _on_http_error(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    words = list(_words(error.extra))
    field = _FIELD.match(words[0]) if words else None
    text, param = "; ".join(words) or error.detail, field[1] if field else None
    return _answer(ApiError(_CODES.get(error.status_code, "bad_request"), text, param))


def _words(problems: Any) -> Iterator[str]:
    """Of a body or a query that Litestar refused."""
    for problem in problems if isinstance(problems, list) else []:
        yield wrong_field(str(problem.get("message", "")), str(problem.get("key", "")))


def _on_too_deep(_: Request[Any, Any, Any], error: RecursionError) -> Response[bytes]:
    return _answer(ApiError("bad_request", "The body is nested too deeply."))


def _on_error(_: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    _log.error("the admin API failed", exc_info=error)
    return _answer(ApiError("internal_error", f"{type(error).__name__}: {error}"))


HANDLERS: ExceptionHandlersMap = {
    ApiError: _on_api_error,
    ControlError: _on_control_error,
    ConfigError: _on_config_error,
    HTTPException: _on_http_error,
    RecursionError: _on_too_deep,
    Exception: _on_error,
}
