"""Routes of API keys: make, list, revoke. The key itself is in the answer that makes it, only.

Owns no state; keys are the Controller's (controller.access).
"""

from __future__ import annotations

import time

from litestar import delete, get, post
from litestar.datastructures import State

from smmf_core.admin.rows import Row
from smmf_core.admin.waiting import remembered
from smmf_core.controller.shell import ControllerShell
from smmf_core.errors import ApiError
from smmf_core.store.issue import KeyWanted, issue, row

_SHOWN = 3  # unknown models
_LOCKED = "; from now on smmf needs it, or another of the role admin, in SMMF_API_KEY"


@get("/keys", summary="All API keys, without the keys; `all`: revoked ones, too")
async def get_keys(state: State, all: bool = False) -> list[Row]:  # noqa: A002 - as the CLI's flag
    access, now = state.shell.access, time.time()
    records = [record for record in access.book.records() if all or not record.revoked_at]
    return [row(record, access.last_used, now) for record in records]


@post("/keys", status_code=201, summary="Make one; the answer alone has the key")
async def post_key(state: State, data: KeyWanted) -> Row:
    shell: ControllerShell = state.shell
    now = time.time()
    try:
        record, key = issue(data, now)
    except ValueError as error:
        raise ApiError("bad_request", str(error), str(error).partition(":")[0]) from None
    had_admin = shell.access.book.has_admin
    shell.access.add(record)
    shell.note("key", record.key_id, f"made for {', '.join(record.roles)}")
    locks = not had_admin and shell.access.book.has_admin
    words = f"{_LOCKED if locks else ''}{_unknown(shell, record.models)}"
    message = remembered(shell, f"the key is shown this once{words}")
    return {**row(record, {}, now), "key": key, "message": message}


@delete("/keys/{key_id:str}", status_code=200, summary="Revoke it; what is open goes on")
async def delete_key(state: State, key_id: str) -> Row:
    shell: ControllerShell = state.shell
    already = " already" if shell.access.book.find(key_id).revoked_at else ""
    record = shell.access.revoke(key_id)
    if not already:
        shell.note("key", key_id, "revoked")
    message = remembered(shell, f"{key_id} is revoked{already}")
    return {**row(record, shell.access.last_used, time.time()), "message": message}


def _unknown(shell: ControllerShell, names: list[str]) -> str:
    """Models may come later; a name that is wrong is not."""
    known = {word for model in shell.core.registry for word in (model.name, *model.aliases)}
    wrong = [name for name in names if known.isdisjoint((name, name.rpartition(":")[0]))]
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return f"; there is no model {', '.join(wrong[:_SHOWN])}{more} yet" if wrong else ""


HANDLERS = [get_keys, post_key, delete_key]
