"""`keep_alive` and `smmf.require` in bodies: their forms, and what is said of wrong ones."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from smmf_core.api import openai
from smmf_core.api.openai.extensions import keep_alive_seconds, parse_require
from smmf_core.errors import ApiError


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None), (0, 0.0), ("0", 0.0), (300, 300.0), (2.5, 2.5), ("5m", 300.0),
        ("1h30m", 5400.0), ("250ms", 0.25), (-1, -1.0), ("-1", -1.0), ("-5m", -1.0),
    ],
)  # fmt: skip
def test_keep_alive_in_ollamas_forms(given: Any, seconds: float | None) -> None:
    assert keep_alive_seconds(given) == seconds


BODIES = {
    "chat": {"model": "m", "messages": [{"role": "user", "content": "x"}]},
    "completion": {"model": "m", "prompt": "x"},
    "embeddings": {"model": "m", "input": "x"},
    "rerank": {"model": "m", "query": "x", "documents": ["y"]},
}


def keep_alive_of(kind: str, **fields: Any) -> float | None:
    body = json.dumps({**BODIES[kind], **fields}).encode()
    if kind == "embeddings":
        return openai.parse_embeddings(body, "1").keep_alive_s
    if kind == "rerank":
        return openai.parse_rerank(body, "1").keep_alive_s
    return openai.finish(openai.parse(kind, body), {}).keep_alive_s


@pytest.mark.parametrize("kind", BODIES)
def test_every_body_takes_it(kind: str) -> None:
    assert keep_alive_of(kind) is None
    assert keep_alive_of(kind, keep_alive=None) is None
    assert keep_alive_of(kind, keep_alive="5m") == 300.0
    assert keep_alive_of(kind, keep_alive=10) == 10.0
    for wrong in ("soon", "5 parsecs", "", True, [5]):
        with pytest.raises(ApiError) as error:
            keep_alive_of(kind, keep_alive=wrong)
        assert (error.value.status, error.value.param) == (400, "keep_alive"), wrong


def test_requirements() -> None:
    assert parse_require(None) is None
    assert parse_require({}) is None
    require = parse_require({"require": {"context_length": 5, "tools": True, "max_cost": 0.5}})
    assert require == openai.Require(context_length=5, tools=True, max_cost=0.5)
    assert openai.Require().max_cost == math.inf


@pytest.mark.parametrize(
    ("require", "param", "words"),
    [
        ({"color": "red"}, "smmf.require.color", "'context_length', 'tools', 'vision'"),
        ({"context_length": "8k"}, "smmf.require.context_length", "a positive integer"),
        ({"context_length": 0}, "smmf.require.context_length", "a positive integer"),
        ({"embedding_dimension": True}, "smmf.require.embedding_dimension", "a positive integer"),
        ({"tools": "yes"}, "smmf.require.tools", "a boolean"),
        ({"max_cost": "low"}, "smmf.require.max_cost", "a number"),
        (["tools"], "smmf.require", "an object"),
    ],
)
def test_wrong_requirements_are_named(require: Any, param: str, words: str) -> None:
    with pytest.raises(ApiError) as error:
        parse_require({"require": require})
    assert (error.value.status, error.value.param) == (400, param)
    assert words in error.value.message


def test_smmf_holds_nothing_else() -> None:
    with pytest.raises(ApiError, match="'smmf' holds 'require'"):
        parse_require({"requires": {}})
