"""Whatever stands in a file: it loads, or every problem is named; nothing else ever happens."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from smmf_core.config import ConfigProblems, RawConfig, redacted
from smmf_core.config import dbgpt_keys as keys
from smmf_core.config.dbgpt import model_files, server_file
from smmf_core.config.engine_options import TransformersOptions
from smmf_core.config.kinds import kind_of
from smmf_core.config.parse import MODEL_ALIASES, parse_model, parse_server
from smmf_core.config.parse_remote import parse_remote
from smmf_core.config.remote import Authentication, Proxy
from smmf_core.config.schema import (
    Deployment,
    Health,
    InferenceDefaults,
    Log,
    Memory,
    Model,
    Optimization,
    Registry,
    Routing,
    Server,
    Timeouts,
)

ENV = {"A": "1", "B": "text", "C": ""}
TEXTS = (
    "", "a", "echo", "transformers", "vllm", "openai", "azure", "proxy/openai", "hf", "llama.cpp",
    "llama.cpp.server", "embed", "rerank", "5m", "-1", "cpu", "cuda:0", "http://a/v1", "${env:A}",
    "${env:B}x", "${env:D:-2}", "${env:D}", "${file:x}", "etcd", "ray", "full", "prefix", "0.5",
)  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 70_000)
    | st.sampled_from([0.0, 0.5, 1e9, -1.0])
    | st.sampled_from(TEXTS)
)
VALUES = LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.sampled_from("ab"), LEAVES)


def section(*names: str) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from([*names, "unknown"]), VALUES, max_size=5) | VALUES


def fields(*kinds: type[msgspec.Struct]) -> list[str]:
    return [name for kind in kinds for name in kind.__struct_fields__]


def file(**sections: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={**sections, "unknown": VALUES})


MODEL = file(
    model=section(*fields(Model), *MODEL_ALIASES),
    deployment=section(*fields(Deployment)),
    optimization=section(*fields(Optimization)),
    engine=section(*fields(TransformersOptions), "tokens", "n_ctx"),
    inference=section(*fields(InferenceDefaults)),
    routing=section(*fields(Routing), "fallback"),
)
REMOTE = file(
    model=section(*fields(Model), *MODEL_ALIASES),
    proxy=section(*fields(Proxy), *MODEL_ALIASES),
    authentication=section(*fields(Authentication), "openai_api_key", "openai_api_base"),
    parameters=section(*fields(InferenceDefaults)),
    deployment=section(*fields(Deployment)),
    routing=section(*fields(Routing)),
    engine=VALUES,
)
SERVER = file(
    server=section(*fields(Server)),
    timeouts=section(*fields(Timeouts), "failover_wait_s"),
    health=section(*fields(Health)),
    registry=section(*fields(Registry)),
    memory=section(*fields(Memory)),
    log=section(*fields(Log)),
    cache=section("enabled"),
    trace=VALUES,
    models=VALUES,
)
ENTRY = section(
    "name", "provider", "path", *keys.REMOTE, *(key for k in keys.LOCAL.values() for key in k),
    "quantization", "extras", "n_slots", "ctx_size", "prefer_cpu", "api_type",
)  # fmt: skip
DBGPT = file(
    models=section("default_llm")
    | st.dictionaries(st.sampled_from(list(keys.LISTS)), st.lists(ENTRY, max_size=2) | VALUES),
    service=section("web", "model")
    | st.fixed_dictionaries(
        {
            "model": section("api", "controller", "worker")
            | st.fixed_dictionaries(
                {"controller": section("host", "port", "registry"), "api": section("api_keys")}
            )
        }
    ),
    system=section("api_keys", "log_level"),
    log=section("level"),
)


def no_files(name: str) -> str:
    raise FileNotFoundError(2, "No such file", name)


def loads(parse: Any, table: dict[str, Any]) -> None:
    """Loads or is refused, in words; leaves the table as it was; can be shown either way."""
    before = msgspec.json.encode(table)
    config, problems = None, []
    try:
        config = parse(RawConfig(table, "x.toml"), ENV, no_files)
    except ConfigProblems as error:
        problems = error.problems
    if config is None:
        assert problems
        assert all(problem.message and problem.file == "x.toml" for problem in problems)
    else:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=type(config)) == config
    assert msgspec.json.encode(table) == before
    redacted(table)
    kind_of(table)


FUZZ = settings(deadline=None, max_examples=150)  # a loaded machine is no failure


@FUZZ
@given(MODEL)
def test_any_local_model(table: dict[str, Any]) -> None:
    loads(parse_model, table)


@FUZZ
@given(REMOTE)
def test_any_remote_model(table: dict[str, Any]) -> None:
    loads(parse_remote, table)


@FUZZ
@given(SERVER)
def test_any_server(table: dict[str, Any]) -> None:
    loads(parse_server, table)


@FUZZ
@given(DBGPT)
def test_any_file_of_db_gpt_s(table: dict[str, Any]) -> None:
    raw = RawConfig(table, "x.toml")
    loads(parse_server, server_file(raw).table)
    with suppress(ConfigProblems):
        for model in model_files(raw, ENV):
            loads(parse_remote if "proxy" in model.table else parse_model, model.table)
