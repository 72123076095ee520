"""Retrieval-augmented generation: embed documents, find the nearest ones, answer from them.

    smmf serve configs/local-demo.toml tests/examples/local-near.toml
    python tests/examples/rag.py "What is the price of the lamp?"

OPENAI_BASE_URL, MODEL and EMBEDDING_MODEL name another server and other models.
"""

from __future__ import annotations

import os
import sys

from openai import OpenAI

MODEL = os.environ.get("MODEL", "demo")
EMBEDDING_MODEL = os.environ.get("EMBEDDING_MODEL", "near")
DOCUMENTS = [
    "The code of the garage is 4821.",
    "The code of the cellar is 1177.",
    "The owner of the boat is Grace.",
    "The price of the lamp is 12 euros.",
    "The place of the bicycle is Zurich.",
]

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "unused"),
)


def embed(texts: list[str]) -> list[list[float]]:
    answer = client.embeddings.create(model=EMBEDDING_MODEL, input=texts)
    return [item.embedding for item in answer.data]


def cosine(a: list[float], b: list[float]) -> float:
    """Vectors come with a length of 1."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def nearest(question: str, count: int = 2) -> list[str]:
    """The documents nearest to a question, the best one first."""
    vectors = embed(DOCUMENTS)  # a real application keeps them
    (asked,) = embed([question])
    by_score = sorted(
        zip(DOCUMENTS, vectors, strict=True), key=lambda pair: cosine(asked, pair[1]), reverse=True
    )
    return [document for document, _ in by_score[:count]]


def answer(question: str) -> str:
    context = nearest(question)
    print("found:", *context, sep="\n  ")
    prompt = f"Text: {' '.join(context)}\nQuestion: {question}"
    said = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=100
    )
    return said.choices[0].message.content or ""


if __name__ == "__main__":
    question = " ".join(sys.argv[1:]) or "What is the price of the lamp?"
    print("answer:", answer(question))
