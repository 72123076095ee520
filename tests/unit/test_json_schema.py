"""The JSON Schemas for editors: current, and of one mind with the parser."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from smmf_core.config import bundled
from smmf_core.config.json_schema import schemas, text_of
from smmf_core.config.key_pages import page
from smmf_core.config.kinds import kind_of

CONFIGS = bundled("smmf.toml").parent
FILES = sorted(CONFIGS.rglob("*.toml"))
SCHEMAS = schemas()
VALIDATORS = {name: jsonschema.Draft202012Validator(schema) for name, schema in SCHEMAS.items()}


def kind(table: dict[str, Any]) -> str:
    return "proxy" if "proxy" in table else kind_of(table)


def check(name: str, text: str) -> None:
    errors = VALIDATORS[f"{name}.schema.json"].iter_errors(tomllib.loads(text))
    if error := jsonschema.exceptions.best_match(errors):
        raise error


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_files_are_what_the_structs_say(name: str) -> None:
    """Else: python -m smmf_core.config.json_schema"""
    assert (CONFIGS / "schema" / name).read_text("utf-8") == text_of(SCHEMAS[name])
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


def test_the_page_of_keys_is_what_the_structs_say() -> None:
    """Else: python -m smmf_core.config.key_pages"""
    text = (CONFIGS / "KEYS.md").read_text("utf-8")
    assert text == page()
    for key in ("`min_replicas`", "`heartbeat_action`", "`proxy_api_secret`", "`n_gpu_layers`"):
        assert f"\n| {key} |" in text
    for missing in ("failover_wait_s", 'environment = "ray"', "[trace]"):
        assert missing in text.partition("## Of a later release")[2]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_every_file_is_valid_and_names_its_schema(file: Path) -> None:
    text = file.read_text("utf-8")
    name = kind(tomllib.loads(text))
    check(name, text)
    found = re.match(r"#:schema (\S+)\n", text)
    assert found, "its first line names no schema"
    assert (file.parent / found[1]).resolve() == CONFIGS / "schema" / f"{name}.schema.json"


MODEL = '[model]\nname = "m"\nbackend = "echo"\n'
PROXY = '[proxy]\nprovider = "openai"\n'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model", MODEL + '[deployment]\nreplicas = "${env:N}"\nkeep_alive = 300\n'),
        ("model", '[model]\nmodel_name = "m"\nbackend = "a-plug-in"\n[engine]\nx = 1\n'),
        ("model", MODEL + 'task = "embed"\n[engine]\ndimensions = 8\n'),
        ("proxy", PROXY + '[authentication]\nopenai_api_key = "k"\n[parameters]\ntop = 1\n'),
        ("server", '[memory.budget_gib]\n"cuda:0" = 1.5\n[cache]\nenabled = false\n'),
    ],
)
def test_what_the_parser_takes_an_editor_takes(name: str, text: str) -> None:
    check(name, text)


@pytest.mark.parametrize(
    ("name", "text", "path"),
    [
        ("model", MODEL + "[deployment]\nreplica = 2\n", "deployment"),
        ("model", MODEL + "[deployment]\nreplicas = -1\n", "deployment.replicas"),
        ("model", MODEL + "[engine]\nn_ctx = 1\n", "engine"),
        ("model", MODEL + "[engine]\ndimensions = 1\n", "engine"),
        ("model", '[model]\nbackend = "echo"\n', "model"),
        ("model", MODEL + '[deployment]\nenvironment = "ray"\n', "deployment.environment"),
        ("proxy", '[proxy]\nprovider = "opnai"\n', "proxy.provider"),
        ("proxy", PROXY + "[authentication]\napi = 1\n", "authentication"),
        ("server", "[server]\nport = 70000\n", "server.port"),
        ("server", "[memory.budget_gib]\ngpu = 1\n", "memory.budget_gib"),
    ],
)
def test_what_the_parser_refuses_an_editor_marks(name: str, text: str, path: str) -> None:
    with pytest.raises(jsonschema.ValidationError) as caught:
        check(name, text)
    assert ".".join(map(str, caught.value.absolute_path)) == path


def test_an_editor_shows_what_a_key_means() -> None:
    keys = SCHEMAS["model.schema.json"]["properties"]["deployment"]["properties"]
    assert keys["autostart"]["description"] == "False: its first request loads it"
    assert keys["max_concurrency"]["default"] == 16
    assert json.dumps(SCHEMAS)
