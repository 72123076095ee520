"""The OpenAPI document: valid, complete, and in step with the code beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from smmf_core.api import openai
from smmf_core.api.describe.document import FIELDS, document
from smmf_core.api.describe.operations import OPERATIONS
from smmf_core.config import ServerConfig
from smmf_core.errors import ApiError
from smmf_core.http.routes import Routes

OTHERS = {  # a sign of life in plain text, and what is never done here
    "/", "/api/push", "/api/create", "/api/copy", "/api/delete",
}  # fmt: skip
DOCUMENT: dict[str, Any] = json.loads(document())
USER = {"role": "user", "content": "hi"}


def test_it_is_valid() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"] == "3.1.0"


def _names(path: str) -> set[str]:
    """The names that a route's path may have in the document."""
    bare = path.removeprefix("/api/v1").removeprefix("/v1")
    return {path, path.removeprefix("/api"), f"/v1{bare}", bare}


def test_every_route_is_described_and_no_other() -> None:
    routes = Routes(None, ServerConfig())._routes  # type: ignore[arg-type]
    described = {path: set(methods) for path, methods in DOCUMENT["paths"].items()}
    for path, (method, _) in routes.items():
        if path not in OTHERS:
            known = _names(path) & set(described)
            assert known, path
            assert all(described[name] == {method.lower()} for name in known)
    assert {path for path in described if "{" not in path} <= set(routes)


def test_operations_have_their_own_names() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)


def test_rules_are_of_fields_that_there_are() -> None:
    for kind, fields in FIELDS.items():
        assert set(fields) <= set(kind.__struct_fields__)


def test_names_tell_dialects_apart() -> None:
    names = set(DOCUMENT["components"]["schemas"])
    assert {"ChatBody", "OllamaChatBody", "Response", "Message"} <= names
    assert not [name for name in names if "." in name or name.startswith("_")]


def test_what_needs_a_key_says_so() -> None:
    assert DOCUMENT["security"][0] == {"bearer": []}
    for path, methods in DOCUMENT["paths"].items():
        is_open = path in ("/health", "/v1/health", "/ready", "/metrics", "/openapi.json")
        for operation in methods.values():
            assert (operation.get("security") == []) == is_open, path


def _validator(name: str) -> Draft202012Validator:
    reference = {"$ref": f"#/components/schemas/{name}"}
    return Draft202012Validator({**reference, "components": DOCUMENT["components"]})


def _read(body: dict[str, Any]) -> None:
    decoded = openai.parse(openai.CHAT, json.dumps(body).encode())
    openai.parse_require(decoded.smmf)
    openai.finish(decoded, {})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0, "stop": ["a"], "seed": -(2**63), "logit_bias": {"5": -100}},
        {"messages": [{"role": "assistant", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
        {"keep_alive": "1h30m", "smmf": {"require": {"tools": True, "max_cost": 0.5}}},
        {"unknown": 1, "tools": [], "user": None},
    ],
)  # fmt: skip
def test_good_chats_are_good_to_both(fields: dict[str, Any]) -> None:
    body = {"model": "echo", "messages": [USER], **fields}
    _validator("ChatBody").validate(body)
    _read(body)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 2.1}, {"n": 0}, {"n": 129}, {"max_tokens": 0}, {"stop": list("abcde")},
        {"messages": []}, {"messages": [{"role": "nobody", "content": ""}]},
        {"messages": [{"role": "tool", "content": ""}]}, {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
        {"tools": [{"type": "function", "function": {"name": "a b"}}]},
        {"response_format": {"type": "xml"}}, {"modalities": ["audio"]},
        {"functions": [{"name": "f"}]}, {"keep_alive": "soon"}, {"logit_bias": {"a": 1}},
        {"smmf": {"require": {"speed": 1}}}, {"reasoning_effort": "some"}, {"model": ""},
    ],
    ids=str,
)  # fmt: skip
def test_bad_chats_are_bad_to_both(fields: dict[str, Any]) -> None:
    body = {"model": "echo", "messages": [USER], **fields}
    assert not _validator("ChatBody").is_valid(body)
    with pytest.raises(ApiError) as caught:
        _read(body)
    assert caught.value.status == 400
    assert caught.value.param


def test_a_router_starts_without_it() -> None:
    """It is made at the first question, and costs nothing before."""
    code = "import sys, smmf_core.router.main; print('smmf_core.api.describe' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"
