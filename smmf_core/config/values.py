"""From plain values to typed ones, with each problem named where it stands.

Owns the conversion and the wording of a wrong key or value; must not know any key by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

import msgspec

from smmf_core.config import later
from smmf_core.config.lines import Path
from smmf_core.config.problems import in_words, nearest
from smmf_core.config.section import Section, fields_of
from smmf_core.config.source import Interpolated, Source


def check_sections(source: Source, known: Iterable[str], not_yet: Iterable[str] = ()) -> None:
    """Names the sections that do not belong here, and those of a later release that are on."""
    for name, table in list(source.table.items()):
        if name in known:
            continue
        if name in not_yet:
            if not isinstance(table, dict) or not later.is_off(name, table):
                source.problem((name,), "later", later.MESSAGE)
        elif isinstance(table, dict | list):
            hint = nearest(name, [*known, *not_yet])
            source.problem((name,), "unknown", f"unknown section{hint}")
        else:
            message = "unknown key; every key stands in a [section]"
            source.problem((name,), "unknown", message)


def read_section(source: Source, name: str, kind: type[Section], also: Iterable[str] = ()) -> Any:
    """The struct of a section; None after a problem. `also`: other names its keys go by."""
    before = len(source.problems)
    values = read_table(source, name, kind, also)
    for field in fields_of(kind):
        if field.required and field.name not in source.section(name):
            source.problem((name, field.name), "missing", "must be given")
    return kind(**values) if len(source.problems) == before else None


def read_table(
    source: Source, name: str, kind: type[Section], also: Iterable[str] = ()
) -> dict[str, Any]:
    """A section that stays a table: only what is given, checked as the struct's fields are."""
    fields = {field.name: field.type for field in fields_of(kind)}
    known = [*fields, *also, *(key for section, key in later.KEYS if section == name)]
    values: dict[str, Any] = {}
    for key, value in source.section(name).items():
        if key in fields:
            values[key] = convert(source, (name, key), value, fields[key])
        elif (name, key) not in later.KEYS:
            source.problem((name, key), "unknown", f"unknown key{nearest(key, known)}")
        elif value not in later.KEYS[(name, key)]:
            source.problem((name, key), "later", later.MESSAGE)
    return values


def convert(source: Source, path: Path, value: Any, kind: Any) -> Any:
    """The value as its field's type; None after a problem."""
    if isinstance(value, str) and value in later.VALUES.get((path[0], path[-1]), ()):
        source.problem(path, "later", f"'{value}' is {later.MESSAGE}")
        return None
    if get_origin(kind) is Literal and isinstance(value, str) and value not in get_args(kind):
        choices = ", ".join(f"'{choice}'" for choice in get_args(kind))
        hint = nearest(value, get_args(kind))
        source.problem(path, "value", f"'{value}' is not one of {choices}{hint}")
        return None
    try:
        return msgspec.convert(plain(value), kind, strict=not _is_filled_in(value))
    except msgspec.ValidationError as error:
        wrong_type = "got `" in str(error)
        source.problem(path, "type" if wrong_type else "value", in_words(error))
        return None


def plain(value: Any) -> Any:
    """The same values as ordinary strings, lists and tables."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Interpolated) else value


def _is_filled_in(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_filled_in, value.values()))
    if isinstance(value, list):
        return any(map(_is_filled_in, value))
    return isinstance(value, Interpolated)


def untyped(value: Any) -> Any:
    """As `plain`, for values of a type that is not known here: what was filled in and reads like a
    number or a truth value is one."""
    if isinstance(value, dict):
        return {key: untyped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [untyped(item) for item in value]
    if not isinstance(value, Interpolated):
        return value
    try:
        return msgspec.convert(str(value), bool | int | float, strict=False)
    except msgspec.ValidationError:
        return str(value)
