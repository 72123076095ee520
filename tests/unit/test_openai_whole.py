"""Scores and tokens: bodies in, messages out; results in, bytes out."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from smmf_core.api import openai
from smmf_core.errors import ApiError
from smmf_core.messages import Detokenized, Embed, Tokenize, Tokenized, Usage, Vectors

USAGE = Usage(7, 0)
SHOWN = {"prompt_tokens": 7, "total_tokens": 7}
CHAT = [{"role": "user", "content": "hi"}]


def scores(*values: float) -> Vectors:
    return Vectors(struct.pack(f"<{len(values)}f", *values), 1, [1] * len(values))


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def embed(wanted: openai.Wanted) -> Embed:
    assert isinstance(wanted.submit, Embed)
    return wanted.submit


def tokenize(**fields: Any) -> Tokenize:
    submit = openai.parse_tokenize(body(**fields), "1").submit
    assert isinstance(submit, Tokenize)
    return submit


# --- scores ---


@pytest.mark.parametrize(
    ("text_1", "text_2", "query", "queries", "inputs"),
    [
        ("q", "a", "q", None, ["a"]),
        ("q", ["a", "b"], "q", None, ["a", "b"]),
        (["q"], ["a", "b"], "q", None, ["a", "b"]),
        (["q", "r"], ["a", "b"], None, ["q", "r"], ["a", "b"]),
    ],
)
def test_which_text_goes_with_which(
    text_1: Any, text_2: Any, query: Any, queries: Any, inputs: Any
) -> None:
    found = embed(openai.parse_score(body(text_1=text_1, text_2=text_2), "1"))
    assert (found.query, found.queries, found.inputs) == (query, queries, inputs)
    assert found.param == "text_2"


def test_the_layout_of_scores() -> None:
    wanted = openai.parse_score(body(text_1="q", text_2=["a", "b"]), "9", 123)
    assert json.loads(wanted.renderer.response(scores(0.5, 0.25), USAGE)) == {
        "id": "score-9",
        "object": "list",
        "created": 123,
        "model": "m",
        "data": [
            {"index": 0, "object": "score", "score": 0.5},
            {"index": 1, "object": "score", "score": 0.25},
        ],
        "usage": SHOWN,
    }


def test_the_layout_of_relevance() -> None:
    wanted = openai.parse_relevance(body(query="q", documents=["a", "b"]), "9")
    assert embed(wanted).param == "documents"
    assert json.loads(wanted.renderer.response(scores(0.25, 0.5), USAGE)) == {
        "object": "list", "model": "m", "data": [0.25, 0.5], "usage": SHOWN,
    }  # fmt: skip


def test_the_layout_of_cohere() -> None:
    wanted = openai.parse_rerank_v2(body(query="q", documents=["a"] * 101, top_n=1), "9")
    assert embed(wanted).max_tokens == 4096
    answer = json.loads(wanted.renderer.response(scores(*[0.25] * 100, 0.5), USAGE))
    assert answer == {
        "id": "rerank-9",
        "model": "m",
        "results": [{"index": 100, "relevance_score": 0.5}],
        "usage": SHOWN,
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 2},
            "tokens": {"input_tokens": 7},
        },
    }


# --- tokens ---


def test_a_text_gets_special_tokens_and_a_chat_its_template() -> None:
    assert tokenize(prompt="a").add_special
    assert not tokenize(prompt="a", add_special_tokens=False).add_special
    assert not tokenize(content="a").add_special
    assert tokenize(content="a", add_special=True).add_special
    chat = tokenize(messages=CHAT)
    assert (chat.add_special, chat.add_generation_prompt, chat.continue_final_message) == (
        False, True, False,
    )  # fmt: skip
    assert not tokenize(messages=CHAT, add_generation_prompt=False).add_generation_prompt
    said = [*CHAT, {"role": "assistant", "content": "a"}]
    assert not tokenize(messages=said, continue_final_message=True).add_generation_prompt


def test_the_layout_of_tokens() -> None:
    renderer = openai.parse_tokenize(body(prompt="a"), "1").renderer
    assert json.loads(renderer.response(Tokenized(2, 64, b"[1,2]", b""), Usage(0, 0))) == {
        "count": 2, "max_model_len": 64, "tokens": [1, 2], "token_strs": None,
    }  # fmt: skip
    shown = json.loads(renderer.response(Tokenized(1, 64, b"[1]", b'["a"]'), Usage(0, 0)))
    assert shown["token_strs"] == ["a"]
    back = openai.parse_detokenize(body(tokens=[1]), "1").renderer
    assert json.loads(back.response(Detokenized('a"b'), Usage(0, 0))) == {"prompt": 'a"b'}


# --- what is wrong ---

WRONG = [
    ("score", {"text_2": "a"}, "missing_required_parameter", "text_1"),
    ("score", {"text_1": "a"}, "missing_required_parameter", "text_2"),
    ("score", {"text_1": "", "text_2": "a"}, "invalid_value", "text_1"),
    ("score", {"text_1": "a", "text_2": []}, "empty_array", "text_2"),
    ("score", {"text_1": "a", "text_2": ["b", ""]}, "invalid_value", "text_2[1]"),
    ("score", {"text_1": "a", "text_2": 5}, "invalid_type", "text_2"),
    ("score", {"text_1": "a", "text_2": ["b", {}]}, "invalid_type", "text_2[1]"),
    ("score", {"text_1": ["a", "b"], "text_2": "c"}, "invalid_value", "text_1"),
    ("score", {"text_1": ["a"] * 3, "text_2": ["c"] * 2}, "invalid_value", "text_1"),
    ("score", {"text_1": "a", "text_2": ["b"] * 2049}, "array_above_max_length", "text_2"),
    ("score", {"text_1": "a", "text_2": "b", "truncate_prompt_tokens": -2},
     "integer_below_min_value", "truncate_prompt_tokens"),
    ("relevance", {"query": "a", "documents": []}, "empty_array", "documents"),
    ("relevance", {"query": "a", "documents": ["b", {"text": "c"}]}, "invalid_type",
     "documents[1]"),
    ("relevance", {"documents": ["a"]}, "missing_required_parameter", "query"),
    ("relevance", {"query": "a", "documents": [""]}, "invalid_value", "documents[0]"),
    ("rerank_v2", {"query": "a", "documents": ["b"], "top_n": 0}, "integer_below_min_value",
     "top_n"),
    ("rerank_v2", {"query": "a", "documents": ["b"], "priority": "high"}, "invalid_type",
     "priority"),
    ("rerank_v2", {"query": "a", "documents": ["b"], "max_tokens_per_doc": 0},
     "integer_below_min_value", "max_tokens_per_doc"),
    ("tokenize", {}, "missing_required_parameter", "prompt"),
    ("tokenize", {"prompt": 5}, "invalid_type", "prompt"),
    ("tokenize", {"prompt": "a", "messages": CHAT}, "invalid_value", "prompt"),
    ("tokenize", {"prompt": "a", "content": "b"}, "invalid_value", "content"),
    ("tokenize", {"prompt": "a", "add_special_tokens": "no"}, "invalid_type",
     "add_special_tokens"),
    ("tokenize", {"messages": []}, "empty_array", "messages"),
    ("tokenize", {"messages": [{"role": "pope", "content": "a"}]}, "invalid_value",
     "messages[0].role"),
    ("tokenize", {"messages": CHAT, "tools": [{}]}, "missing_required_parameter",
     "tools[0].type"),
    ("tokenize", {"messages": CHAT, "continue_final_message": True}, "invalid_value",
     "continue_final_message"),
    ("tokenize", {"messages": CHAT, "continue_final_message": True,
     "add_generation_prompt": True}, "invalid_value", "continue_final_message"),
    ("tokenize", {"messages": CHAT, "chat_template": "x"}, "unsupported_parameter",
     "chat_template"),
    ("tokenize", {"content": "a", "with_pieces": True}, "unsupported_parameter", "with_pieces"),
    ("tokenize", {"prompt": "a", "keep_alive": "soon"}, "invalid_value", "keep_alive"),
    ("detokenize", {}, "missing_required_parameter", "tokens"),
    ("detokenize", {"tokens": "a"}, "invalid_type", "tokens"),
    ("detokenize", {"tokens": [1, -1]}, "integer_below_min_value", "tokens[1]"),
    ("detokenize", {"tokens": [1, 2**40]}, "integer_above_max_value", "tokens[1]"),
    ("detokenize", {"tokens": [1.5]}, "invalid_type", "tokens[0]"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fields", "code", "param"), WRONG, ids=lambda v: str(v)[:40])
def test_what_is_wrong_is_named(name: str, fields: Any, code: str, param: str) -> None:
    parse = getattr(openai, f"parse_{name}")
    with pytest.raises(ApiError) as caught:
        parse(body(**fields), "1")
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)
    assert len(caught.value.message) < 300
    with pytest.raises(ApiError) as caught:
        parse(b"[]", "1")
    assert caught.value.code == "invalid_json"
