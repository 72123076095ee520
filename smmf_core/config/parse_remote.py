"""A remote model's file: `[proxy]`, `[authentication]`, `[parameters]`.

Owns the names that a provider's own keys go by; must not know how a provider is spoken to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import msgspec

from smmf_core.config.parse import MODEL_ALIASES, check_strategy, rename_aliases
from smmf_core.config.problems import nearest
from smmf_core.config.providers import ATTACHED, PROVIDERS, canonical, own_keys
from smmf_core.config.raw import RawConfig
from smmf_core.config.remote import Authentication, Proxy
from smmf_core.config.schema import Deployment, InferenceDefaults, Model, ModelConfig, Routing
from smmf_core.config.section import Count, Positive, Section
from smmf_core.config.source import ReadFile, Source
from smmf_core.config.values import check_sections, read_section, read_table, untyped

_SECTIONS = ("model", "proxy", "authentication", "parameters", "deployment", "routing")
_LOCAL_SECTIONS = ("optimization", "engine", "inference")
_ENDPOINTS = ("/chat/completions", "/embeddings", "/rerank")  # addresses are given with them, too
_OPEN_REQUESTS = 100  # of one model at its provider; DB-GPT's own default


class RemoteDeployment(Section):
    """`[deployment]` of a remote model: nothing of it runs here."""

    max_concurrency: Count = _OPEN_REQUESTS  # open requests at the provider
    weight: Positive = 1.0  # for the strategy "weighted"


def parse_remote(raw: RawConfig, env: Mapping[str, str], read: ReadFile) -> ModelConfig:
    """Raises ConfigProblems naming everything that is wrong."""
    source = Source(raw, env, read)
    _refuse_a_local_models(source)
    check_sections(source, _SECTIONS)
    for section in ("model", "proxy"):
        rename_aliases(source, section)
    provider = _provider(source)
    keys = own_keys(provider) if provider else {}
    _move_own_keys(source, keys)
    _name(source, provider)
    sections = {
        "model": read_section(source, "model", Model, MODEL_ALIASES),
        "proxy": read_section(source, "proxy", Proxy, MODEL_ALIASES),
        "authentication": read_section(source, "authentication", Authentication, keys),
        "routing": read_section(source, "routing", Routing),
    }
    deployment = read_section(source, "deployment", RemoteDeployment)
    check_strategy(source)
    inference, parameters = _parameters(source)
    source.finish()
    model, proxy = sections["model"], sections["proxy"]
    proxy.model = proxy.model or model.name
    proxy.proxy_server_url = _base(proxy.proxy_server_url)
    return ModelConfig(
        deployment=Deployment(**msgspec.structs.asdict(deployment)),
        inference=inference,
        parameters=parameters,
        source=raw.source,
        **sections,
    )


def _refuse_a_local_models(source: Source) -> None:
    """Sections and keys that say how a model runs here."""
    for name in _LOCAL_SECTIONS:
        if name in source.table:
            message = "does not apply to a remote model; defaults of requests are in [parameters]"
            source.problem((name,), "value", message)
            del source.table[name]
    deployment = source.section("deployment")
    for key in Deployment.__struct_fields__:
        if key in deployment and key not in RemoteDeployment.__struct_fields__:
            source.problem(("deployment", key), "value", "does not apply to a remote model")
            del deployment[key]


def _base(url: str) -> str:
    """An address without the path of one kind of request."""
    url = url.rstrip("/")
    for endpoint in _ENDPOINTS:
        url = url.removesuffix(endpoint)
    return url


def _provider(source: Source) -> str | None:
    """Its own name, set in [proxy]; None after a problem. Checks what it asks for."""
    proxy = source.section("proxy")
    given = proxy.get("provider")
    if not isinstance(given, str):
        return None
    provider = canonical(given)
    if provider is None:
        message = f"'{given}' is not a provider that is known here{nearest(given, PROVIDERS)}"
        source.problem(("proxy", "provider"), "value", message)
        return None
    proxy["provider"] = provider
    return provider


def _move_own_keys(source: Source, keys: Mapping[str, str]) -> None:
    """A provider's own keys to those that all have. Several may say the same: the first counts."""
    for key in [key for key in source.section("authentication") if key in keys]:
        section = "proxy" if keys[key] == "proxy_server_url" else "authentication"
        source.move(("authentication", key), (section, keys[key]))


def _name(source: Source, provider: str | None) -> None:
    """[model] name where it is not given: [proxy] model, else the file's without `proxy-`. The
    backend is the provider."""
    model, proxy = source.section("model"), source.section("proxy")
    if "backend" in model:
        message = "a remote model has [proxy] provider instead"
        source.problem(("model", "backend"), "value", message)
    model["backend"] = provider or "unknown"
    stem = PurePath(source.raw.source).stem.removeprefix("dbgpt-").removeprefix("proxy-")
    model.setdefault("name", proxy.get("model") or stem)
    if provider in ATTACHED and not proxy.get("proxy_server_url"):
        message = f"must be given: where the server is ({provider} has no address of its own)"
        source.problem(("proxy", "proxy_server_url"), "missing", message)


def _parameters(source: Source) -> tuple[dict[str, Any], dict[str, Any]]:
    """[parameters] in two: defaults of requests, checked, and what only the provider knows."""
    given = source.section("parameters")
    names = InferenceDefaults.__struct_fields__
    own = {key: untyped(value) for key, value in given.items() if key not in names}
    source.table["parameters"] = {key: value for key, value in given.items() if key in names}
    return read_table(source, "parameters", InferenceDefaults), own
