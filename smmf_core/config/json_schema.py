"""JSON Schemas of the configuration files, for editors: `python -m smmf_core.config.json_schema`.

Owns their generation from the structs; must not be needed to load a file.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from smmf_core.config import later
from smmf_core.config.engine_options import EMBED_OPTIONS, ENGINE_OPTIONS
from smmf_core.config.parse import MODEL_ALIASES
from smmf_core.config.parse_remote import RemoteDeployment
from smmf_core.config.providers import OWN_KEYS, PROVIDERS
from smmf_core.config.remote import Authentication, Proxy
from smmf_core.config.schema import (
    Deployment,
    InferenceDefaults,
    Model,
    Optimization,
    Routing,
    ServerConfig,
)
from smmf_core.config.section import Section
from smmf_core.config.targets import bundled
from smmf_core.plugins import BACKENDS, STRATEGIES

Schema = dict[str, Any]
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = {"type": "string", "pattern": r"\$\{(env|file):[^}]+\}"}
_REFERENCE_HERE = {"$ref": "#/$defs/reference"}
_COMMENT = re.compile(r"^    (?:(\w+):|\]).*?  # (.*)$")
_KEY = re.compile(r"^    (\w+):")


def schemas() -> dict[str, Schema]:
    """File name -> schema."""
    return {
        "model.schema.json": _model(),
        "proxy.schema.json": _proxy(),
        "server.schema.json": _server(),
    }


def text_of(schema: Schema) -> str:
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _model() -> Schema:
    model = _named(_section(Model, also=MODEL_ALIASES), ["backend"])
    model["properties"]["backend"]["examples"] = list(BACKENDS)
    return _file(
        "A local model",
        {
            "model": model,
            "deployment": _section(Deployment),
            "optimization": _section(Optimization),
            "engine": {"type": "object"},
            "inference": _section(InferenceDefaults),
            "routing": _routing(),
        },
        required=["model"],
        allOf=[
            _engine_of(backend, is_generate, kind)
            for is_generate, options in ((True, ENGINE_OPTIONS), (False, EMBED_OPTIONS))
            for backend, kind in options.items()
        ],
    )


def _proxy() -> Schema:
    proxy = _section(Proxy, also=MODEL_ALIASES)
    proxy["properties"]["provider"] = {"enum": sorted(_provider_names())}
    proxy["required"] = ["provider"]
    authentication = _section(Authentication)
    authentication["patternProperties"] = {f"_({'|'.join(OWN_KEYS)})$": {"type": "string"}}
    parameters = _section(InferenceDefaults)
    parameters["description"] = "`[parameters]`: defaults of requests, and the provider's own."
    parameters["additionalProperties"] = True
    model = _section(Model, also=MODEL_ALIASES)
    model.pop("required")
    del model["properties"]["backend"]
    return _file(
        "A remote model",
        {
            "model": model,
            "proxy": proxy,
            "authentication": authentication,
            "parameters": parameters,
            "deployment": _section(RemoteDeployment),
            "routing": _routing(),
        },
        required=["proxy"],
    )


def _server() -> Schema:
    sections = {
        field.name: _section(field.type)
        for field in msgspec.structs.fields(ServerConfig)
        if isinstance(field.type, type) and issubclass(field.type, Section)
    }
    off = {"type": "object", "properties": {"enabled": {"const": False}}}
    missing = dict.fromkeys(later.SECTIONS, off)
    models = {"type": "array", "items": {"type": "string", "minLength": 1}}
    return _file("A server", {"models": models, **sections, **missing})


def _file(title: str, sections: dict[str, Schema], **more: Any) -> Schema:
    return {
        "$schema": _DRAFT,
        "title": f"SMMF: {title[0].lower()}{title[1:]}'s configuration",
        "type": "object",
        "properties": sections,
        "additionalProperties": False,
        **more,
        "$defs": {"reference": _REFERENCE},
    }


def _section(kind: type[Section], also: Iterable[str] = ()) -> Schema:
    """A section's keys with types, bounds, defaults and comments. `also`: other names of keys."""
    _, parts = msgspec.json.schema_components([kind])
    section: Schema = parts[kind.__name__]
    del section["title"]
    section["description"] = inspect.getdoc(kind)
    comments = _comments(kind)
    for name, key in section["properties"].items():
        section["properties"][name] = _or_reference(key) | comments.get(name, {})
    for name in also:
        section["properties"].setdefault(name, {"type": "string"})
    return section


def _or_reference(key: Schema) -> Schema:
    """Any value may be given by the environment or a file."""
    if key == {"type": "string"} or (key.get("type") == "string" and len(key) == 2):
        return key
    default = {"default": key.pop("default")} if "default" in key else {}
    return {"anyOf": [key, _REFERENCE_HERE], **default}


def _comments(kind: type[Section]) -> dict[str, Schema]:
    """What the source says behind each key."""
    found: dict[str, Schema] = {}
    key = ""
    for line in inspect.getsource(kind).splitlines():
        if start := _KEY.match(line):
            key = start[1]
        if comment := _COMMENT.match(line):
            found[key] = {"description": comment[2]}
    return found


def _named(model: Schema, required: list[str]) -> Schema:
    """[model] with its name under either of its names."""
    named = [{"required": [name]} for name in ("name", "model_name")]
    return model | {"required": required, "anyOf": named}


def _routing() -> Schema:
    routing = _section(Routing)
    routing["properties"]["strategy"]["examples"] = list(STRATEGIES)
    return routing


def _provider_names() -> set[str]:
    names = {other for name, others in PROVIDERS.items() for other in (name, *others)}
    return names | {f"proxy/{name}" for name in names}


def _engine_of(backend: str, is_generate: bool, kind: type[Section]) -> Schema:
    """[engine] under a backend and a task."""
    embeds: Schema = {"task": {"enum": ["embed", "rerank"]}}
    runs: Schema = {"backend": {"const": backend}}
    if is_generate:
        other = {"required": ["task"], "properties": embeds}
        model = {"required": ["backend"], "properties": runs, "not": other}
    else:
        model = {"required": ["backend", "task"], "properties": runs | embeds}
    return {
        "if": {"properties": {"model": model}},
        "then": {"properties": {"engine": _section(kind)}},
    }


def main() -> None:
    folder = bundled("schema")
    folder.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(text_of(schema), "utf-8")


if __name__ == "__main__":
    main()
