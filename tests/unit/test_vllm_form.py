"""The form that an answer is held to, and which requests vLLM's engine refuses, without vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from smmf_core.engines.base import EngineSpec, Sequence
from smmf_core.engines.echo.engine import EchoTokenizer
from smmf_core.engines.vllm.form import answer_form, check_form
from smmf_core.engines.vllm.refuse import check_sequence, failure, refusal
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling, Submit

ONE = {"name": "one", "parameters": {"properties": {"x": {"type": "integer"}}}}
TWO = {"name": "two"}
TOOLS = [{"type": "function", "function": function} for function in (ONE, TWO)]


def submit(**fields: Any) -> Submit:
    return Submit(1, 0, "r", "m", True, 1, None, [[1, 2]], Sampling(), **fields)


def sequence(prompt: list[int], **params: Any) -> Sequence:
    return Sequence(1, prompt, len(prompt), Sampling(**params), 4, submit())


def allowed(mode: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": "two"}}]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def test_response_formats() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert answer_form(submit(), "") == {}
    assert answer_form(submit(response_format={"type": "text"}), "") == {}
    for given, part in (({"type": "json_object"}, '{"type": "object"'), (form, '"properties"')):
        grammar = answer_form(submit(response_format=given), "")["grammar"]
        assert grammar.startswith("start: answer\nanswer: %json ")
        assert part in grammar


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", ["one", "two"]),
        ({"type": "function", "function": {"name": "one"}}, ["one"]),
        (allowed("required"), ["two"]),
    ],
)
def test_a_forced_call_comes_before_the_response_format(choice: Any, names: list[str]) -> None:
    asked = submit(tools=TOOLS, tool_choice=choice, response_format={"type": "json_object"})
    for form, around in (("hermes", "<tool_call>"), ("glm45", "<tool_call>"), ("phi", "[")):
        grammar = answer_form(asked, form)["grammar"]
        assert grammar.startswith("start: calls\n")
        assert around in grammar
        assert [name for name in ("one", "two") if name in grammar] == names


def test_no_call_is_forced_by_itself() -> None:
    for choice in (None, "auto", "none", allowed("auto")):
        assert answer_form(submit(tools=TOOLS, tool_choice=choice), "hermes") == {}


def test_forms_that_cannot_be_followed() -> None:
    forced = submit(tools=TOOLS, tool_choice="required")
    check_form(forced, True, "hermes")
    check_form(submit(), False, "mistral")
    with pytest.raises(ApiError, match="'zorp' cannot be forced") as caught:
        check_form(forced, True, "zorp")
    assert caught.value.param == "tool_choice"
    with pytest.raises(ApiError, match="take no form") as caught:
        check_form(submit(response_format={"type": "json_object"}), False, "")
    assert caught.value.param == "response_format"
    with pytest.raises(ApiError, match="take no form") as caught:
        check_form(forced, False, "hermes")
    assert caught.value.param == "tool_choice"


def test_sequences_that_vllm_could_not_answer() -> None:
    tokenizer = EchoTokenizer()
    spec = EngineSpec(context_length=8, tokenizer=tokenizer, chat_template=None)
    check_sequence(sequence([1] * 7), spec)
    check_sequence(sequence([1], logit_bias={3: -100.0, 4: 100.0}), spec)
    for prompt, params, code in (
        ([1] * 8, {}, "context_length_exceeded"),
        ([1, -1], {}, "invalid_value"),
        ([1, tokenizer.vocab_size], {}, "invalid_value"),
    ):
        with pytest.raises(ApiError) as caught:
            check_sequence(sequence(prompt, **params), spec)
        assert caught.value.code == code
    tokenizer.eos_ids = frozenset({4})
    with pytest.raises(ApiError, match="leave no token") as caught:
        check_sequence(sequence([1], logit_bias={4: 100.0}, min_tokens=2), spec)
    assert caught.value.param == "logit_bias"


def test_what_a_client_is_told() -> None:
    asked = sequence([1])
    known = ApiError("model_not_found", "gone", "model")
    assert refusal(known, asked) is known
    told = refusal(ValueError("too much"), asked)
    assert isinstance(told, ApiError)
    assert (told.code, told.message, told.param) == ("invalid_value", "too much", None)
    asked.submit.response_format = {"type": "json_object"}
    told = refusal(ValueError("Grammar error: no such type"), asked)
    assert isinstance(told, ApiError)
    assert told.param == "response_format.json_schema.schema"
    asked.submit.tools, asked.submit.tool_choice = TOOLS, "required"
    told = refusal(ValueError("Grammar error: no such type"), asked)
    assert isinstance(told, ApiError)
    assert told.param == "tool_choice"
    bug = RuntimeError("a bug")
    assert refusal(bug, asked) is bug


def test_how_vllm_ends_a_request() -> None:
    assert failure("", True) is None
    assert failure("", False) is None
    assert failure("stop", True) is None
    assert failure("length", True) is None
    for bad in (failure("abort", True), failure("error", False), failure("stop", False)):
        assert bad is not None
    assert "not numbers" in str(failure("", True, nans=3))
