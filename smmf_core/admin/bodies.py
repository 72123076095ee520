"""What the admin API's verbs take: one struct per body, read strictly.

Owns names and defaults of the fields; must not know what they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from smmf_core.admin.wording import wrong_field
from smmf_core.controller.verbs import MAX_REPLICAS
from smmf_core.errors import ApiError

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_REPLICAS)]


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    pass


class Wait(Body):
    """`wait` false: answer at once (202); else when the state is reached, or after `timeout_s`
    (503; what was begun goes on)."""

    wait: bool = True
    timeout_s: Seconds | None = None


class Start(Wait):
    """`replicas`: as scaling would set it."""

    replicas: Annotated[int, msgspec.Meta(ge=1, le=MAX_REPLICAS)] | None = None


class Stop(Body):
    """`force`: do not drain. `timeout_s`: how long draining may take; null: the server's own."""

    wait: bool = True
    force: bool = False
    timeout_s: Seconds | None = None


class Scale(Wait, kw_only=True):
    replicas: Count


class LoadAdapter(Body):
    """`path`: on the server's machine; a folder as PEFT writes it, or a file of the engine's."""

    name: str
    path: str


class UnloadAdapter(Body):
    name: str


class AddModel(Wait):
    """One of: `path`, a file or folder on the server's machine; `toml`, a file's text; `config`,
    the same as JSON. `source` names the text in messages."""

    path: str | None = None
    toml: str | None = None
    config: dict[str, Any] | None = None
    source: str = ""


class PointAlias(Body):
    model: str


class ShutDown(Body):
    """`force`: do not drain."""

    force: bool = False


B = TypeVar("B", bound=Body)


def read(kind: type[B], data: dict[str, Any] | None) -> B:
    """Raises ApiError: 400 with the field's name."""
    try:
        return msgspec.convert(data or {}, kind)
    except msgspec.ValidationError as error:
        known = [field.encode_name for field in msgspec.structs.fields(kind)]
        raise ApiError("bad_request", wrong_field(str(error), known=known)) from None


def describe(what: str, verbs: Mapping[str, type[Body]]) -> str:
    """For the OpenAPI document: what each verb's body may hold."""
    lines = []
    for verb, kind in verbs.items():
        fields = ", ".join(map(_field, msgspec.structs.fields(kind)))
        lines.append(f"- `{what}:{verb}` {{{fields}}}")
    return "\n".join(lines)


def _field(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return field.encode_name
    return f"{field.encode_name} = {msgspec.json.encode(field.default).decode()}"
