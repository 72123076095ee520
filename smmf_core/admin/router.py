"""Where the Routers answer, and for which keys: DB-GPT's API server is started by this.

Owns the route; how it is done is the Controller's.
"""

from __future__ import annotations

from typing import Any

from litestar import post
from litestar.datastructures import State

from smmf_core.admin import rows
from smmf_core.admin.bodies import Body, read
from smmf_core.admin.rows import Row
from smmf_core.config.addresses import is_loopback
from smmf_core.controller import address
from smmf_core.controller.keys import ADMIN
from smmf_core.controller.shell import ControllerShell
from smmf_core.errors import ApiError
from smmf_core.keys import wrong_keys


class Move(Body):
    """`api_keys` are the admin API's, too, as in `[server]`."""

    host: str
    port: int
    api_keys: list[str]


@post("/router", status_code=200, summary="Have the Routers answer at another address")
async def post_router(state: State, data: dict[str, Any]) -> Row:
    shell: ControllerShell = state.shell
    body = read(Move, data)
    if message := wrong_keys(body.api_keys):
        raise ApiError("bad_request", f"api_keys: {message}", "api_keys")
    server = shell.config.server
    made = shell.access.book.made_roles
    has_keys = bool(body.api_keys or made)
    if not (has_keys or server.no_auth or is_loopback(body.host)):
        message = f"Other machines reach {body.host}, and there is no API key: give api_keys, or "
        raise ApiError("conflict", message + "make one with `smmf keys create`.", "api_keys")
    if not (body.api_keys or ADMIN in made or is_loopback(server.admin_host)):
        message = "The admin API is open to other machines: it needs keys."
        raise ApiError("conflict", message, "api_keys")
    has_moved = address.move(shell, body.host, body.port, body.api_keys)
    url = f"{rows.health(shell)['inference_url']}/v1"
    already = "" if has_moved else "already "
    return {"url": url, "message": f"the API server answers {already}at {url}"}


HANDLERS = [post_router]
