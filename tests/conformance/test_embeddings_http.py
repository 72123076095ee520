"""Embeddings and rerank through a real server with echo models: the official client, then bytes."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import json
import math
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from server import Server, echo_toml

DIMENSIONS = 32
LONG = "word " * 20_000


def model_toml(name: str, task: str, **engine: Any) -> str:
    lines = ["[model]", f'name = "{name}"', 'backend = "echo"', f'task = "{task}"', "[engine]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in engine.items()]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def embed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("embed")
    (folder / "local-chat.toml").write_text(echo_toml("chat"))
    (folder / "local-near.toml").write_text(model_toml("near", "embed"))
    (folder / "local-nest.toml").write_text(model_toml("nest", "embed", matryoshka=True))
    (folder / "local-rank.toml").write_text(model_toml("rank", "rerank"))
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


@pytest.fixture
def client(embed_server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=embed_server.base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def http(embed_server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{embed_server.port}", timeout=60) as http:
        yield http


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


# --- the official client ---


def test_one_text(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="near", input="green birds sing")
    (one,) = answer.data
    assert (answer.object, answer.model, one.object, one.index) == ("list", "near", "embedding", 0)
    assert len(one.embedding) == DIMENSIONS
    assert math.isclose(dot(one.embedding, one.embedding), 1, abs_tol=1e-5)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 6


def test_both_encodings_are_the_same_numbers(client: openai.OpenAI) -> None:
    """The client asks for base64 by itself when it is not told otherwise."""
    texts = ["one text", "another"]
    packed = client.embeddings.create(model="near", input=texts)
    plain = client.embeddings.create(model="near", input=texts, encoding_format="float")
    for a, b in zip(packed.data, plain.data, strict=True):
        assert struct.pack(f"<{DIMENSIONS}f", *a.embedding) == struct.pack(
            f"<{DIMENSIONS}f", *b.embedding
        )


def test_texts_that_share_words_are_near(client: openai.OpenAI) -> None:
    texts = ["the cat sat", "the cat slept", "stock market news"]
    near, also_near, far = (
        d.embedding for d in client.embeddings.create(model="near", input=texts).data
    )
    assert dot(near, also_near) > 0.4 > dot(near, far)


def test_token_ids(client: openai.OpenAI) -> None:
    one = client.embeddings.create(model="near", input=[1, 2, 3])
    assert (len(one.data), one.usage.prompt_tokens) == (1, 3)
    several = client.embeddings.create(model="near", input=[[1, 2, 3], [4]])
    assert (len(several.data), several.usage.prompt_tokens) == (2, 4)
    assert several.data[0].embedding == one.data[0].embedding


def test_the_most_inputs_that_are_allowed(client: openai.OpenAI) -> None:
    """Larger than a token ring: the answer comes in several records."""
    texts = [f"text number {n}" for n in range(2048)]
    answer = client.embeddings.create(model="near", input=texts)
    assert [d.index for d in answer.data] == list(range(2048))
    alone = client.embeddings.create(model="near", input=texts[1234])
    assert answer.data[1234].embedding == alone.data[0].embedding


def test_shorter_vectors(client: openai.OpenAI) -> None:
    whole = client.embeddings.create(model="nest", input="abc").data[0].embedding
    front = client.embeddings.create(model="nest", input="abc", dimensions=8).data[0].embedding
    norm = math.sqrt(dot(whole[:8], whole[:8]))
    assert front == pytest.approx([x / norm for x in whole[:8]], abs=1e-6)


def test_many_clients_and_one_long_request(client: openai.OpenAI) -> None:
    """All get their own vectors, whoever else is in a step."""

    def vectors(texts: list[str]) -> list[list[float]]:
        answer = client.embeddings.create(model="near", input=texts)
        return [d.embedding for d in answer.data]

    texts = [f"text {n} " * (1 + n % 7) for n in range(40)]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        long = pool.submit(vectors, texts * 20)
        single = list(pool.map(lambda text: vectors([text])[0], texts))
        assert long.result() == single * 20


def test_a_chat_model_makes_no_vectors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="/v1/chat/completions") as caught:
        client.embeddings.create(model="chat", input="x")
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "model")


@pytest.mark.parametrize(("model", "path"), [("near", "/v1/embeddings"), ("rank", "/v1/rerank")])
def test_an_embedding_model_does_not_chat(client: openai.OpenAI, model: str, path: str) -> None:
    with pytest.raises(openai.BadRequestError, match=path) as caught:
        client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "x"}], stream=True
        )
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "model")
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=model, prompt="x")


def test_models_say_what_they_are_for(client: openai.OpenAI) -> None:
    found = {m.id: m for m in client.models.list()}
    assert {name: m.task for name, m in found.items()} == {  # type: ignore[attr-defined]
        "chat": "generate", "near": "embed", "nest": "embed", "rank": "rerank",
    }  # fmt: skip
    assert found["near"].capabilities == ["embed"]  # type: ignore[attr-defined]
    assert found["rank"].capabilities == ["rerank"]  # type: ignore[attr-defined]


# --- bytes ---

WRONG_INPUTS = [
    ({"input": []}, "empty_array", "input"),
    ({"input": ""}, "invalid_value", "input"),
    ({"input": ["a", ""]}, "invalid_value", "input[1]"),
    ({"input": [[1], []]}, "empty_array", "input[1]"),
    ({"input": {"text": "a"}}, "invalid_type", "input"),
    ({"input": [1, -1]}, "integer_below_min_value", "input[1]"),
    ({"input": ["a", [1]]}, "invalid_type", "input"),
    ({"input": ["a", None]}, "invalid_type", "input[1]"),
    ({"input": ["a"] * 2049}, "array_above_max_length", "input"),
    ({"input": None}, "invalid_type", "input"),
    ({}, "missing_required_parameter", "input"),
    ({"input": LONG}, "context_length_exceeded", "input"),
    ({"input": ["a", LONG]}, "context_length_exceeded", "input[1]"),
    ({"input": [[1], [99_999_999]]}, "invalid_value", "input[1]"),
    ({"input": "a", "encoding_format": "int8"}, "invalid_value", "encoding_format"),
    ({"input": "a", "dimensions": 0}, "integer_below_min_value", "dimensions"),
    ({"input": "a", "dimensions": 8}, "unsupported_value", "dimensions"),
    ({"input": "a", "prompt_name": "no"}, "invalid_value", "prompt_name"),
    ({"input": "a", "truncate_prompt_tokens": -2}, "integer_below_min_value",
     "truncate_prompt_tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code", "param"), WRONG_INPUTS, ids=lambda v: str(v)[:30])
def test_wrong_inputs(http: httpx.Client, fields: Any, code: str, param: str) -> None:
    response = http.post("/v1/embeddings", json={"model": "near", **fields})
    error = response.json()["error"]
    assert response.status_code == 400, error
    assert (error["code"], error["param"]) == (code, param)
    assert set(error) == {"message", "type", "param", "code"}


def test_the_message_of_a_text_that_is_too_long(http: httpx.Client) -> None:
    response = http.post("/v1/embeddings", json={"model": "near", "input": ["a", LONG]})
    message = response.json()["error"]["message"]
    assert "maximum context length is 8192 tokens" in message
    assert "'input[1]' has 33334 tokens" in message


def test_a_text_is_cut_on_demand(http: httpx.Client) -> None:
    body = {"model": "near", "input": LONG, "truncate_prompt_tokens": -1}
    answer = http.post("/v1/embeddings", json=body).json()
    assert answer["usage"] == {"prompt_tokens": 8192, "total_tokens": 8192}


def test_an_unknown_model(http: httpx.Client) -> None:
    response = http.post("/v1/embeddings", json={"model": "no", "input": "x"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1", ""])
def test_under_every_prefix(http: httpx.Client, prefix: str) -> None:
    response = http.post(f"{prefix}/embeddings", json={"model": "near", "input": "x"})
    assert response.status_code == 200
    assert response.headers["x-smmf-instance"] == "near-0"
    body = {"model": "rank", "query": "x", "documents": ["y"]}
    assert http.post(f"{prefix}/rerank", json=body).status_code == 200


def test_base64_is_little_endian_float32(http: httpx.Client) -> None:
    body = {"model": "near", "input": "x", "encoding_format": "base64"}
    text = http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    values = struct.unpack(f"<{DIMENSIONS}f", base64.b64decode(text))
    assert math.isclose(sum(v * v for v in values), 1, abs_tol=1e-5)


def test_rerank(http: httpx.Client) -> None:
    documents = ["stock market", {"text": "green birds sing"}, "green trees", "market"]
    body = {"model": "rank", "query": "green birds", "documents": documents}
    answer = http.post("/v1/rerank", json=body).json()
    assert answer["model"] == "rank"
    assert answer["id"].startswith("rerank-")
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert [result["index"] for result in answer["results"]][:2] == [1, 2]
    assert all("document" not in result for result in answer["results"])
    usage = answer["usage"]
    assert usage["prompt_tokens"] == usage["total_tokens"] > 0


def test_rerank_shows_the_best_documents(http: httpx.Client) -> None:
    documents = ["stock market", {"text": "green birds"}, "green trees"]
    body = {
        "model": "rank", "query": "green birds", "documents": documents,
        "top_n": 1, "return_documents": True,
    }  # fmt: skip
    (best,) = http.post("/v1/rerank", json=body).json()["results"]
    assert best["index"] == 1
    assert best["document"] == {"text": "green birds"}
    assert best["relevance_score"] == pytest.approx(1.0)
    assert len(http.post("/v1/rerank", json={**body, "top_n": 99}).json()["results"]) == 3


WRONG_RERANKS = [
    ({"documents": ["a"]}, "missing_required_parameter", "query"),
    ({"query": "", "documents": ["a"]}, "invalid_value", "query"),
    ({"query": "a"}, "missing_required_parameter", "documents"),
    ({"query": "a", "documents": []}, "empty_array", "documents"),
    ({"query": "a", "documents": ["a", ""]}, "invalid_value", "documents[1]"),
    ({"query": "a", "documents": ["a", 1]}, "invalid_type", "documents[1]"),
    ({"query": "a", "documents": ["a", {}]}, "missing_required_parameter", "documents[1].text"),
    ({"query": "a", "documents": ["a", LONG]}, "context_length_exceeded", "documents[1]"),
    ({"query": "a", "documents": ["a"], "top_n": 0}, "integer_below_min_value", "top_n"),
]


@pytest.mark.parametrize(("fields", "code", "param"), WRONG_RERANKS, ids=lambda v: str(v)[:30])
def test_wrong_reranks(http: httpx.Client, fields: Any, code: str, param: str) -> None:
    response = http.post("/v1/rerank", json={"model": "rank", **fields})
    error = response.json()["error"]
    assert response.status_code == 400, error
    assert (error["code"], error["param"]) == (code, param)


def test_documents_are_cut_on_demand(http: httpx.Client) -> None:
    body = {"model": "rank", "query": "abc", "documents": [LONG], "max_tokens_per_doc": 10}
    assert http.post("/v1/rerank", json=body).json()["usage"]["prompt_tokens"] == 11


def test_an_embedding_model_does_not_rerank(http: httpx.Client) -> None:
    response = http.post("/v1/rerank", json={"model": "near", "query": "a", "documents": ["b"]})
    assert response.status_code == 400
    assert "/v1/embeddings" in response.json()["error"]["message"]


def test_metrics_count_by_route(embed_server: Server, http: httpx.Client) -> None:
    name = 'smmf_requests_total{code="200",model="near",route="embeddings"}'
    tokens = 'smmf_prompt_tokens_total{model="near"}'
    before = embed_server.metrics()
    http.post("/v1/embeddings", json={"model": "near", "input": [[1, 2], [3]]})
    after = embed_server.metrics()
    assert after[name] - before.get(name, 0) == 1
    assert after[tokens] - before.get(tokens, 0) == 3
    assert after['smmf_requests_running{model="near"}'] == 0


# --- long answers ---


def test_long_answers_beside_others(embed_server: Server, client: openai.OpenAI) -> None:
    """They are rendered in threads: each client gets its own, whole."""

    def ask(seed: int) -> list[list[float]]:
        texts = [f"text {seed} {n}" for n in range(2048)]
        answer = client.embeddings.create(model="near", input=texts, encoding_format="float")
        assert answer.data[seed].index == seed
        return [answer.data[seed].embedding]

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(ask, range(6)))
    for seed, (row,) in enumerate(rows):
        alone = client.embeddings.create(
            model="near", input=f"text {seed} {seed}", encoding_format="float"
        )
        assert alone.data[0].embedding == row


def test_a_client_that_leaves_before_its_long_answer(
    embed_server: Server, client: openai.OpenAI
) -> None:
    body = json.dumps({"model": "near", "input": [f"text {n}" for n in range(2048)]}).encode()
    for wait_s in (0.0, 0.05, 0.1, 0.15, 0.2):
        with socket.create_connection(("127.0.0.1", embed_server.port)) as raw:
            raw.sendall(
                b"POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(body), body)
            )
            raw.settimeout(wait_s or None)
            if wait_s:
                with contextlib.suppress(TimeoutError):
                    raw.recv(1)
    assert len(client.embeddings.create(model="near", input="still here").data) == 1
