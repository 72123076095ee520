"""What has happened: the last changes of state, from a time on, or as soon as there is one.

Owns the filters of the request; what is an event is the shell's to say.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from litestar import get
from litestar.datastructures import State
from litestar.params import Parameter

from smmf_core.config.problems import nearest
from smmf_core.controller.shell import ControllerShell, Event
from smmf_core.errors import ApiError

POLL_S = 0.05
MAX_WAIT_S = 60.0
Since = Annotated[float, Parameter(description="Unix time: only what came later")]
Limit = Annotated[int, Parameter(ge=0, description="at most so many, the newest; 0: all")]
Wait = Annotated[
    float, Parameter(ge=0, le=MAX_WAIT_S, description="for the next, if none is there")
]


@get("/events", summary="The last changes of state, oldest first; follow them by since and wait_s")
async def get_events(
    state: State,
    since: Since = 0.0,
    limit: Limit = 0,
    wait_s: Wait = 0.0,
    instance: str | None = None,
    model: str | None = None,
) -> list[Event]:
    shell: ControllerShell = state.shell
    names = _names(shell, instance, model)
    deadline = shell.now + wait_s
    while True:
        found = _find(shell, since, names)
        if found or shell.now >= deadline or shell.core.is_stopping:
            return found[-limit:]
        await asyncio.sleep(POLL_S)


def _names(shell: ControllerShell, instance: str | None, model: str | None) -> set[str] | None:
    """Whose events: None is everyone's. A model's are its own and its replicas'.

    Raises ApiError for what is neither there nor has been: nothing would ever come.
    """
    if instance is None and model is None:
        return None
    asked = {name for name in (instance, model) if name is not None}
    found = next((m for m in shell.core.registry if model in (m.name, *m.aliases)), None)
    if found is not None:
        return asked | {found.name, *(child.name for child in shell.core.replicas(found))}
    there = [child.name for child in (*shell.core.workers(), *shell.core.routers())]
    if asked.isdisjoint([*there, *(event.id for event in shell.events)]):
        name = model or instance or ""
        hint = nearest(name, [*there, *(model.name for model in shell.core.registry)])
        raise ApiError("instance_not_found", f"no model or instance named {name}{hint}")
    return asked


def _find(shell: ControllerShell, since: float, names: set[str] | None) -> list[Event]:
    found: list[Event] = []
    for event in reversed(shell.events):  # the newest first: few are wanted
        if event.time <= since:
            break
        if names is None or event.id in names:
            found.append(event)
    found.reverse()
    return found


HANDLERS = [get_events]
