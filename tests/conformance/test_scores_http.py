"""Scores in all their shapes through a real server with echo models, and who may ask for them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from server import Server, echo_toml

from smmf_core.http.access_log import fields_of

KEY = "sk-scores"
DOCUMENTS = ["stock market", "green birds sing", "green trees"]
ASK = {"model": "rank", "query": "green birds", "documents": DOCUMENTS}


def model_toml(name: str, task: str, loads: bool = True) -> str:
    lines = ["[model]", f'name = "{name}"', 'backend = "echo"', f'task = "{task}"']
    lines += ["[deployment]", f"autostart = {json.dumps(loads)}"]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("scores")
    (folder / "local-chat.toml").write_text(echo_toml("chat"))
    (folder / "local-rank.toml").write_text(model_toml("rank", "rerank"))
    (folder / "local-vectors.toml").write_text(model_toml("vectors", "embed"))
    (folder / "local-later.toml").write_text(model_toml("later", "rerank", loads=False))
    (folder / "smmf.toml").write_text(f'[server]\napi_keys = ["{KEY}"]\n')
    started = Server(folder).start()
    yield started
    assert started.stop() == 0


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    base_url = f"http://127.0.0.1:{server.port}"
    with httpx.Client(base_url=base_url, headers=headers, timeout=60) as http:
        yield http


def logged(server: Server, request_id: str) -> dict[str, Any]:
    """A line of the access log; they are written a few times a second."""
    (path,) = server.run_dir.rglob("access.log")
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for line in path.read_text().splitlines():
            if request_id in line:
                return fields_of(line)
        time.sleep(0.02)
    raise AssertionError(path.read_text())


@pytest.mark.parametrize(
    "path", ["/v1/beta/relevance", "/api/v1/beta/relevance", "/beta/relevance"]
)
def test_relevance_is_in_the_order_of_the_documents(http: httpx.Client, path: str) -> None:
    answer = http.post(path, json=ASK).json()
    ranked = http.post("/v1/rerank", json=ASK).json()["results"]
    by_index = {result["index"]: result["relevance_score"] for result in ranked}
    assert answer["data"] == [by_index[i] for i in range(3)]
    assert (answer["object"], answer["model"]) == ("list", "rank")
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0


def test_cohere_cuts_long_documents(http: httpx.Client) -> None:
    ask = {**ASK, "documents": ["word " * 20_000, "green birds"], "top_n": 1}
    answer = http.post("/v2/rerank", json=ask).json()
    assert [result["index"] for result in answer["results"]] == [1]
    assert answer["meta"]["billed_units"] == {"search_units": 1}
    assert answer["meta"]["tokens"]["input_tokens"] == answer["usage"]["prompt_tokens"]
    assert http.post("/v1/rerank", json=ask).json()["error"]["param"] == "documents[0]"


@pytest.mark.parametrize("path", ["/v1/score", "/api/v1/score", "/score"])
def test_scores_of_pairs(http: httpx.Client, path: str) -> None:
    queries = ["green birds", "stock", "trees"]
    ask = {"model": "rank", "text_1": queries, "text_2": DOCUMENTS}
    answer = http.post(path, json=ask).json()
    assert [entry["index"] for entry in answer["data"]] == [0, 1, 2]
    for query, document, entry in zip(queries, DOCUMENTS, answer["data"], strict=True):
        alone = {"model": "rank", "text_1": query, "text_2": document}
        assert http.post(path, json=alone).json()["data"][0]["score"] == entry["score"]
    assert answer["id"].startswith("score-")
    assert answer["created"] > 0


def test_one_text_with_each_of_many_is_a_rerank(http: httpx.Client) -> None:
    ask = {"model": "rank", "text_1": ASK["query"], "text_2": DOCUMENTS}
    scores = [entry["score"] for entry in http.post("/v1/score", json=ask).json()["data"]]
    assert scores == http.post("/v1/beta/relevance", json=ASK).json()["data"]


def test_an_embedding_model_scores_by_its_vectors(http: httpx.Client) -> None:
    """The cosine of each pair, and tokens of every text that was computed."""
    vectors = {}
    texts = ["green birds", "stock", "trees", *DOCUMENTS]
    body = {"model": "vectors", "input": texts, "encoding_format": "float"}
    embedded = http.post("/v1/embeddings", json=body).json()
    for text, entry in zip(texts, embedded["data"], strict=True):
        vectors[text] = entry["embedding"]

    def cosine(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(vectors[one], vectors[other], strict=True))

    for queries in (texts[:3], texts[0]):
        ask = {"model": "vectors", "text_1": queries, "text_2": DOCUMENTS}
        answer = http.post("/v1/score", json=ask).json()
        pairs = zip(queries if isinstance(queries, list) else [queries] * 3, DOCUMENTS, strict=True)
        scores = [entry["score"] for entry in answer["data"]]
        assert scores == pytest.approx([cosine(*pair) for pair in pairs], abs=1e-6)
        assert [entry["index"] for entry in answer["data"]] == [0, 1, 2]
        counted = {"model": "vectors", "input": [*queries, *DOCUMENTS]}
        if isinstance(queries, list):
            usage = http.post("/v1/embeddings", json=counted).json()["usage"]
            assert answer["usage"] == usage
    same = {"model": "vectors", "text_1": "green birds", "text_2": "green birds"}
    (entry,) = http.post("/v1/score", json=same).json()["data"]
    assert entry["score"] == pytest.approx(1, abs=1e-6)
    for side, other in (("text_1", "text_2"), ("text_2", "text_1")):
        ask = {"model": "vectors", side: ["a", "word " * 20_000], other: ["a", "b"]}
        error = http.post("/v1/score", json=ask).json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", f"{side}[1]")
        assert "with the query" not in error["message"]


def test_a_text_that_is_too_long_is_named(http: httpx.Client) -> None:
    ask = {"model": "rank", "text_1": ["a", "b"], "text_2": ["c", "word " * 20_000]}
    response = http.post("/v1/score", json=ask)
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["code"], error["param"]) == ("context_length_exceeded", "text_2[1]")
    cut = http.post("/v1/score", json={**ask, "truncate_prompt_tokens": 10})
    assert cut.json()["usage"]["prompt_tokens"] == 1 + 1 + 1 + 10


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/score", {"text_1": "a", "text_2": "b"}),
        ("/v2/rerank", {"query": "a", "documents": ["b"]}),
        ("/v1/beta/relevance", {"query": "a", "documents": ["b"]}),
    ],
)
def test_other_models_do_not_score(http: httpx.Client, path: str, body: Any) -> None:
    response = http.post(path, json={"model": "chat", **body})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (
        400, "unsupported_value", "model",
    )  # fmt: skip
    assert "/v1/chat/completions" in error["message"]


def test_auto_finds_a_model_that_scores(http: httpx.Client) -> None:
    answer = http.post("/v1/score", json={"model": "auto", "text_1": "a", "text_2": "b"}).json()
    assert answer["model"] == "rank"
    needs = {"smmf": {"require": {"embedding_dimension": 32}}}  # which a rerank model has not
    ask = {"model": "auto", "text_1": "a", "text_2": "b", **needs}
    assert http.post("/v1/score", json=ask).json()["model"] == "vectors"


def test_a_model_loads_for_it(http: httpx.Client) -> None:
    response = http.post("/v1/beta/relevance", json={**ASK, "model": "later"})
    assert response.status_code == 200
    assert response.headers["x-smmf-instance"].startswith("later-")


@pytest.mark.parametrize("path", ["/v1/score", "/v2/rerank", "/v1/beta/relevance", "/tokenize"])
def test_a_key_is_needed(server: Server, path: str) -> None:
    status, _, body = server.request("POST", path, {"model": "rank"})
    assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_api_key")
    assert server.request("GET", path)[0] == 405


def test_they_are_counted_and_logged(server: Server, http: httpx.Client) -> None:
    headers = {"x-request-id": "find-me"}
    http.post("/v1/score", json={"model": "rank", "text_1": "a", "text_2": "b"}, headers=headers)
    http.post("/tokenize", json={"model": "rank", "prompt": "abc"})
    http.post("/detokenize", json={"model": "rank", "tokens": [1, 2**31]})
    metrics = http.get("/metrics").text
    assert 'smmf_requests_total{code="200",model="rank",route="score"}' in metrics
    assert 'smmf_requests_total{code="200",model="rank",route="tokenize"}' in metrics
    assert 'smmf_requests_total{code="400",model="",route="detokenize"}' in metrics
    line = logged(server, "find-me")
    assert (line["route"], line["status"], line["model"]) == ("score", 200, "rank")
    assert (line["key"], line["prompt_tokens"]) == ("config-1", 2)


def test_the_official_client_reads_refusals(server: Server) -> None:
    """It knows no such route, but it can post."""
    with (
        openai.OpenAI(base_url=server.base_url, api_key=KEY, max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as caught,
    ):
        client.post("/score", body={"model": "rank", "text_1": "a"}, cast_to=object)
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", "text_2")
