"""Every wrong request gets a 400 with the right code and param, and nobody's input back."""

from __future__ import annotations

import json
import re

import pytest
from openai_matrix import BROKEN, CASES, HEAD, Case, body_of

from smmf_core.api import openai
from smmf_core.errors import ApiError


def _error_of(dialect: str, body: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        openai.finish(openai.parse(dialect, body), {})
    return caught.value


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.dialect}-{c.param}-{c.code}")
def test_wrong_fields_are_named(case: Case) -> None:
    error = _error_of(case.dialect, body_of(case))
    assert (error.status, error.code, error.param) == (400, case.code, case.param), error.message
    envelope = json.loads(error.body())["error"]
    assert set(envelope) == {"message", "type", "param", "code"}
    assert envelope["type"] == "invalid_request_error"


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("dialect", ["chat", "completion"])
def test_broken_bodies_are_refused(name: str, dialect: str) -> None:
    error = _error_of(dialect, BROKEN[name])
    assert error.status == 400
    assert len(error.body()) < 400


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_json_object_is_invalid_json(name: str) -> None:
    error = _error_of("chat", BROKEN[name])
    assert (error.code, error.param) == ("invalid_json", None)


def _deep(opening: str, closing: str, levels: int) -> str:
    return opening * levels + "1" + closing * levels


@pytest.mark.parametrize(
    "field",
    [
        '"temperature":1e999',
        '"n":' + "9" * 5000,
        '"seed":' + "9" * 30,
        '"max_tokens":-' + "9" * 400,
        '"temperature":' + "9" * 400,
        '"top_p":1e308',
        '"logit_bias":{"' + "9" * 5000 + '":1}',
        '"smmf_echo":{"a":' + "9" * 40 + "}",
        '"tools":' + _deep('[{"a":', "}]", 300),
        '"chat_template_kwargs":' + _deep('{"a":', "}", 200),
        '"response_format":{"type":"json_schema","json_schema":' + _deep('{"a":', "}", 200) + "}",
        '"messages":[{"role":"user","content":"x","y":' + _deep("[", "]", 200) + "}]",
        '"messages":[{"role":"user","content":' + _deep("[", "]", 900) + "}]",
    ],
    ids=range(13),
)
def test_numbers_and_depths_beyond_reason_are_refused(field: str) -> None:
    error = _error_of("chat", HEAD + b"," + field.encode() + b"}")
    assert error.status == 400
    assert len(error.message) < 300


@pytest.mark.parametrize(
    "field",
    [
        {"tool_choice": "Z" * 5000, "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"messages": [{"role": "Z" * 5000, "content": ""}]},
        {"messages": [{"role": "user", "content": [{"type": "Z" * 5000}]}]},
        {"logit_bias": {"Z" * 5000 + str(i): 1 for i in range(50)}},
        {"reasoning_effort": "Z" * 5000},
        {"modalities": ["Z" * 5000]},
        {"response_format": {"type": "Z" * 5000}},
        {"tools": [{"type": "function", "function": {"name": "Z" * 5000}}]},
        {"Z" * 5000: 1, "top_p": 3},
        {"temperature": "Z" * 5000},
    ],
    ids=lambda field: next(reversed(field)),
)
def test_messages_repeat_little_of_the_input(field: dict[str, object]) -> None:
    error = _error_of("chat", body_of(Case("chat", field, "", None)))
    assert (error.message + (error.param or "")).count("Z") <= 100


def test_messages_read_like_openais() -> None:
    def text(**fields: object) -> str:
        return _error_of("chat", body_of(Case("chat", fields, "", None))).message

    assert text(temperature=200) == (
        "Invalid 'temperature': decimal above maximum value. "
        "Expected a value <= 2, but got 200 instead."
    )
    assert text(n=0) == (
        "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead."
    )
    assert text(temperature="hot") == (
        "Invalid type for 'temperature': expected a number, but got a string instead."
    )
    assert text(n=1.5) == "Invalid type for 'n': expected an integer, but got a number instead."
    assert text(stop=list("abcde")) == (
        "Invalid 'stop': array too long. "
        "Expected an array with maximum length 4, but got an array with length 5 instead."
    )
    body = b'{"model":"echo"}'
    assert _error_of("chat", body).message == "Missing required parameter: 'messages'."


def test_all_bad_logit_bias_keys_are_named() -> None:
    fields = {"logit_bias": {"1": 1, "one": 1, "2.5": 1, "-3": 1}}
    message = _error_of("chat", body_of(Case("chat", fields, "", None))).message
    assert re.findall(r"'([^']*)'", message) == ["logit_bias", "one", "2.5", "-3"]
