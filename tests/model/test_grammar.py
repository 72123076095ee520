"""Answers held to JSON schemas, by every engine whose tokens are chosen by code of ours: the demo
model, and on one with random weights, which would never write JSON by itself."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from engines import demo_path, open_engine
from engines_env import require
from tiny import make_model
from worker_rig import Answer, Worker

from smmf_core.messages import (
    LENGTH,
    STOP,
    Sampling,
    Submit,
)

ENGINES = ("reference", "transformers", "mlx")
TEXT = {"type": "string", "maxLength": 12}


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


SCHEMAS: dict[str, Any] = {
    "nested": an_object(user=an_object(name=TEXT, home=an_object(city=TEXT)), ok={"const": True}),
    "enum": an_object(
        colour={"enum": ["red", "gr\u00fcn", "\u84dd\u8272", "\U0001f600"]}, n={"enum": [1, None]}
    ),
    "array": an_object(tags={"type": "array", "items": TEXT, "minItems": 2, "maxItems": 4}),
    "range": an_object(
        age={"type": "integer", "minimum": 0, "maximum": 150},
        p={"type": "integer", "exclusiveMinimum": -5, "exclusiveMaximum": 5, "multipleOf": 2},
    ),
    "pattern": an_object(
        id={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2,4}$"},
        day={"type": "string", "format": "date"},
        mail={"type": "string", "pattern": r"^[a-z]{1,8}@[a-z]{1,8}\.(com|org)$"},
    ),
    "union": an_object(
        value={"anyOf": [{"type": "boolean"}, {"type": "null"}, TEXT, an_object(a={"const": 1})]},
        kind={"oneOf": [an_object(k={"const": "a"}, x=TEXT), an_object(k={"const": "b"})]},
    ),
    "reference": {
        "$ref": "#/$defs/pair",
        "$defs": {
            "pair": an_object(left={"$ref": "#/$defs/leaf"}, right={"$ref": "#/$defs/leaf"}),
            "leaf": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
        },
    },
    "unicode": an_object(
        **{"n\u00e4me \U0001f600": TEXT, "\u4f60\u597d": {"const": "\u4e16\u754c"}}
    ),
    "both": an_object(a={"allOf": [TEXT, {"minLength": 2}, {"pattern": "^[a-z ]*$"}]}),
    "root array": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 3, "maxItems": 3},
}  # fmt: skip
OPEN: dict[str, Any] = {  # nothing in them says how long a value may be
    "event": an_object(
        name={"type": "string"},
        date={"type": "string"},
        participants={"type": "array", "items": {"type": "string"}},
    ),
    "steps": an_object(
        steps={"type": "array", "items": an_object(why={"type": "string"}, x={"type": "number"})},
        answer={"type": "string"},
    ),
    "any object": {"type": "object"},
    "tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": an_object(
                name={"type": "string"},
                next={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            )
        },
    },
}
DRAWN = (
    {},
    {"temperature": 1.0, "seed": 5},
    {"temperature": 1.5, "top_k": 40, "min_p": 0.01, "seed": 6},
    {"temperature": 0.8, "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.5},
    {"repetition_penalty": 1.2, "min_tokens": 20},
)


def form(schema: Any, strict: bool = True) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": schema, "strict": strict},
    }


def open_worker(name: str, path: Path) -> Worker:
    if name != "reference":
        require(name)
    return Worker(open_engine(name, path))


@cache
def open_demo(name: str) -> Worker:
    return open_worker(name, demo_path(name))


@pytest.fixture(params=ENGINES)
def demo(request: pytest.FixtureRequest) -> Worker:
    return open_demo(request.param)


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Llama with random weights and 333 rows of embedding: more than there are tokens."""
    return make_model(tmp_path_factory.mktemp("tiny"), vocab_size=333)


@pytest.fixture(params=ENGINES, scope="module")
def tiny(request: pytest.FixtureRequest, tiny_path: Path) -> Worker:
    return open_worker(request.param, tiny_path)


def chat(worker: Worker, text: str) -> list[int]:
    spec = worker.core.spec
    assert spec.chat_template is not None
    message = {"role": "user", "content": text}
    asked = Submit(1, 0, "r", "m", True, 1, [message], None, Sampling())
    return spec.tokenizer.encode(spec.chat_template.render(asked), False)


def value_of(answer: Answer, schema: Any) -> Any:
    """What an answer that ended by itself says, held against its schema."""
    (choice,) = answer.choices
    assert (answer.error, choice.reason) == (None, STOP), choice.text
    value = json.loads(choice.text.decode())
    jsonschema.validate(value, schema)
    return value


# --- what is answered ---


@pytest.mark.parametrize("name", SCHEMAS)
def test_random_weights_write_what_the_schema_asks_for(tiny: Worker, name: str) -> None:
    asked = [
        tiny.submit([0, 5, 9], 300, response_format=form(SCHEMAS[name]), **params)
        for params in DRAWN
    ]
    tiny.finish()
    values = [value_of(tiny.answers[key], SCHEMAS[name]) for key in asked]
    assert len({json.dumps(value) for value in values}) > 1 or name in ("reference", "root array")


def test_every_engine_chooses_the_same(tiny_path: Path) -> None:
    texts = []
    for name in ENGINES:
        worker = open_demo(name)
        prompt = chat(worker, "Answer as JSON with keys name and age: Ada is 36")
        keys = [
            worker.submit(prompt, 200, response_format=form(OPEN["event"]), **params)
            for params in ({}, {"temperature": 0.9, "seed": 4})
        ]
        worker.finish()
        texts.append([worker.answers[key].choices[0].text for key in keys])
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("name", [*SCHEMAS, *OPEN])
def test_the_demo_model_ends_what_it_writes(demo: Worker, name: str) -> None:
    schema = {**SCHEMAS, **OPEN}[name]
    prompt = chat(demo, "Tell me about Ada, who is 36.")
    asked = [
        demo.submit(prompt, 300, response_format=form(schema, strict), **params)
        for params, strict in zip(DRAWN[:3], (True, False, True), strict=True)
    ]
    demo.finish()
    for key in asked:
        value_of(demo.answers[key], schema)


def test_a_json_object(demo: Worker) -> None:
    prompt = chat(demo, "Answer as JSON with keys name and age: Ada is 36")
    answer = demo.ask(prompt, 100, response_format={"type": "json_object"})
    assert value_of(answer, {"type": "object"}) == {"name": "Ada", "age": 36}


def test_a_call_that_is_forced(demo: Worker) -> None:
    functions = [{"name": name, "parameters": an_object(city=TEXT)} for name in ("one", "two")]
    tools = [{"type": "function", "function": function} for function in functions]
    choice = {"type": "function", "function": {"name": "two"}}
    answer = demo.ask(chat(demo, "Hello"), 100, tools=tools, tool_choice=choice)
    text = answer.choices[0].text.decode()
    assert (answer.error, answer.choices[0].reason) == (None, STOP)
    call = json.loads(text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
    assert call["name"] == "two"
    jsonschema.validate(call["arguments"], functions[1]["parameters"])


# --- beside other requests ---


def test_free_answers_are_what_they_were(demo: Worker) -> None:
    """Free rows choose as without bound ones beside them, greedy and drawn."""
    prompts = [chat(demo, text) for text in ("Who are you?", "Tell me a story.", "What is a dog?")]
    params: list[dict[str, Any]] = [{}, {"temperature": 0.9, "seed": 3}, {"logit_bias": {40: -5.0}}]
    alone = [demo.ask(p, 40, **given).ids for p, given in zip(prompts, params, strict=True)]
    bound = [demo.submit(prompts[0], 90, response_format=form(s)) for s in OPEN.values()]
    free = [demo.submit(p, 40, **given) for p, given in zip(prompts, params, strict=True)]
    demo.finish()
    assert [demo.answers[key].ids for key in free] == alone
    for key, schema in zip(bound, OPEN.values(), strict=True):
        if demo.answers[key].choices[0].reason == STOP:
            value_of(demo.answers[key], schema)


def test_bound_answers_are_the_same_in_any_batch(tiny: Worker) -> None:
    params = {"temperature": 1.0, "seed": 8}
    alone = [
        tiny.ask([0, 5], 200, response_format=form(schema), **params).ids
        for schema in SCHEMAS.values()
    ]
    keys = [
        tiny.submit([0, 5], 200, response_format=form(schema), **params)
        for schema in SCHEMAS.values()
    ]
    tiny.submit([0, 7, 7, 9], 60)
    tiny.finish()
    assert [tiny.answers[key].ids for key in keys] == alone


def test_several_choices(tiny: Worker) -> None:
    asked = form(SCHEMAS["union"])
    answer = tiny.ask([0, 5], 200, n=3, temperature=1.0, seed=2, response_format=asked)
    texts = [choice.text for choice in answer.choices]
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMAS["union"])
    assert len(set(texts)) == 3


# --- going on, and ending ---


@pytest.mark.parametrize("params", [{}, {"temperature": 1.0, "seed": 9}])
@pytest.mark.parametrize("name", ["pattern", "union", "unicode"])
def test_going_on_from_any_token(tiny: Worker, name: str, params: dict[str, Any]) -> None:
    """As another Worker would, that has only the tokens."""
    asked = form(SCHEMAS[name])
    whole = tiny.ask([0, 5, 9], 200, response_format=asked, **params)
    value_of(whole, SCHEMAS[name])
    keys = [
        tiny.submit([0, 5, 9], 200, response_format=asked, emitted=[whole.ids[:cut]], **params)
        for cut in range(1, len(whole.ids), 5)
    ]
    tiny.finish()
    for key, cut in zip(keys, range(1, len(whole.ids), 5), strict=True):
        assert tiny.answers[key].ids == whole.ids[cut:]
        assert tiny.answers[key].choices[0].reason == STOP


def test_the_demo_model_goes_on_to_the_same_end(demo: Worker) -> None:
    """Also past the token from which it is brought to its end."""
    prompt = chat(demo, "How can I solve 8x + 7 = -23")
    asked = form(OPEN["steps"])
    whole = demo.ask(prompt, 200, response_format=asked)
    assert len(whole.ids) > 50
    for cut in (10, 50, len(whole.ids) - 1):
        rest = demo.ask(prompt, 200, response_format=asked, emitted=[whole.ids[:cut]])
        assert rest.ids == whole.ids[cut:]
    (over,) = demo.ask(prompt, 200, response_format=asked, emitted=[whole.ids]).choices
    assert (over.text, over.reason) == (b"", STOP)


def test_the_limit_may_cut_it(tiny: Worker) -> None:
    answer = tiny.ask([0, 5], 4, response_format=form(SCHEMAS["nested"]))
    assert (answer.error, answer.choices[0].reason) == (None, LENGTH)
    assert len(answer.ids) == 4


def test_an_end_waits_for_the_whole_value(tiny: Worker) -> None:
    """Neither a bias towards the end, nor `min_tokens`, nor `ignore_eos` breaks the form."""
    asked = form(SCHEMAS["array"])
    for params in (
        {"logit_bias": {1: 50.0}},
        {"min_tokens": 150},
        {"ignore_eos": True},
        {"stop_token_ids": [2]},
    ):
        answer = tiny.ask([0, 5], 200, response_format=asked, temperature=1.0, seed=1, **params)
        value_of(answer, SCHEMAS["array"])


def test_biases_choose_among_what_is_allowed(tiny: Worker) -> None:
    tokenizer = tiny.core.spec.tokenizer
    (one,), (two,) = (tokenizer.encode(text, False) for text in "12")
    asked = form({"type": "integer", "minimum": 1, "maximum": 2})
    for token, value in ((one, 1), (two, 2)):
        answer = tiny.ask([0, 5], 9, response_format=asked, logit_bias={token: 20.0, 77: 90.0})
        assert value_of(answer, {}) == value
    answer = tiny.ask([0, 5], 9, response_format=asked, logit_bias={one: -100.0, two: -100.0})
    assert answer.error is not None
    assert "together leave no token" in answer.error.message


def test_logprobs_are_those_of_the_model(tiny: Worker) -> None:
    """Before anything was forbidden: what is chosen need not be the best."""
    asked = form({"type": "integer", "minimum": 1, "maximum": 2})
    free = tiny.ask([0, 5], 1, logprobs=2).choices[0].logprobs[0]
    bound = tiny.ask([0, 5], 9, response_format=asked, logprobs=2).choices[0].logprobs[0]
    assert [token for token, _ in bound.top] == [token for token, _ in free.top]
    assert bound.token in (b"1", b"2")
    assert bound.logprob is not None
    assert bound.logprob < math.log(0.5)


# --- what is refused ---


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (an_object(a={"not": TEXT}), "the keyword 'not' at 'properties.a' is not supported"),
        ({"type": "thing"}, "unknown type 'thing'"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-ahead"),
        ({"type": "string", "pattern": "((a{99}){99}){99}"}, "repetitions"),
        ({"$ref": "#/nowhere"}, "nothing at '#/nowhere'"),
    ],
)
def test_schemas_that_cannot_be_followed(demo: Worker, schema: Any, words: str) -> None:
    for strict in (False, True):
        error = demo.ask([0, 5], 9, response_format=form(schema, strict)).error
        assert error is not None
        assert (error.code, error.param) == ("invalid_value", "response_format.json_schema.schema")
        assert words in error.message


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {f"d{n}": {kind: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
         | {"d40": an_object(a=TEXT)}, "$ref": "#/$defs/d0"}
        for kind in ("anyOf", "allOf")
    ] + [
        {"anyOf": [{"anyOf": [{"type": "string", "maxLength": i * j + 1} for i in range(30)]}
                   for j in range(30)]},
        {"allOf": [{"anyOf": [an_object(**{f"a{i}": TEXT}), an_object(**{f"b{i}": TEXT})]}
                   for i in range(14)]},
        {"allOf": [{"type": "string", "pattern": f"^(.*{c}.*){{5}}$"} for c in "abcdefghij"]},
        {"type": "string", "pattern": "^(.*a.{50}|.*b.{60}|.*c.{70})$"},
        {"type": "string", "maxLength": 10**9},
        {"type": "array", "minItems": 10**9, "items": {"type": "array", "minItems": 10**9}},
        {"enum": [f"value {n}" for n in range(5000)]},
        an_object(**{f"p{n}": {"type": "string"} for n in range(990)}),
        {"properties": {f"p{n}": {"type": "string"} for n in range(256)}, "type": "object"},
        {"type": "integer", "multipleOf": 9973},
        {"$ref": "#"},
        {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
    ],
)  # fmt: skip
@pytest.mark.timeout(60)
def test_hostile_schemas_cost_little(schema: Any) -> None:
    """Refused, failed or followed: the next request is answered."""
    worker = open_demo("reference")
    answer = worker.ask([0, 5], 60, temperature=1.0, seed=1, response_format=form(schema))
    assert answer.is_over
    if answer.error is not None:
        assert answer.error.code == "invalid_value"
    assert worker.ask([0, 5], 4).error is None


def test_engines_say_that_they_can(demo: Worker) -> None:
    assert "structured_output" in demo.core.spec.capabilities
