"""From a file's plain values to typed configuration, with every problem of it named at once.

Owns which sections and keys a file may have; must not read files or the environment itself: both
are given to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smmf_core.config import later
from smmf_core.config.engine_options import engine_options
from smmf_core.config.problems import nearest
from smmf_core.config.raw import RawConfig
from smmf_core.config.rules import check_keys, check_model, check_registry, check_timeouts
from smmf_core.config.schema import InferenceDefaults, ModelConfig, Optimization, ServerConfig
from smmf_core.config.section import fields_of
from smmf_core.config.source import ReadFile, Source
from smmf_core.config.values import (
    check_sections,
    convert,
    read_section,
    read_table,
    untyped,
)
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
_STRUCTS = ("model", "deployment", "optimization", "routing")  # of a model's file
_SECTIONS = (*_STRUCTS, "engine", "inference")
_SERVER_SECTIONS = ("server", "timeouts", "limits", "log", "health", "registry", "memory")
_STRATEGY = ("routing", "strategy")
_EMBED_STEPS = 4  # of single texts may be open
_MAX_EMBED_SLOTS = 512  # each reserves room in the token ring


def parse_server(raw: RawConfig, env: Mapping[str, str], read: ReadFile) -> ServerConfig:
    """Raises ConfigProblems naming everything that is wrong."""
    source = Source(raw, env, read)
    check_sections(source, (*_SERVER_SECTIONS, "models"), later.SECTIONS)
    fields = {field.name: field.type for field in fields_of(ServerConfig)}
    sections = {name: read_section(source, name, fields[name]) for name in _SERVER_SECTIONS}
    if sections["server"] is not None:
        check_keys(source, sections["server"])
    if sections["registry"] is not None:
        check_registry(source, sections["registry"])
    if sections["timeouts"] is not None:
        check_timeouts(source, sections["timeouts"])
    models = convert(source, ("models",), source.table.get("models", []), list[str])
    source.finish()
    return ServerConfig(models=models, source=raw.source, **sections)


def parse_model(raw: RawConfig, env: Mapping[str, str], read: ReadFile) -> ModelConfig:
    """A local model. Raises ConfigProblems naming everything that is wrong."""
    source = Source(raw, env, read)
    check_sections(source, _SECTIONS)
    rename_aliases(source, "model")
    _set_slots(source)
    fields = {field.name: field.type for field in fields_of(ModelConfig)}
    sections = {
        name: read_section(source, name, fields[name], MODEL_ALIASES if name == "model" else ())
        for name in _STRUCTS
    }
    engine = _read_engine(source)
    check_strategy(source)
    inference = read_table(source, "inference", InferenceDefaults)
    source.finish()
    config = ModelConfig(engine=engine, inference=inference, source=raw.source, **sections)
    check_model(source, config)
    source.finish()
    return config


def embed_slots(max_batch_size: int) -> int:
    """The default of an embedding model's max_concurrency.

    A slot is an open request, often of one text only: these are enough for the next steps to be
    full while the answers of the last one are on their way.
    """
    return min(_EMBED_STEPS * max_batch_size, _MAX_EMBED_SLOTS)


def rename_aliases(source: Source, section: str) -> None:
    """The mission's names of [model]'s keys; in [proxy] they mean the same."""
    for alias, name in MODEL_ALIASES.items():
        if alias in source.section(section):
            source.move((section, alias), ("model", name))


def check_strategy(source: Source) -> None:
    """A plug-in's is loaded: a Router could do nothing about one that is broken."""
    name = source.section("routing").get("strategy")
    if not isinstance(name, str) or name in STRATEGIES or name in later.VALUES[_STRATEGY]:
        return
    try:
        if name in strategy_names():
            load(PLACEMENT, name)
        else:
            choices = ", ".join(f"'{choice}'" for choice in strategy_names())
            hint = nearest(name, strategy_names())
            source.problem(_STRATEGY, "value", f"'{name}' is not one of {choices}{hint}")
    except CannotStart as error:
        source.problem(_STRATEGY, "value", str(error))


def _set_slots(source: Source) -> None:
    if source.section("model").get("task") not in ("embed", "rerank"):
        return
    size = source.section("optimization").get("max_batch_size", Optimization().max_batch_size)
    if isinstance(size, int):
        source.section("deployment").setdefault("max_concurrency", embed_slots(size))


def _read_engine(source: Source) -> dict[str, Any]:
    """`[engine]`, checked where the backend's keys are known here."""
    model, engine = source.section("model"), source.section("engine")
    backend = model.get("backend")
    if not isinstance(backend, str):
        return {}
    if backend not in BACKENDS and backend not in backend_names():
        choices = ", ".join(f"'{name}'" for name in backend_names())
        hint = nearest(backend, backend_names())
        message = f"'{backend}' is not one of {choices}{hint}"
        source.problem(("model", "backend"), "value", message)
        return {}
    options = engine_options(backend, str(model.get("task", "generate")))
    if options is None:
        return {key: untyped(value) for key, value in engine.items()}
    return read_table(source, "engine", options)
