"""Routes of aliases: other names of models, which may be pointed at another one while serving.

Owns no state; the registry has them.
"""

from __future__ import annotations

from litestar import delete, get, put
from litestar.datastructures import State

from smmf_core.admin.bodies import PointAlias
from smmf_core.admin.errors import find_model
from smmf_core.admin.models import named
from smmf_core.admin.rows import Row
from smmf_core.admin.waiting import remembered
from smmf_core.controller.shell import ControllerShell

_UNFIT = frozenset({"failed", "stopped", "offline"})  # its requests are refused


@get("/aliases", summary="All aliases; `runtime`: pointed while serving")
async def get_aliases(state: State) -> list[Row]:
    registry = state.shell.core.registry
    return [
        {"alias": alias, "model": model.name, "runtime": alias in registry.pointed}
        for model in registry
        for alias in model.aliases
    ]


@put("/aliases/{name:path}", summary="Point it at a model; what is asked next goes there")
async def put_alias(state: State, name: str, data: PointAlias) -> Row:
    shell: ControllerShell = state.shell
    alias = named(name)
    model = find_model(shell, data.model)
    already = " already" if alias in model.aliases else ""
    shell.core.point_alias(alias, model, shell.now)
    status = shell.core.status_of(model)
    unfit = f", which is {status.state}: {status.reason}" if status.state in _UNFIT else ""
    message = remembered(shell, f"{alias} means {model.name}{already}{unfit}")
    return {"alias": alias, "model": model.name, "message": message}


@delete("/aliases/{name:path}", status_code=200, summary="Forget it")
async def delete_alias(state: State, name: str) -> Row:
    shell: ControllerShell = state.shell
    alias = named(name)
    shell.core.forget_alias(alias, shell.now)
    return {"alias": alias, "message": remembered(shell, f"{alias} is forgotten")}


HANDLERS = [get_aliases, put_alias, delete_alias]
