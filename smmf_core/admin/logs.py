"""Lines of the logs, for who cannot read the files: the last ones, or those since a cursor.

Owns the request's form; must not hold a file open between two requests.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import get
from litestar.datastructures import State
from litestar.params import Parameter

from smmf_core.controller.log_files import ACCESS
from smmf_core.controller.log_reader import Cursor, Line, logs_of, read_on, tail
from smmf_core.controller.shell import ControllerShell
from smmf_core.errors import ApiError

MAX_LINES = 100_000
Names = Annotated[list[str] | None, Parameter(query="name", description="models, instances, ...")]
Count = Annotated[int, Parameter(ge=0, le=MAX_LINES, description="the last so many of all")]
After = Annotated[str | None, Parameter(query="cursor", description="as JSON: what came since")]
_read_cursor = msgspec.json.Decoder(Cursor).decode


class Lines(msgspec.Struct):
    """`cursor`: to be given back for what comes later."""

    lines: list[Line]
    cursor: Cursor


@get("/logs", sync_to_thread=True, summary="What processes have said; access: the requests")
def get_logs(
    state: State,
    names: Names = None,
    lines: Count = 100,
    access: bool = False,
    after: After = None,
) -> Lines:
    shell: ControllerShell = state.shell
    folder = shell.run_dir.logs
    logs = [folder / ACCESS] if access else logs_of(folder, names or [])
    if after is not None:
        try:
            return Lines(*read_on(logs, _read_cursor(after)))
        except msgspec.MsgspecError as error:
            raise ApiError("bad_request", f"cursor: {error}") from None
    if names and not logs:
        raise ApiError("model_not_found", f"no logs of {', '.join(names)}")
    return Lines(*tail(logs, lines))


HANDLERS = [get_logs]
