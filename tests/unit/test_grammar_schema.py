"""Which JSON schemas answers can be held to: refused by name and place, bounded in size."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from smmf_core.engines.grammar.keywords import SchemaError
from smmf_core.engines.grammar.schema import check_schema, prepared

STRING = {"type": "string"}


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = STRING
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {},
        an_object(a=STRING, b={"type": ["integer", "null"]}),
        an_object(**{"not": STRING, "if": STRING, "uniqueItems": STRING}),  # names, not keywords
        {"type": "array", "items": STRING, "uniqueItems": False},
        {"$defs": {"a": STRING}, "$ref": "#/$defs/a"},
        {"$ref": "#", "title": "t", "examples": [{"not": 1}], "default": {"if": 2}},
        {"type": "string", "format": "password"},
        {"type": "number", "multipleOf": 0.25},
        {"type": "integer", "multipleOf": 1_000_000},
        {"type": "string", "pattern": r"^(\+\d{1,3} )?[0-9() -]{4,20}$"},
        {"prefixItems": [STRING, True], "items": False},
        nested(40),
    ],
)
def test_what_is_taken(schema: Any) -> None:
    check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (an_object(a={"not": STRING}), "the keyword 'not' at 'properties.a' is not supported"),
        ({"if": {}, "then": {}}, "the keyword 'if' is not supported"),
        ({"type": "array", "uniqueItems": True}, "'uniqueItems'"),
        ({"anyOf": [STRING, {"contains": STRING}]}, "'contains' at 'anyOf.1'"),
        ({"$defs": {"x": {"propertyNames": {}}}}, r"'propertyNames' at '\$defs.x'"),
        ({"items": {"dependentRequired": {}}}, "'dependentRequired' at 'items'"),
        ({"unevaluatedProperties": False}, "'unevaluatedProperties'"),
        ({"type": "thing"}, "unknown type 'thing'; there are object, array"),
        ({"type": ["string", 7]}, "unknown type 7"),
        ({"enum": []}, "'enum' must be a list that is not empty"),
        ({"anyOf": {}}, "'anyOf' must be a list"),
        ({"properties": []}, "'properties' must be an object"),
        ({"properties": {"a": 3}}, "a schema at 'properties.a' must be an object"),
        ({"required": [1]}, "'required' must be a list of names"),
        ({"pattern": 7}, "'pattern' must be a string"),
        ({"minLength": -1}, "'minLength' must be a number of things"),
        ({"minItems": 3, "maxItems": 2}, "'maxItems' is below 'minItems'"),
        ({"minimum": "3"}, "'minimum' must be a number"),
        ({"$ref": "https://example.com/x"}, "only references into the schema itself"),
        ({"$ref": "#/$defs/x"}, "the schema has nothing at"),
        ({"multipleOf": 0}, "'multipleOf' must be a number above 0"),
        ({"multipleOf": 99_991}, "'multipleOf'"),
        ({"multipleOf": float("inf")}, "'multipleOf'"),
        ({"pattern": "(a{1000}){1000}"}, "the repetitions of a 'pattern' multiply"),
        ({"pattern": "((a{50}b){50})" * 2}, "the repetitions of a 'pattern' multiply"),
        ({"patternProperties": {"^a{9999}$": {}}}, "the repetitions of a 'pattern' multiply"),
        (nested(60), "nested more than 48"),
        ({"properties": {f"p{n}": {} for n in range(300)}}, "more than 256 optional"),
        (an_object(**{f"p{n}": STRING for n in range(1100)}), "more than 1000 schemas"),
        ({"const": "x" * 140_000}, "it has 140012 bytes"),
        ([], "a schema must be an object"),
    ],
)
def test_what_is_refused_by_its_name_and_place(schema: Any, words: str) -> None:
    for strict in (False, True):
        with pytest.raises(SchemaError, match=words) as caught:
            check_schema(schema, strict)
        assert len(str(caught.value)) < 400


def test_a_format_that_is_not_known_is_a_remark_unless_strict() -> None:
    schema = an_object(a={"type": "string", "format": "zorp"})
    check_schema(schema)
    assert "format" not in prepared(schema)["properties"]["a"]
    with pytest.raises(SchemaError, match=r"format 'zorp' at 'properties\.a' is not supported"):
        check_schema(schema, strict=True)


def test_values_nested_too_deeply() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(SchemaError, match="nested too deeply"):
        check_schema({"const": value})


def test_limits_hold_where_keywords_are_let_pass() -> None:
    check_schema({"not": {}}, limits_only=True)
    with pytest.raises(SchemaError, match="nested more than"):
        check_schema(nested(60), limits_only=True)


def test_objects_are_closed_where_that_is_left_open() -> None:
    schema = an_object(a=an_object(b=STRING), c={"type": "array", "items": an_object(d=STRING)})
    closed = prepared(schema)
    assert "additionalProperties" not in schema["properties"]["a"]
    inner = (closed, closed["properties"]["a"], closed["properties"]["c"]["items"])
    assert [part["additionalProperties"] for part in inner] == [False, False, False]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"allOf": [an_object(a=STRING), an_object(b=STRING)]}, {"a": "", "b": ""}),
        ({**an_object(a=STRING), "anyOf": [an_object(b=STRING), {}]}, {"a": "", "b": ""}),
        ({"$defs": {"x": an_object(b={})}, "$ref": "#/$defs/x", "required": ["a"]},
         {"a": 1, "b": 1}),
        ({"properties": {"a": STRING}, "required": ["b"]}, {"b": 1}),
        ({"properties": {"a": STRING}, "minProperties": 2}, {"a": "", "b": 1}),
        ({"properties": {"a": STRING}, "additionalProperties": True}, {"b": 1}),
        ({"properties": {"a": STRING}, "patternProperties": {"^b": STRING}}, {"b": ""}),
    ],
)  # fmt: skip
def test_objects_stay_open_where_another_part_may_name_more(schema: Any, value: Any) -> None:
    jsonschema.validate(value, schema)
    jsonschema.validate(value, prepared(schema))
