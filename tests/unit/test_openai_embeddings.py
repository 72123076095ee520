"""Vectors and scores as response bytes: exact numbers, layout, order."""

from __future__ import annotations

import json
import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from smmf_core.api.openai import parse_embeddings, parse_rerank
from smmf_core.api.openai.embeddings import EmbeddingsRenderer
from smmf_core.messages import Usage, Vectors

ORDINARY = st.floats(width=32, min_value=-(2.0**100), max_value=2.0**100).filter(
    lambda value: value == 0 or abs(value) > 1e-12
)


def embedding(values: list[float]) -> list[float]:
    vectors = Vectors(struct.pack(f"<{len(values)}f", *values), len(values), [1])
    body = EmbeddingsRenderer("m", False).response(vectors, Usage(1, 0))
    shown: list[float] = json.loads(body)["data"][0]["embedding"]
    return shown


@given(st.lists(ORDINARY, min_size=1))
def test_every_float32_comes_back_as_itself(values: list[float]) -> None:
    assert np.array(embedding(values), np.float32).tolist() == values


def test_numbers_take_no_more_digits_than_they_need() -> None:
    values = [0.1, -0.0417, 1 / 3, 0.0, 1.0]
    vectors = Vectors(struct.pack("<5f", *values), 5, [1])
    body = EmbeddingsRenderer("m", False).response(vectors, Usage(1, 0))
    assert b'"embedding":[0.1,-0.0417,0.33333334,0.0,1.0]' in body


def test_values_next_to_nothing() -> None:
    assert embedding([1e-30, -3e-14]) == [1e-30, -3e-14]


def test_the_layout_of_embeddings() -> None:
    wanted = parse_embeddings(b'{"model":"a\\"b","input":["x","y"],"encoding_format":"base64"}', "")
    assert wanted.submit.inputs == ["x", "y"]
    body = wanted.renderer.response(Vectors(struct.pack("<2f", 1, 2), 1, [3, 4]), Usage(7, 0))
    assert json.loads(body) == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": "AACAPw=="},
            {"object": "embedding", "index": 1, "embedding": "AAAAQA=="},
        ],
        "model": 'a"b',
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def test_equal_scores_keep_the_given_order() -> None:
    body = b'{"model":"m","query":"q","documents":["a","b","c","d"],"top_n":3}'
    wanted = parse_rerank(body, "7")
    assert (wanted.submit.query, wanted.submit.inputs) == ("q", ["a", "b", "c", "d"])
    scores = Vectors(struct.pack("<4f", 0.5, 0.25, 0.5, 0.75), 1, [1] * 4)
    answer = json.loads(wanted.renderer.response(scores, Usage(4, 0)))
    assert answer["id"] == "rerank-7"
    assert [result["index"] for result in answer["results"]] == [3, 0, 2]


def test_documents_may_be_objects() -> None:
    body = b'{"model":"m","query":"q","documents":[{"text":"a","id":1},"b"]}'
    assert parse_rerank(body, "7").submit.inputs == ["a", "b"]
