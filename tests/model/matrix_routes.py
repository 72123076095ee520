"""The support matrix's checks of the other routes: completions, vectors, scores, tokens."""

from __future__ import annotations

import base64
import struct
from typing import Any

from matrix_checks import Model, Row

TEXTS = ["A man is eating food.", "Someone is having a meal.", "The stock market crashed."]

# --- completions ---


def texts(found: dict[str, Any]) -> list[str]:
    return [choice["text"] for choice in found["choices"]]


def prompts(m: Model) -> None:
    """The four forms say the same; indexes count prompts times n."""
    one, two = texts(m.complete("The"))[0], texts(m.complete("A river"))[0]
    assert texts(m.complete(["The", "A river"])) == [one, two]
    ids = [m.post("/tokenize", prompt=prompt)["tokens"] for prompt in ("The", "A river")]
    assert texts(m.complete(ids[0])) == [one]
    assert texts(m.complete(ids)) == [one, two]
    several = m.complete(["The", "A river"], n=2)
    assert texts(several) == [one, one, two, two]
    assert [choice["index"] for choice in several["choices"]] == [0, 1, 2, 3]


def echo(m: Model) -> None:
    answer = texts(m.complete("The fox"))[0]
    assert texts(m.complete("The fox", echo=True)) == ["The fox" + answer]


def echo_logprobs(m: Model) -> None:
    """What lm-eval asks for: the likelihood of a prompt of token ids."""
    ids = m.post("/tokenize", prompt="The fox and the river")["tokens"]
    for fields in ({"max_tokens": 0}, {"max_tokens": 1}):
        (choice,) = m.complete([ids], echo=True, logprobs=1, **fields)["choices"]
        found = choice["logprobs"]
        assert "".join(found["tokens"]) == choice["text"]
        assert len(found["tokens"]) == len(ids) + fields["max_tokens"]
        assert found["token_logprobs"][0] is None
        assert found["top_logprobs"][0] is None
        assert all(value <= 0 for value in found["token_logprobs"][1:])
        assert found["text_offset"] == [
            sum(map(len, found["tokens"][:k])) for k in range(len(found["tokens"]))
        ]


def completion_logprobs(m: Model) -> None:
    (choice,) = m.complete("The", logprobs=3)["choices"]
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert all(len(top) == 3 for top in choice["logprobs"]["top_logprobs"])


def default_length(m: Model) -> None:
    body = {"prompt": "The", "temperature": 0, "ignore_eos": True}
    assert m.post("/v1/completions", **body)["usage"]["completion_tokens"] == 16


def suffix(m: Model) -> None:
    m.complete(suffix="end")


def best_of(m: Model) -> None:
    m.complete(best_of=1)
    m.complete(best_of=3)


COMPLETIONS = [
    Row("prompt", prompts, "a text, texts, token ids, lists of token ids"),
    Row("max_tokens", default_length, "16 where it is not given"),
    Row("logprobs", completion_logprobs, "up to 20"),
    Row("echo", echo, ""),
    Row("echo with logprobs, max_tokens 0", echo_logprobs, "for evaluations"),
    Row("suffix", suffix, ""),
    Row("best_of", best_of, "other than `n`"),
]

# --- tokens ---


def tokenize(m: Model) -> None:
    ids = m.tokens("Hello river")
    assert m.post("/detokenize", tokens=ids)["prompt"] == "Hello river"
    messages = [{"role": "user", "content": "Hello river"}]
    counted = m.post("/tokenize", messages=messages)["count"]
    assert counted == m.chat(messages)["usage"]["prompt_tokens"]


TOKENS = [Row("/tokenize, /detokenize", tokenize, "texts and messages")]

# --- vectors ---


def vectors(m: Model, given: Any, **fields: Any) -> list[list[float]]:
    body = {"input": given, "encoding_format": "float", **fields}
    return [entry["embedding"] for entry in m.post("/v1/embeddings", **body)["data"]]


def near(one: list[float], other: list[float]) -> bool:
    return (
        len(one) == len(other) and max(abs(a - b) for a, b in zip(one, other, strict=True)) < 1e-4
    )


def inputs(m: Model) -> None:
    alone = [vectors(m, text)[0] for text in TEXTS]
    together = vectors(m, TEXTS)
    ids = [m.post("/tokenize", prompt=text)["tokens"] for text in TEXTS]
    for found in (together, vectors(m, ids), [*vectors(m, ids[0]), *alone[1:]]):
        assert all(map(near, found, alone))
    assert abs(sum(value * value for value in alone[0]) - 1) < 1e-3


def encoding_format(m: Model) -> None:
    (entry,) = m.post("/v1/embeddings", input=TEXTS[0], encoding_format="base64")["data"]
    raw = base64.b64decode(entry["embedding"])
    assert near(list(struct.unpack(f"<{len(raw) // 4}f", raw)), vectors(m, TEXTS[0])[0])


def dimensions(m: Model) -> None:
    width = len(vectors(m, "x")[0])
    assert near(vectors(m, "x", dimensions=width)[0], vectors(m, "x")[0])
    assert len(vectors(m, "x", dimensions=width // 2)[0]) == width // 2


def pair_scores(m: Model) -> None:
    answer = m.post("/v1/score", text_1=TEXTS[0], text_2=TEXTS)
    same, meal, stock = (entry["score"] for entry in answer["data"])
    assert abs(same - 1) < 1e-3
    assert meal > stock or m.name == "echo-embed"  # whose words have no meaning


EMBEDDINGS = [
    Row("/v1/embeddings: input", inputs, "a text, texts, token ids, lists of token ids"),
    Row("/v1/embeddings: encoding_format", encoding_format, "float, base64"),
    Row(
        "/v1/embeddings: dimensions",
        dimensions,
        "of Matryoshka models, which these are not",
        "dimensions",
    ),
    Row("/v1/score", pair_scores, "the cosine of the vectors"),
]

# --- scores ---

QUERY = {"query": TEXTS[0], "documents": TEXTS}


def ranked(m: Model) -> None:
    results = m.post("/v1/rerank", **QUERY)["results"]
    values = [result["relevance_score"] for result in results]
    assert values == sorted(values, reverse=True)
    assert sorted(result["index"] for result in results) == [0, 1, 2]
    (best,) = m.post("/v2/rerank", **QUERY, top_n=1, return_documents=True)["results"]
    assert best == {**results[0], "document": {"text": TEXTS[best["index"]]}}


def relevance(m: Model) -> None:
    scores = m.post("/v1/beta/relevance", **QUERY)["data"]
    pairs = m.post("/v1/score", text_1=TEXTS[0], text_2=TEXTS)["data"]
    ranked = m.post("/v1/rerank", **QUERY)["results"]
    for result in ranked:
        score = result["relevance_score"]
        assert near([score, score], [scores[result["index"]], pairs[result["index"]]["score"]])


RERANK = [
    Row("/v1/rerank, /v2/rerank, /rerank", ranked, "top_n, return_documents"),
    Row("/v1/score, /v1/beta/relevance", relevance, "the same scores"),
]
