"""The form that an answer is held to, and which requests vLLM's engine refuses, without vLLM."""

from __future__ import annotations

import json
from typing import Any

import pytest

from smmf_core.engines.base import EngineSpec, Sequence
from smmf_core.engines.echo.engine import EchoTokenizer
from smmf_core.engines.vllm.form import answer_form, check_form, forced_functions
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


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, []),
        ("auto", []),
        ("none", []),
        ("required", [ONE, TWO]),
        ({"type": "function", "function": {"name": "one"}}, [ONE]),
        (allowed("auto"), []),
        (allowed("required"), [TWO]),
    ],
)
def test_which_functions_are_forced(choice: Any, expected: list[Any]) -> None:
    assert forced_functions(submit(tools=TOOLS, tool_choice=choice)) == expected


def test_response_formats() -> None:
    schema = {"type": "object"}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert answer_form(submit(), "") == {}
    assert answer_form(submit(response_format={"type": "text"}), "") == {}
    assert answer_form(submit(response_format={"type": "json_object"}), "") == {"json_object": True}
    assert answer_form(submit(response_format=form), "") == {"json": json.dumps(schema)}


def test_a_forced_call_comes_before_the_response_format() -> None:
    asked = submit(tools=TOOLS, tool_choice="required", response_format={"type": "json_object"})
    tag = json.loads(answer_form(asked, "hermes")["structural_tag"])["format"]
    assert (tag["begin"], tag["end"]) == ("<tool_call>", "</tool_call>")
    calls = tag["content"]["json_schema"]["anyOf"]
    assert [call["properties"]["name"]["const"] for call in calls] == ["one", "two"]
    assert calls[0]["properties"]["arguments"] == {"type": "object", **ONE["parameters"]}
    bare = json.loads(answer_form(asked, "llama3_json")["json"])
    assert set(bare["anyOf"][1]["properties"]) == {"name", "parameters"}


def test_forms_that_cannot_be_followed() -> None:
    forced = submit(tools=TOOLS, tool_choice="required")
    check_form(forced, True, "hermes")
    check_form(submit(), False, "mistral")
    with pytest.raises(ApiError, match="cannot be forced") as caught:
        check_form(forced, True, "mistral")
    assert caught.value.param == "tool_choice"
    with pytest.raises(ApiError, match="take no form") as caught:
        check_form(submit(response_format={"type": "json_object"}), False, "")
    assert caught.value.param == "response_format"


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
    told = refusal(ValueError("no such type"), asked)
    assert isinstance(told, ApiError)
    assert told.param == "response_format"
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
