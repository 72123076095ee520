"""What keys have used of which models: sums of requests and tokens, by days in UTC.

Owns the question's form; the sums are the store's, read in a thread: a database may take its time.
"""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from litestar import get
from litestar.datastructures import State
from litestar.params import Parameter

from smmf_core.admin.rows import Row
from smmf_core.controller.shell import ControllerShell
from smmf_core.errors import ApiError
from smmf_core.store.asked import Asked, columns
from smmf_core.store.records import StoreError
from smmf_core.store.when import FORMS, day

By = Annotated[str, Parameter(description="what sums are told apart by: key, model, day; or a few")]
Key = Annotated[str | None, Parameter(description="a key's id; empty: requests without a key")]
Day = Annotated[str, Parameter(description=f"a day in UTC: {FORMS}, counted back from now")]


@get("/usage", summary="Requests and tokens of each key and model; days are included")
async def get_usage(
    state: State,
    by: By = "key,model",
    key: Key = None,
    model: str | None = None,
    since: Day = "",
    until: Day = "",
) -> list[Row]:
    shell: ControllerShell = state.shell
    if shell.store is None:
        raise ApiError("registry_unavailable", "This server has no registry.")
    asked = _asked(shell, by, key, model, since, until)
    try:
        return await asyncio.to_thread(shell.store.read_usage, asked)
    except StoreError as error:
        raise ApiError("registry_unavailable", str(error), retry_after_s=1) from None


def _asked(
    shell: ControllerShell, by: str, key: str | None, model: str | None, since: str, until: str
) -> Asked:
    """Raises ApiError. An alias means its model."""
    registry, now = shell.core.registry, time.time()
    if model and (owner := registry.owner_of(model)) is not None:
        model = owner.name
    elif model:
        model = registry.pointed.get(model, model)
    try:
        return Asked(
            by=columns(by),
            key_id=key,
            model_name=model,
            since=_day("since", since, now),
            until=_day("until", until, now),
        )
    except ValueError as error:
        raise ApiError("bad_request", str(error)) from None


def _day(name: str, text: str, now: float) -> str:
    try:
        return day(text, now)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


HANDLERS = [get_usage]
