"""The base of all configuration structs, and the kinds of value that they hold."""

from __future__ import annotations

from functools import cache
from typing import Annotated

import msgspec

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]  # 0: any free one
Count = Annotated[int, msgspec.Meta(ge=1)]
Limit = Annotated[int, msgspec.Meta(ge=0)]  # 0: no limit
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Text = Annotated[str, msgspec.Meta(min_length=1)]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]


class Section(msgspec.Struct, forbid_unknown_fields=True):
    """Base of all sections: travels as msgpack between our own processes."""


@cache
def fields_of(kind: type[Section]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """A section's keys; msgspec evaluates the annotations anew at each call, which is slow."""
    return msgspec.structs.fields(kind)
