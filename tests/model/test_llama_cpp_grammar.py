"""Answers bound to a grammar: what each schema accepts, and that sampled answers keep to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from driver import Run
from gguf_models import accepts, make_gguf, open_llama

from configs.demo.export.to_gguf import export
from smmf_core.config import bundled
from smmf_core.engines.base import Sequence
from smmf_core.engines.grammar.form import SCHEMA_PARAM
from smmf_core.engines.llama_cpp.engine import LlamaCppEngine
from smmf_core.engines.llama_cpp.gbnf import Grammar, SchemaError
from smmf_core.engines.llama_cpp.gbnf_numbers import integer_range
from smmf_core.engines.llama_cpp.gbnf_pattern import pattern_rule
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling, Submit

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "age": {"type": "integer", "minimum": 3, "maximum": 120},
        "tags": {
            "type": "array",
            "items": {"enum": ["a", "b", None]},
            "minItems": 1,
            "maxItems": 3,
        },
        "height": {"type": ["number", "null"]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "leaf": {"type": "boolean"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["leaf", "next"],
        }
    },
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppEngine]:
    engine = open_llama(make_gguf(tmp_path_factory.mktemp("tiny"), max_position_embeddings=2048))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppEngine]:
    target: Path = tmp_path_factory.mktemp("demo") / "demo.gguf"
    engine = open_llama(export(bundled("demo"), target, "f32"))
    yield engine
    engine.close()


def grammar_of(schema: Any, strict: bool = False) -> str:
    grammar = Grammar()
    return grammar.text(grammar.schema(schema, strict))


def submit(schema: Any = None, *, strict: bool = False, **fields: Any) -> Submit:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": strict}}
    fields = {"response_format": None if schema is None else form, **fields}
    message = {"role": "user", "content": "Make a JSON object of name = Ada and age = 36."}
    sampling = fields.pop("sampling", Sampling(temperature=0.0))
    return Submit(1, 0, "r", "m", True, 1, [message], None, sampling, **fields)


def answer(engine: LlamaCppEngine, asked: Submit, tokens: int = 200, emitted: Any = ()) -> str:
    """The text of the answer, up to its end; "..." when it did not end."""
    engine.spec.check(asked)
    ids = engine.spec.tokenizer.encode(engine.spec.chat_template.render(asked), False)
    run = Run(engine)
    one = Sequence(1, [*ids, *emitted], len(ids), asked.sampling, tokens, asked)
    run.join(one)
    while one.id in run._open:
        run.step()
        if run.outputs[1] and run.outputs[1][-1].ended:
            run.leave(1)
    assert all(output.error is None for output in run.outputs[1]), run.outputs[1][-1].error
    tokens_ = [*emitted, *run.tokens(1)]
    text = b"".join(map(engine.spec.tokenizer.token_bytes, tokens_)).decode("utf-8", "replace")
    return text if run.outputs[1][-1].ended else text + "..."


# --- what a grammar accepts ---


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (PERSON, ['{"name": "Ada", "age": 36}', '{"name":"A","age":3,"tags":["a",null]}',
                  '{\n  "name": "x",\n  "age": 120,\n  "height": -1.5e3\n}'],
         ['{"age": 36, "name": "Ada"}', '{"name": "", "age": 36}', '{"name": "Ada", "age": 2}',
          '{"name": "Ada", "age": 121}', '{"name": "Ada"}', '{"name": "Ada", "age": 36, "x": 1}',
          '{"name": "Ada", "age": 36, "tags": []}', '{"name": "Ada", "age": 03}', "[]",
          '{"name": "Ada", "age": 36} ']),
        (TREE, ['{"leaf": true, "next": {"leaf": false, "next": null}}'],
         ['{"leaf": true, "next": {"leaf": false}}', '{"leaf": 1, "next": null}']),
        ({"type": "string"}, ['""', '"a\\n\\u00e9\\"\u00e9\u4f60"'], ['"\n"', '"\\x"', "a", '"']),
        ({"type": "number"}, ["0", "-0.5", "12e-3"], ["01", ".5", "1.", "+1"]),
        ({"type": "number", "exclusiveMinimum": 0}, ["0.5"], ["-1"]),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"const": {"a": 'q"'}}]},
         ['[1, {"a": "q\\""}]'], ["[1]", '[1, {"a": "q"}]']),
        ({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}},
         ["[1]", "[1, 2, 2]"], ["[]", "[1, 1]"]),
        ({"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
        ({"type": "array", "minItems": 2}, ["[1, true]", "[1,2,{}]"], ["[1]"]),
        ({"type": "object", "additionalProperties": {"type": "integer"}},
         ["{}", '{"a": 1, "b": 2}'], ['{"a": "x"}', '{"a": 1,}']),
        ({"properties": {"a": {}, "b": {}}, "additionalProperties": {"const": 0}},
         ["{}", '{"a": [1]}', '{"b": {}}', '{"a": 1, "b": 2, "c": 0}', '{"c": 0}'],
         ['{"c": 1}', '{"b": 1, "a": 1}']),
        ({"properties": {"a": {}, "b": {}, "c": {}}, "required": ["b"]},
         ['{"b": 1}', '{"a": 1, "b": 1}', '{"b": 1, "c": 1}'], ["{}", '{"a": 1}', '{"c": 1}']),
        ({"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]},
                    {"$ref": "#/$defs/b"}], "$defs": {"b": {"properties": {"b": {"const": 2}}}}},
         ['{"a": 1}', '{"a": 1, "b": 2}'], ['{"b": 2}']),
        ({"type": "object", "properties": {"k": {"type": "string"}, "v": {}}, "required": ["k"],
          "anyOf": [{"required": ["v"]}, {"properties": {"k": {"const": "none"}}}]},
         ['{"k": "x", "v": 1}', '{"k": "none"}'], ['{"k": "x"}']),
        ({"oneOf": [{"type": "integer"}, {"type": "boolean"}]}, ["1", "false"], ["null"]),
        ({"type": "string", "format": "date"}, ['"2024-02-30"'], ['"2024-13-01"', '"24-01-01"']),
        ({"type": "string", "format": "date-time"}, ['"2024-01-31T12:00:00.5+01:00"'],
         ['"2024-01-31 12:00"']),
        ({"type": "string", "format": "uuid"}, ['"01234567-89ab-cdef-0123-456789abcdef"'],
         ['"0123"']),
        ({"type": "string", "format": "ipv4"}, ['"127.0.0.255"'], ['"256.0.0.1"']),
        ({"type": "string", "format": "email"}, ['"a.b@example.com"'], ['"a@b"']),
        ({"type": "string", "format": "nonsense", "maxLength": 2}, ['"ab"'], ['"abc"']),
        ({"type": "string", "maxLength": 100_000}, ['"ab"'], ["1"]),
        (True, ["1", '{"a": [null]}'], ["x"]),
        ({}, ["true"], [""]),
    ],
)  # fmt: skip
def test_schemas(engine: LlamaCppEngine, schema: Any, good: list[str], bad: list[str]) -> None:
    grammar = grammar_of(schema)
    assert [text for text in good if not accepts(engine, grammar, text)] == []
    assert [text for text in bad if accepts(engine, grammar, text)] == []


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 9), (3, 120), (-5, 5), (-120, -17), (99, 1001), (0, 0), (10, 10), (987, 1234), (-1, 100)],
)
def test_integer_ranges(engine: LlamaCppEngine, low: int, high: int) -> None:
    grammar = f"root ::= {integer_range(low, high)}\n"
    around = {*range(low - 12, low + 12), *range(high - 12, high + 12), 0, 50, 500, 1000}
    for number in sorted(around):
        assert accepts(engine, grammar, str(number)) == (low <= number <= high), number
    assert not accepts(engine, grammar, "-0")


def test_open_integer_ranges(engine: LlamaCppEngine) -> None:
    for low, high, inside, outside in ((17, None, 10**12, 16), (None, -3, -(10**12), -2)):
        grammar = f"root ::= {integer_range(low, high)}\n"
        assert accepts(engine, grammar, str(inside))
        assert not accepts(engine, grammar, str(outside))
    with pytest.raises(ValueError, match="No integer lies between"):
        integer_range(5, 4)


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"^[a-c]{2}-\d+$", ["ab-1", "cc-123"], ["ad-1", "ab-", "xab-1"]),
        (r"^(foo|ba[rz])?$", ["", "foo", "baz"], ["foobar"]),
        (r"^a", ["a", "abc"], ["ba", ""]),
        (r"z$", ["z", "xyz"], ["zy"]),
        (r"needle", ["needle", "a needle b"], ["need"]),
        (r"^[^0-9\s]+$", ["ab"], ["a1", "a b"]),
        (r"^\w+@\w+\.(?:com|org)$", ["a_1@b.org"], ["a@b_com"]),
        (r"^.{2,3}$", ["ab", "abc"], ["a", "abcd"]),
        (r"^a|b$", ["ax", "xb"], ["xa"]),
        (r"^\+?[1-9][0-9]{1,3}$", ["+12", "4321"], ["012", "+1"]),
        (r"^\D\W\S*?$", ["a-", "a-b"], ["1-"]),
        (r"^[+\-.\]]$", ["-", "]", "."], ["a"]),
        (r'^"\\$', ['\\"\\\\'], ['"']),
    ],
)
def test_patterns(engine: LlamaCppEngine, pattern: str, good: list[str], bad: list[str]) -> None:
    grammar = grammar_of({"type": "string", "pattern": pattern}, strict=True)
    assert [text for text in good if not accepts(engine, grammar, f'"{text}"')] == []
    assert [text for text in bad if accepts(engine, grammar, f'"{text}"')] == []


@pytest.mark.parametrize(
    "pattern", ["(?=a)", r"\bword", "(a", "[a", "a{x}", "*a", "a$b", "(^a)", r"(a)\1", "a)", "[]"]
)
def test_patterns_without_a_grammar(pattern: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        pattern_rule(pattern)
    with pytest.raises(SchemaError, match="has no grammar"):
        grammar_of({"type": "string", "pattern": pattern}, strict=True)
    assert "char" in grammar_of({"type": "string", "pattern": pattern})


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "thing"}, "unknown type"),
        ({"$ref": "#/nowhere"}, "nothing at '#/nowhere'"),
        ({"$ref": "https://example.com/x"}, "references into the schema itself"),
        ({"enum": []}, "'enum' must be a list"),
        ({"anyOf": {}}, "'anyOf' must be a list"),
        ({"type": "array", "items": 7}, "at .items. must be an object"),
        ({"properties": []}, "'properties' must be an object"),
        ({"properties": {"a": {}}, "required": ["b"]}, "'b' is not among"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "is below"),
        ({"type": "string", "minLength": "3"}, "must be a number of things"),
        ({"type": "string", "minLength": 5000}, "may be at most"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "No integer lies"),
        ({"type": "integer", "minimum": "3"}, "'minimum' must be a number"),
    ],
)
def test_wrong_schemas(engine: LlamaCppEngine, schema: Any, words: str) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        engine.spec.check(submit(schema))
    assert (caught.value.status, caught.value.param) == (400, SCHEMA_PARAM)


def test_keywords_that_are_not_followed_are_refused_when_strict() -> None:
    for schema in ({"not": {}}, {"type": "array", "uniqueItems": True}, {"if": {}}):
        assert grammar_of(schema)
        with pytest.raises(SchemaError, match="is not supported"):
            grammar_of(schema, strict=True)


def test_bounds_of_numbers_are_refused_when_strict() -> None:
    """GBNF has no rule for them; those of integers, and that it is not negative, hold."""
    Grammar().schema({"type": "number", "minimum": 0}, strict=True)
    Grammar().schema({"type": "integer", "maximum": 5}, strict=True)
    Grammar().schema({"type": "number", "maximum": 1.5})
    for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        with pytest.raises(SchemaError, match=f"'{keyword}' of a number"):
            Grammar().schema({"type": "number", keyword: 1.5}, strict=True)


def test_a_schema_that_is_nested_too_deeply() -> None:
    schema: Any = {"type": "integer"}
    for _ in range(3000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(SchemaError, match="nested too deeply"):
        grammar_of(schema)


# --- answers ---


def test_the_demo_model_fills_a_schema(demo: LlamaCppEngine) -> None:
    found = json.loads(answer(demo, submit(PERSON, strict=True)))
    jsonschema.validate(found, PERSON)


@pytest.mark.parametrize("schema", [PERSON, TREE, {"type": "array", "items": {"type": "boolean"}}])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_random_weights_keep_to_the_schema(
    engine: LlamaCppEngine, schema: Any, temperature: float
) -> None:
    ended = 0
    for seed in range(4):
        sampling = Sampling(temperature=temperature, seed=seed)
        text = answer(engine, submit(schema, sampling=sampling), 300)
        if not text.endswith("...") and "\ufffd" not in text:  # llama.cpp takes any bytes
            jsonschema.validate(json.loads(text), schema)
            ended += 1
    assert ended or temperature == 0


def test_greedy_is_the_best_of_what_is_allowed(engine: LlamaCppEngine) -> None:
    """Trying the most likely token first changes nothing."""
    plain = answer(engine, submit(PERSON), 60)
    slow = Sampling(temperature=0.0, logit_bias={300: 0.0})  # every row is masked first
    assert answer(engine, submit(PERSON, sampling=slow), 60) == plain


def test_json_object(demo: LlamaCppEngine) -> None:
    found = answer(demo, submit(response_format={"type": "json_object"}))
    assert isinstance(json.loads(found), dict)


def test_an_answer_that_is_complete_ends(engine: LlamaCppEngine) -> None:
    """Whatever `min_tokens` and `ignore_eos` say: nothing else is allowed."""
    sampling = Sampling(temperature=1.0, min_tokens=50, ignore_eos=True)
    assert answer(engine, submit({"const": [1, 2]}, sampling=sampling)) == "[1, 2]"


def test_goes_on_from_tokens_of_another_worker(demo: LlamaCppEngine) -> None:
    asked = submit(PERSON)
    whole = answer(demo, asked)
    emitted = demo.spec.tokenizer.encode(whole, False)[:5]
    assert answer(demo, asked, emitted=emitted) == whole


def test_tokens_of_another_worker_that_break_the_grammar(demo: LlamaCppEngine) -> None:
    asked = submit(PERSON)
    run = Run(demo)
    run.join(Sequence(1, [0, 5, 6, 7], 2, asked.sampling, 9, asked))
    run.finish()
    assert "does not follow the response format" in str(run.outputs[1][0].error)


def test_beside_answers_that_are_free(engine: LlamaCppEngine) -> None:
    from driver import make_sequence

    alone = Run(engine)
    alone.join(make_sequence(5, [0, 9], 12, temperature=0.0))
    alone.finish()
    run = Run(engine)
    asked = submit(TREE)
    run.join(Sequence(1, [0, 5], 2, asked.sampling, 12, asked))
    run.join(make_sequence(5, [0, 9], 12, temperature=0.0))
    run.finish()
    assert run.tokens(5) == alone.tokens(5)


# --- tools ---

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "required": ["city"],
        "properties": {"city": {"enum": ["Rome", "Oslo"]}}}}}
    for name in ("get_weather", "get_time")
]  # fmt: skip


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"get_weather", "get_time"}),
        ({"type": "function", "function": {"name": "get_time"}}, {"get_time"}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
                {"type": "function", "function": {"name": "get_time"}}]}},
            {"get_time"},
        ),
    ],
)  # fmt: skip
def test_a_call_that_is_forced(demo: LlamaCppEngine, choice: Any, names: set[str]) -> None:
    for seed in range(3):
        sampling = Sampling(temperature=1.5, seed=seed)
        text = answer(demo, submit(tools=TOOLS, tool_choice=choice, sampling=sampling), 400)
        for line in text.removesuffix("...").split("\n<tool_call>"):
            if not line.endswith("</tool_call>"):
                continue
            call = json.loads(line.removeprefix("<tool_call>").removesuffix("</tool_call>"))
            assert call["name"] in names
            assert call["arguments"]["city"] in ("Rome", "Oslo")


def test_no_call_is_forced_by_itself(engine: LlamaCppEngine) -> None:
    grammars = engine._loaded.grammars
    for choice in (None, "auto", "none"):
        assert grammars.text(submit(tools=TOOLS, tool_choice=choice)) == ""


def test_a_call_or_the_format(engine: LlamaCppEngine) -> None:
    grammar = engine._loaded.grammars.text(submit(PERSON, tools=TOOLS, tool_choice="auto"))
    call = '<tool_call>{"name": "get_time", "arguments": {"city": "Rome"}}</tool_call>'
    assert accepts(engine, grammar, call)
    assert accepts(engine, grammar, '{"name": "Ada", "age": 36}')
    bound = engine._loaded.grammars.text(submit(PERSON, tools=TOOLS, tool_choice="none"))
    assert not accepts(engine, bound, call)


def test_wrong_parameters_of_a_tool(engine: LlamaCppEngine) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/x"}}}]
    with pytest.raises(ApiError, match="nothing at") as caught:
        engine.spec.check(submit(tools=tools, tool_choice="required"))
    assert caught.value.param == "tool_choice"
