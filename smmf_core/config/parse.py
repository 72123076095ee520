"""From TOML text to typed configuration, with every problem of a file named at once.

Owns the rules for keys, values and `${...}`; must not read files or the environment itself: both
are given to it.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

import msgspec

from smmf_core.config import later
from smmf_core.config.engine_options import engine_options
from smmf_core.config.lines import Path, key_lines
from smmf_core.config.problems import ConfigProblems, Problem, in_words, key_name, nearest
from smmf_core.config.schema import InferenceDefaults, ModelConfig, Optimization, ServerConfig
from smmf_core.config.section import Section
from smmf_core.errors import CannotStart
from smmf_core.plugins import (
    BACKENDS,
    PLACEMENT,
    STRATEGIES,
    backend_names,
    load,
    strategy_names,
)

MODEL_ALIASES = {"model_name": "name", "model_type": "type", "model_path": "path"}
_MODEL_SECTIONS = ("model", "deployment", "optimization", "engine", "inference", "routing")
_SERVER_SECTIONS = ("server", "timeouts", "limits", "log")
_STRATEGY = ("routing", "strategy")
_EMBED_STEPS = 4  # of single texts may be open
_MAX_EMBED_SLOTS = 512  # each reserves room in the token ring
_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")
_ERROR_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

ReadFile = Callable[[str], str]


class _Interpolated(str):
    """A string that held `${...}`: it may stand for a number or a truth value."""


class _File:
    """One file while it is read: its values, its lines, its problems so far."""

    def __init__(self, text: str, name: str, env: Mapping[str, str], read: ReadFile) -> None:
        self.name = name
        self.env = env
        self.read = read
        self.problems: list[Problem] = []
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigProblems([_syntax_problem(str(error), text, name)]) from None
        self.lines = key_lines(text)
        self.table: dict[str, Any] = {k: self._expand(v, (k,)) for k, v in table.items()}

    def problem(self, path: Path, kind: str, message: str) -> None:
        line = self.lines.get(path) or self.lines.get(path[:-1], 0)
        self.problems.append(Problem(self.name, line, key_name(path), kind, message))

    def section(self, name: str) -> dict[str, Any]:
        table = self.table.get(name, {})
        if isinstance(table, dict):
            return table
        self.problem((name,), "type", "expected a table")
        self.table[name] = {}
        return {}

    def finish(self) -> None:
        if self.problems:
            raise ConfigProblems(sorted(self.problems, key=lambda problem: problem.line))

    def _expand(self, value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: self._expand(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._expand(item, path) for item in value]
        if isinstance(value, str) and _REFERENCE.search(value):
            return _Interpolated(_REFERENCE.sub(lambda found: self._resolve(found, path), value))
        return value

    def _resolve(self, found: re.Match[str], path: Path) -> str:
        kind, name = found[1], found[2]
        if kind == "file":
            try:
                return self.read(name).strip()
            except (OSError, UnicodeDecodeError) as error:
                self.problem(path, "file", f"cannot read {name}: {error}")
                return ""
        name, has_default, default = name.partition(":-")
        if not has_default and name not in self.env:
            self.problem(path, "value", f"the environment variable {name} is not set")
        return self.env.get(name, "") or default


def parse_server(text: str, name: str, env: Mapping[str, str], read: ReadFile) -> ServerConfig:
    """Raises ConfigProblems naming everything that is wrong."""
    file = _File(text, name, env, read)
    _check_sections(file, (*_SERVER_SECTIONS, "models"), later.SERVER_SECTIONS)
    sections = {
        field.name: _read_section(file, (field.name,), file.section(field.name), field.type)
        for field in msgspec.structs.fields(ServerConfig)
        if field.name in _SERVER_SECTIONS
    }
    models = _convert(file, ("models",), file.table.get("models", []), list[str])
    file.finish()
    return ServerConfig(models=models, source=name, **sections)


def parse_model(text: str, name: str, env: Mapping[str, str], read: ReadFile) -> ModelConfig:
    """Raises ConfigProblems naming everything that is wrong."""
    file = _File(text, name, env, read)
    _check_sections(file, _MODEL_SECTIONS, later.MODEL_SECTIONS)
    _rename_aliases(file)
    _set_slots(file)
    sections = {
        field.name: _read_section(file, (field.name,), file.section(field.name), field.type)
        for field in msgspec.structs.fields(ModelConfig)
        if field.name in ("model", "deployment", "optimization", "routing")
    }
    engine = _read_engine(file, file.section("model"))
    _check_strategy(file, file.section("routing").get("strategy"))
    inference = _read_table(file, "inference", file.section("inference"), InferenceDefaults)
    file.finish()
    return ModelConfig(engine=engine, inference=inference, source=name, **sections)


def embed_slots(max_batch_size: int) -> int:
    """The default of an embedding model's max_concurrency.

    A slot is an open request, often of one text only: these are enough for the next steps to be
    full while the answers of the last one are on their way.
    """
    return min(_EMBED_STEPS * max_batch_size, _MAX_EMBED_SLOTS)


def _set_slots(file: _File) -> None:
    if file.section("model").get("task") not in ("embed", "rerank"):
        return
    size = file.section("optimization").get("max_batch_size", Optimization().max_batch_size)
    if isinstance(size, int):
        file.table.setdefault("deployment", {})
        file.section("deployment").setdefault("max_concurrency", embed_slots(size))


def _read_engine(file: _File, model: dict[str, Any]) -> dict[str, Any]:
    """`[engine]`, checked where the backend's keys are known here."""
    backend, engine = model.get("backend"), file.section("engine")
    if not isinstance(backend, str):
        return engine
    if backend not in BACKENDS and backend not in backend_names():
        choices = ", ".join(f"'{name}'" for name in backend_names())
        hint = nearest(backend, backend_names())
        message = f"'{backend}' is not one of {choices}{hint}"
        file.problem(("model", "backend"), "value", message)
        return engine
    options = engine_options(backend, str(model.get("task", "generate")))
    return engine if options is None else _read_table(file, "engine", engine, options)


def _check_strategy(file: _File, name: Any) -> None:
    """A plug-in's is loaded: a Router could do nothing about one that is broken."""
    if not isinstance(name, str) or name in STRATEGIES or name in later.VALUES[_STRATEGY]:
        return
    try:
        if name in strategy_names():
            load(PLACEMENT, name)
        else:
            choices = ", ".join(f"'{choice}'" for choice in strategy_names())
            hint = nearest(name, strategy_names())
            file.problem(_STRATEGY, "value", f"'{name}' is not one of {choices}{hint}")
    except CannotStart as error:
        file.problem(_STRATEGY, "value", str(error))


def is_server_text(text: str) -> bool:
    """Whether a TOML text configures the server rather than a model."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    if any(name in table for name in _MODEL_SECTIONS):
        return False
    return any(name in table for name in _SERVER_SECTIONS) or isinstance(table.get("models"), list)


def _syntax_problem(error: str, text: str, name: str) -> Problem:
    place = _ERROR_PLACE.search(error)
    line = int(place[1]) if place and place[1] else text.count("\n") + 1
    return Problem(name, line, "", "syntax", _ERROR_PLACE.sub("", error))


def _check_sections(file: _File, known: Iterable[str], not_yet: frozenset[str]) -> None:
    for name in file.table:
        if name in not_yet:
            file.problem((name,), "later", later.MESSAGE)
        elif name not in known and not isinstance(file.table[name], dict | list):
            file.problem((name,), "unknown", "unknown key; every key stands in a [section]")
        elif name not in known:
            hint = nearest(name, [*known, *not_yet])
            file.problem((name,), "unknown", f"unknown section{hint}")


def _rename_aliases(file: _File) -> None:
    table = file.section("model")
    for alias, name in MODEL_ALIASES.items():
        if alias not in table:
            continue
        if name in table:
            file.problem(("model", alias), "value", f"the same as '{name}', which is given too")
        table.setdefault(name, table.pop(alias))
        file.lines.setdefault(("model", name), file.lines.get(("model", alias), 0))


def _read_section(file: _File, path: Path, table: dict[str, Any], kind: type[Section]) -> Any:
    """The struct of a section; None after a problem."""
    before = len(file.problems)
    values = _known_values(file, path, table, kind)
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in table:
            file.problem((*path, field.name), "missing", "must be given")
    return kind(**values) if len(file.problems) == before else None


def _read_table(
    file: _File, name: str, table: dict[str, Any], kind: type[Section]
) -> dict[str, Any]:
    """A section that stays a table: only what is given, checked as the struct's fields are."""
    return _known_values(file, (name,), table, kind)


def _known_values(
    file: _File, path: Path, table: dict[str, Any], kind: type[Section]
) -> dict[str, Any]:
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key in fields:
            values[key] = _convert(file, (*path, key), value, fields[key])
        elif (path[-1], key) not in later.KEYS:
            hint = nearest(key, [*fields, *_other_names(path[-1])])
            file.problem((*path, key), "unknown", f"unknown key{hint}")
        elif value not in later.KEYS[(path[-1], key)]:
            file.problem((*path, key), "later", later.MESSAGE)
    return values


def _other_names(section: str) -> list[str]:
    """Keys that are understood though no struct has them."""
    aliases = list(MODEL_ALIASES) if section == "model" else []
    return [*aliases, *(key for owner, key in later.KEYS if owner == section)]


def _convert(file: _File, path: Path, value: Any, kind: Any) -> Any:
    """The value as its field's type; None after a problem."""
    if isinstance(value, str) and value in later.VALUES.get((path[0], path[-1]), ()):
        file.problem(path, "later", f"'{value}' is {later.MESSAGE}")
        return None
    if get_origin(kind) is Literal and isinstance(value, str) and value not in get_args(kind):
        choices = ", ".join(f"'{choice}'" for choice in get_args(kind))
        hint = nearest(value, get_args(kind))
        file.problem(path, "value", f"'{value}' is not one of {choices}{hint}")
        return None
    if isinstance(value, float) and not math.isfinite(value):
        file.problem(path, "value", "expected a finite number")
        return None
    items = value if isinstance(value, list) else [value]
    is_free = any(isinstance(item, _Interpolated) for item in items)
    plain = [str(item) if isinstance(item, _Interpolated) else item for item in items]
    try:
        return msgspec.convert(
            plain if isinstance(value, list) else plain[0], kind, strict=not is_free
        )
    except msgspec.ValidationError as error:
        wrong_type = "got `" in str(error)
        file.problem(path, "type" if wrong_type else "value", in_words(error))
        return None
