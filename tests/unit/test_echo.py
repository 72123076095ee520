"""The echo engine: deterministic, paced on a grid, schema-valid when structure is asked for."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_worker_core import Rig, failure, text_of

from smmf_core import messages as m
from smmf_core.engines.echo.engine import EchoTokenizer
from smmf_core.engines.echo.schema_example import example

SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 9, "maxLength": 12},
            "age": {"type": "integer", "minimum": 18, "multipleOf": 5},
            "score": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "when": {"type": "string", "format": "date-time"},
            "kind": {"enum": ["x", "y"]},
            "fixed": {"const": 7},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "maybe": {"type": ["null", "string"]},
            "ok": {"type": "boolean"},
        },
        "required": [
            "name", "age", "score", "when", "kind", "fixed", "tags", "maybe", "ok",
        ],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
        "required": ["next"],
    },
    {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"type": "boolean"}],
        "items": {"type": "null"},
        "minItems": 3,
    },
    {
        "type": "object",
        "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}}}},
        "properties": {"p": {"$ref": "#/$defs/point"}, "q": {"allOf": [{"type": "integer"}]}},
        "required": ["p", "q"],
    },
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS)
def test_examples_are_valid(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema).validate(example(schema))


@pytest.mark.parametrize("schema", SCHEMAS)
def test_answers_follow_a_json_schema_and_stop(schema: dict[str, Any]) -> None:
    rig = Rig()
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    rig.submit(response_format=form)
    records = rig.run()
    jsonschema.Draft202012Validator(schema).validate(json.loads(text_of(records)))
    assert [r[4] for r in records if r[0] == m.CHOICE_END] == [m.STOP]


def test_json_objects_are_objects() -> None:
    rig = Rig()
    rig.submit(response_format={"type": "json_object"})
    assert json.loads(text_of(rig.run())) == {}


def test_tools_are_called_with_valid_arguments() -> None:
    rig = Rig()
    tools = [
        {"type": "function", "function": {"name": f"f{n}", "parameters": schema}}
        for n, schema in enumerate(SCHEMAS)
    ]
    choice = {"type": "function", "function": {"name": "f1"}}
    rig.submit(tools=tools, tool_choice=choice)
    found = re.fullmatch(r"<tool_call>\n(.*)\n</tool_call>", text_of(rig.run()))
    assert found is not None
    call = json.loads(found[1])
    assert call["name"] == "f1"
    jsonschema.Draft202012Validator(SCHEMAS[1]).validate(call["arguments"])


@given(st.text())
def test_the_tokenizer_keeps_any_text(text: str) -> None:
    tokenizer = EchoTokenizer()
    ids = tokenizer.encode(text, add_special=False)
    raw = b"".join(map(tokenizer.token_bytes, ids))
    assert raw == text.encode("utf-8", "replace")
    assert all(0 <= token < tokenizer.vocab_size for token in ids)


def test_equal_requests_get_equal_answers() -> None:
    texts = set()
    for seed in (1, 2):
        rig = Rig(tokens=20)
        rig.submit(sampling={"seed": seed})
        texts.add(text_of(rig.run()))
    assert len(texts) == 1


def test_min_tokens_delay_the_natural_end() -> None:
    rig = Rig(tokens=2)
    rig.submit(sampling={"min_tokens": 7})
    assert sum(r[4] for r in rig.run() if r[0] == m.TOKENS) == 7


@pytest.mark.parametrize("setting", [{"fail": "crash"}, {"fail": "error:x"}, {"tokens": 0}])
def test_wrong_settings_are_named(setting: dict[str, Any]) -> None:
    rig = Rig()
    rig.submit(echo=setting)
    assert failure(rig.core.out[(0, 1)]).param == "smmf_echo"


def test_sequences_of_one_rate_step_together() -> None:
    rig = Rig(tokens=3, step_ms=50)
    for key in (1, 2, 3):
        rig.submit(key=key)
    rig.engine.add(rig.core.admit(0.0))
    due = {state.due for state in rig.engine._running.values()}
    assert len(due) == 1
    assert rig.engine.ready_at(0.0) == due.pop()


def test_a_load_failure_raises() -> None:
    with pytest.raises(RuntimeError, match="told to fail its load"):
        Rig(fail="load").engine.load(lambda done: None)
