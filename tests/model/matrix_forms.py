"""The support matrix's checks of answers in a form: JSON, schemas, calls of tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema
from matrix_checks import HOT, Model, Object, Refused, Row

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "n": {"type": "integer", "maximum": 9}},
    "required": ["city", "n"],
    "additionalProperties": False,
}
FUNCTION = {
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
    },
}  # fmt: skip
OTHER = {"name": "get_time", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": function} for function in (FUNCTION, OTHER)]
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {"node": {
        "type": "object",
        "properties": {
            "leaf": {"type": "boolean"},
            "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
        },
        "required": ["leaf", "next"],
        "additionalProperties": False,
    }},
}  # fmt: skip
AS_JSON = "Answer as JSON: Ada from Utrecht is 36"
SCHEMA_PARAM = "response_format.json_schema.schema"
WEATHER = "What is the weather in Paris?"
VALIDATOR = jsonschema.Draft202012Validator
FORMATS = VALIDATOR.FORMAT_CHECKER


def json_object(m: Model) -> None:
    assert isinstance(json.loads(m.text(AS_JSON, response_format={"type": "json_object"},
                                        max_tokens=200)), dict)  # fmt: skip


def form_of(schema: Any) -> Object:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}


def json_schema(m: Model) -> None:
    reasons = []
    for field in ({"temperature": 0}, HOT):
        found = m.choice(response_format=form_of(SCHEMA), max_tokens=100, **field)
        reasons.append(found["finish_reason"])
        if found["finish_reason"] == "stop":  # white space may fill an answer up to its length
            jsonschema.validate(json.loads(found["message"]["content"]), SCHEMA)
    assert reasons[0] == "stop"
    assert set(reasons) <= {"stop", "length"}


def follows(*schemas: Any) -> Callable[[Model], None]:
    """Answers that ended by themselves are instances; one at least did."""

    def check(m: Model) -> None:
        for schema in schemas:
            ended = 0
            for field in ({"temperature": 0}, HOT):
                found = m.choice(AS_JSON, response_format=form_of(schema), max_tokens=60, **field)
                if found["finish_reason"] == "stop":
                    VALIDATOR(schema, format_checker=FORMATS).validate(
                        json.loads(found["message"]["content"])
                    )
                    ended += 1
            assert ended

    return check


def an_object(**properties: Any) -> Object:
    return {"type": "object", "properties": properties, "required": [*properties],
            "additionalProperties": False}  # fmt: skip


BAD_SCHEMAS: list[Any] = [
    an_object(a={"not": {}}),
    an_object(a={"type": "string", "pattern": "(?=a)b"}),
    an_object(a={"$ref": "https://example.com/a"}),
    an_object(a={"$ref": "#/$defs/none"}),
    an_object(a={"type": "text"}),
    an_object(a={"type": "array", "contains": {}}),
    an_object(a={"enum": []}),
    an_object(a={"type": "string", "minLength": 3, "maxLength": 2}),
]


def refused_schema(m: Model) -> None:
    """Whole or streamed, before anything is computed."""
    refusals = []
    for schema in BAD_SCHEMAS:
        for ask in (m.chat, m.stream):
            try:
                ask(response_format=form_of(schema))
            except Refused as error:
                refusals.append(error)
    assert len(refusals) == 2 * len(BAD_SCHEMAS)
    assert {(error.status, error.param) for error in refusals} == {(400, SCHEMA_PARAM)}
    raise refusals[0]


def calls(m: Model, **fields: Any) -> tuple[list[Object], str]:
    found = m.choice(WEATHER, tools=TOOLS, max_tokens=200, **fields)
    return found["message"].get("tool_calls", []), found["finish_reason"]


def tools_auto(m: Model) -> None:
    (call,), reason = calls(m)
    assert (call["type"], call["function"]["name"], reason) == (
        "function", "get_weather", "tool_calls",
    )  # fmt: skip
    jsonschema.validate(json.loads(call["function"]["arguments"]), FUNCTION["parameters"])
    assert len(call["id"]) > 9


def tools_required(m: Model) -> None:
    found, reason = calls(m, tool_choice="required", temperature=1.5, seed=4)
    assert found
    assert {call["function"]["name"] for call in found} <= {"get_weather", "get_time"}
    assert all(json.loads(call["function"]["arguments"]) is not None for call in found)
    assert reason == "tool_calls"


def tools_named(m: Model) -> None:
    named = {"type": "function", "function": {"name": "get_time"}}
    (call,), reason = calls(m, tool_choice=named)
    assert (call["function"]["name"], reason) == ("get_time", "stop")


def tools_allowed(m: Model) -> None:
    allowed = {
        "mode": "required",
        "tools": [{"type": "function", "function": {"name": "get_time"}}],
    }
    found, _ = calls(m, tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert {call["function"]["name"] for call in found} == {"get_time"}


def tools_none(m: Model) -> None:
    found, reason = calls(m, tool_choice="none")
    assert not found
    assert reason != "tool_calls"


def one_call(m: Model) -> None:
    found, _ = calls(m, tool_choice="required", parallel_tool_calls=False)
    assert len(found) == 1


FORMS = [
    Row("response_format: json_object", json_object, ""),
    Row("response_format: json_schema", json_schema, "answers keep to it, whatever is drawn"),
    Row("json_schema: $ref, $defs", follows(TREE), "recursive, too", SCHEMA_PARAM),
    Row("json_schema: enum, const", follows(
        an_object(a={"enum": ["gr\u00fcn", 7, None, {"b": [1]}]}, b={"const": "x"})), "",
        SCHEMA_PARAM),
    Row("json_schema: anyOf, lists of types", follows(
        an_object(a={"anyOf": [{"type": "integer"}, an_object(b={"type": "null"})]},
                  c={"type": ["boolean", "null"]})), "", SCHEMA_PARAM),
    Row("json_schema: allOf", follows(
        {"type": "object", "allOf": [{"properties": {"a": {"type": "integer"}}},
                                     {"required": ["a"]}]}), "", SCHEMA_PARAM),
    Row("json_schema: minimum, maximum of integers", follows(
        an_object(a={"type": "integer", "minimum": 37, "exclusiveMaximum": 4112})), "",
        SCHEMA_PARAM),
    Row("json_schema: minimum, maximum of numbers", follows(
        an_object(a={"type": "number", "exclusiveMinimum": 0, "maximum": 1.5})), "",
        SCHEMA_PARAM),
    Row("json_schema: multipleOf", follows(
        an_object(a={"type": "integer", "multipleOf": 7})), "", SCHEMA_PARAM),
    Row("json_schema: minLength, maxLength", follows(
        an_object(a={"type": "string", "minLength": 2, "maxLength": 5})), "", SCHEMA_PARAM),
    Row("json_schema: pattern", follows(
        an_object(a={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$"})), "", SCHEMA_PARAM),
    Row("json_schema: format", follows(
        an_object(a={"type": "string", "format": "date"})), "dates, times, email, uuid, ipv4",
        SCHEMA_PARAM),
    Row("json_schema: minItems, maxItems", follows(
        an_object(a={"type": "array", "items": {"type": "boolean"}, "minItems": 2,
                     "maxItems": 3})), "", SCHEMA_PARAM),
    Row("json_schema: prefixItems", follows(
        an_object(a={"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}],
                     "items": False, "minItems": 2})), "", SCHEMA_PARAM),
    Row("json_schema: additionalProperties", follows(
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
         "additionalProperties": {"type": "boolean"}}), "of a schema", SCHEMA_PARAM),
    Row("json_schema: what no backend follows", refused_schema, "before generation",
        SCHEMA_PARAM),
    Row("tools, tool_choice: auto", tools_auto, ""),
    Row("tool_choice: required", tools_required, "by a grammar"),
    Row("tool_choice: a function", tools_named, "finish reason `stop`, as OpenAI's"),
    Row("tool_choice: allowed_tools", tools_allowed, ""),
    Row("tool_choice: none", tools_none, ""),
    Row("parallel_tool_calls: false", one_call, "one call at most"),
]  # fmt: skip
