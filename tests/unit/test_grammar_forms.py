"""Grammars over a vocabulary of bytes: what an answer may go on with, where it ends, what is
refused before it begins."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from byte_tokens import END, OTHER_END, VOCAB, Bytes
from grammar_rig import PERSON, TOOLS, allowed, bind, follows, submit

from smmf_core.engines.base import Sequence
from smmf_core.engines.grammar import compiler, constraint
from smmf_core.engines.grammar.compiler import Grammars
from smmf_core.errors import ApiError


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(Bytes(), VOCAB)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (PERSON, ['{"name": "A", "age": 3}', '{"name":"\u00e9\u4e2d\U0001f600","age":-1}'],
         ['{"name": "A"}', '{"name": 1, "age": 3}', '{"age": 3, "name": "A"}', "{}",
          '{"name": "A", "age": 3, "z": 1}', '{"name": "A", "age": 3.5}', ' {"name": "A"']),
        ({"enum": ["gr\u00fcn", 1, None]}, ['"gr\u00fcn"', "1", "null"], ['"blau"', "2"]),
        ({"type": "integer", "minimum": 3, "maximum": 12}, ["3", "12"], ["2", "13", "03"]),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, ["0.5", "1"], ["0", "1.5"]),
        ({"type": "integer", "multipleOf": 7}, ["0", "21"], ["20"]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"\\n\\""'],
         ['"a"', '"abcd"']),
        ({"type": "string", "pattern": "^[A-Z]{2}[0-9]+$"}, ['"AB12"'], ['"A1"', '"AB"']),
        ({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2024-13-01"', '"x"']),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
         ["[true]", "[true, false]"], ["[]", "[true,true,true]", "[1]"]),
        ({"prefixItems": [{"const": 1}], "items": {"const": 2}, "type": "array", "minItems": 1},
         ["[1]", "[1, 2, 2]"], ["[2]", "[1, 1]"]),
        ({"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 1}]}, ["null", '""'], ["1"]),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {
            "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/n"}]}}, "required": ["next"]}}},
         ['{"next": null}', '{"next": {"next": null}}'], ["{}", '{"next": 1}']),
        ({"type": "object", "additionalProperties": {"type": "integer"}},
         ["{}", '{"a": 1, "b": 2}'], ['{"a": "b"}']),
        ({"allOf": [{"properties": {"a": {"type": "integer"}}}, {"required": ["a"]}],
          "type": "object"}, ['{"a": 1}'], ["{}", '{"a": ""}']),
    ],
)  # fmt: skip
def test_what_a_schema_lets_through(
    grammars: Grammars, schema: Any, good: list[str], bad: list[str]
) -> None:
    asked = submit(schema)
    assert [text for text in good if not follows(bind(grammars, asked), text.encode())] == []
    assert [text for text in bad if follows(bind(grammars, asked), text.encode())] == []


def test_a_json_object(grammars: Grammars) -> None:
    asked = submit(response_format={"type": "json_object"})
    assert follows(bind(grammars, asked), b'{"a": [1, {"b": null}]}')
    assert not follows(bind(grammars, asked), b"[1]")
    empty = submit(response_format={"type": "json_schema", "json_schema": {"name": "x"}})
    assert follows(bind(grammars, empty), b'{"a": 1}')


def test_text_is_free(grammars: Grammars) -> None:
    for fields in ({}, {"response_format": {"type": "text"}}, {"tools": TOOLS}):
        asked = submit(**fields)
        grammars.check(asked)
        assert grammars.bind(Sequence(1, [1], 1, asked.sampling, 9, asked)) is None


def test_where_an_answer_ends(grammars: Grammars) -> None:
    """All ends are allowed where it may end; where nothing else may follow, it is over."""
    bound = bind(grammars, submit({"type": "integer"}))
    assert allowed(bound) == {*b"-0123456789"}
    bound.accept(ord("1"))
    assert allowed(bound) == {*b"0123456789", END, OTHER_END}
    assert not bound.is_over
    bound = bind(grammars, submit({"const": 1}))
    bound.accept(ord("1"))
    assert bound.is_over
    assert allowed(bound) == {END, OTHER_END}
    bound.accept(OTHER_END)  # with ignore_eos it goes on
    assert allowed(bound) == {END, OTHER_END}


def test_going_on_from_a_prefix(grammars: Grammars) -> None:
    text = '{"name": "\u4e2d", "age": 36}'.encode()
    asked = submit(PERSON)
    whole = bind(grammars, asked)
    for at, token in enumerate(text):
        assert allowed(bind(grammars, asked, list(text[:at]))) == allowed(whole)
        whole.accept(token)
    assert bind(grammars, asked, [*text]).is_over
    with pytest.raises(ApiError, match="left its response_format"):
        bind(grammars, asked, [*b"Hello"])


def test_answers_of_one_grammar_do_not_touch_each_other(grammars: Grammars) -> None:
    one, other = (bind(grammars, submit(PERSON)) for _ in range(2))
    assert follows(one, b'{"name": "x", "age": 1}')
    assert allowed(other) == {*b"{"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"properties": {"a": {"not": {}}}}, "'not' at 'properties.a'"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "string", "pattern": r"(a)\1"}, "backreferences"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum"),
        ({"$ref": "#"}, "no answer follows it"),
        ({"anyOf": [False]}, "Unsatisfiable"),
        ({"required": ["a"], "properties": {"a": False}, "type": "object"}, "nsatisfiable"),
    ],
)  # fmt: skip
def test_schemas_without_a_grammar(grammars: Grammars, schema: Any, words: str) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        grammars.check(submit(schema))
    error = caught.value
    assert (error.status, error.param) == (400, "response_format.json_schema.schema")
    assert error.message.startswith("Invalid schema for response_format 'x': ")
    assert len(error.message) < 400


def test_a_grammar_that_grew_with_others_answers_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What answers work out of a vocabulary is shared, and its size is bounded."""
    monkeypatch.setattr(constraint, "_LEXER_STATES", 500)
    renewed: list[int] = []
    renew = constraint.Compiled.renew
    monkeypatch.setattr(constraint.Compiled, "renew", lambda own: renewed.append(1) or renew(own))
    grammars = Grammars(Bytes(), VOCAB)
    asked = submit({"type": "string", "pattern": "^[abc]*a[abc]{12}$"})
    generator = np.random.default_rng(3)
    for _ in range(60):
        bound = bind(grammars, asked)
        text = b""
        while not bound.is_over:
            text += bytes([int(generator.choice(sorted(allowed(bound))))])
            bound.accept(text[-1])
        assert text[-15:-13] in (b"a", b"ba", b"ca", b"aa", b'"a')
    assert len(renewed) > 1


def test_compiled_grammars_are_kept_by_their_form(monkeypatch: pytest.MonkeyPatch) -> None:
    grammars, made = Grammars(Bytes(), VOCAB), []
    compiled = compiler.Compiled
    monkeypatch.setattr(compiler, "Compiled", lambda *args: made.append(1) or compiled(*args))
    for _ in range(3):
        grammars.check(submit(PERSON))
        bind(grammars, submit(PERSON))
    assert len(made) == 1
    for number in range(50):
        grammars.check(submit({"const": number}))
    assert len(made) == 51
    bind(grammars, submit(PERSON))  # forgotten in between
    assert len(made) == 52


def test_without_the_package_the_refusal_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    grammars = Grammars(Bytes(), VOCAB)
    assert grammars.capabilities == []
    grammars.check(submit())
    with pytest.raises(ApiError, match="pip install llguidance") as caught:
        grammars.check(submit(PERSON))
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "response_format")


def test_an_engine_starts_without_the_library() -> None:
    code = (
        "import sys; import smmf_core.engines.reference.engine; "
        "sys.exit('llguidance' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_model_without_an_end() -> None:
    """Its answers end where nothing may follow, or at their length."""
    endless = Bytes()
    endless.eos_ids = frozenset()
    bound = bind(Grammars(endless, VOCAB), submit({"type": "integer", "maximum": 9, "minimum": 0}))
    assert allowed(bound) == {*b"0123456789"}
    bound.accept(ord("7"))
    assert bound.is_over


def test_an_answer_is_wrapped_up_where_a_model_asks_for_it() -> None:
    grammars = Grammars(Bytes(), VOCAB, wrap_up_after=20)
    form = {"type": "object", "properties": {
        "text": {"type": "string"},
        "list": {"type": "array", "items": {"type": "string"}},
        "number": {"type": "number"},
        "tree": {"$ref": "#"},
    }, "required": ["text", "list", "number"]}  # fmt: skip
    generator = np.random.default_rng(1)
    for _ in range(20):
        bound = bind(grammars, submit(form))
        text = b""
        while not bound.is_over and len(text) < 200:
            # a backslash begins an escape, which is written to its end
            text += bytes([int(generator.choice(sorted(allowed(bound) - {END, OTHER_END})))])
            bound.accept(text[-1])
        assert set(json.loads(text)) >= {"text", "list", "number"}


# --- thoughts ---


@pytest.mark.parametrize(
    ("prompt", "good", "bad"),
    [
        ("Hi", ["<think>\nAda \"is\" 1.\n</think>\n\n1", "1", "<think></think>1"],
         ["Ada</think>1", "<think>1", "<think>a</think>b"]),
        ("Hi<think>\n", ["Ada?\n</think>\n\n1", "</think>1"], ["1", "Ada"]),
        ("Hi<think>\n\n</think>\n\n", ["1"], ["<think>a</think>1"]),
        ("What is <think>?\n", ["1"], ["Ada</think>1"]),
    ],
)  # fmt: skip
def test_thoughts_go_before_what_is_in_a_form(prompt: str, good: list[str], bad: list[str]) -> None:
    grammars = Grammars(Bytes(), VOCAB, reasoning_format="qwen3")
    asked = submit({"const": 1})
    asked.messages = [{"role": "user", "content": "Hi"}]
    ids = [*prompt.encode()]

    def follow(text: str) -> bool:
        grammars.check(asked)
        bound = grammars.bind(Sequence(1, ids, len(ids), asked.sampling, 9, asked))
        assert bound is not None
        return follows(bound, text.encode())

    assert [text for text in good if not follow(text)] == []
    assert [text for text in bad if follow(text)] == []


def test_thoughts_between_special_tokens() -> None:
    class Marked(Bytes):
        vocab_size = 262

        def token_id(self, piece: str) -> int | None:
            return {"<think>": 260, "</think>": 261}.get(piece)

    asked = submit({"const": 1})
    asked.messages = [{"role": "user", "content": "Hi"}]
    grammars = Grammars(Marked(), VOCAB, reasoning_format="deepseek_r1")
    for prompt, good, bad in (
        ([*b"Hi"], [260, *b"a b", 261, 10, *b"1"], [*b"a b", 261, *b"1"]),
        ([*b"Hi", 260, 10], [*b"a b", 261, 10, *b"1"], [*b"1"]),
    ):
        for tokens, is_good in ((good, True), (bad, False)):
            bound = grammars.bind(Sequence(1, prompt, len(prompt), asked.sampling, 9, asked))
            assert bound is not None
            assert follows(bound, tokens) == is_good
