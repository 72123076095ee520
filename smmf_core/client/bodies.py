"""From a call's arguments to the request's path and JSON body, and how its answer is decoded.

Owns that; values are checked by the server only, so that there is one set of rules.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from smmf_core.client.types import (
    Chat,
    Completion,
    Embedding,
    Embeddings,
    Model,
    Models,
    Ranking,
    Scores,
    Text,
    Tokens,
    Usage,
)

Given = Mapping[str, object]
Messages = str | Sequence[Mapping[str, Any]]
T = TypeVar("T")


class Wanted(NamedTuple, Generic[T]):
    path: str
    fields: dict[str, Any] | None  # None: there is no body
    decode: Callable[[bytes], T]

    @property
    def body(self) -> bytes:
        return b"" if self.fields is None else msgspec.json.encode(self.fields)


class _Vector(msgspec.Struct):
    index: int
    embedding: bytes  # base64 of float32, little-endian


class _Vectors(msgspec.Struct):
    model: str
    data: list[_Vector]
    usage: Usage


_chat = msgspec.json.Decoder(Chat).decode
_completion = msgspec.json.Decoder(Completion).decode
_vectors = msgspec.json.Decoder(_Vectors).decode
_ranking = msgspec.json.Decoder(Ranking).decode
_scores = msgspec.json.Decoder(Scores).decode
_tokens = msgspec.json.Decoder(Tokens).decode
_text = msgspec.json.Decoder(Text).decode
_models = msgspec.json.Decoder(Models).decode


def chat(model: str, messages: Messages, stream: bool, options: Given) -> Wanted[Chat]:
    """`messages` as one text: a user's."""
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    fields = {"model": model, "messages": said, "stream": stream, **options}
    return Wanted("/v1/chat/completions", fields, _chat)


def complete(
    model: str, prompt: str | Sequence[Any], stream: bool, options: Given
) -> Wanted[Completion]:
    fields = {"model": model, "prompt": prompt, "stream": stream, **options}
    return Wanted("/v1/completions", fields, _completion)


def embed(model: str, texts: str | Sequence[Any], options: Given) -> Wanted[Embeddings]:
    fields = {"model": model, "input": texts, **options, "encoding_format": "base64"}
    return Wanted("/v1/embeddings", fields, _embeddings)


def rerank(model: str, query: str, documents: Sequence[str], options: Given) -> Wanted[Ranking]:
    fields = {"model": model, "query": query, "documents": documents, **options}
    return Wanted("/v1/rerank", fields, _ranking)


def score(
    model: str, queries: str | Sequence[str], texts: str | Sequence[str], options: Given
) -> Wanted[Scores]:
    fields = {"model": model, "text_1": queries, "text_2": texts, **options}
    return Wanted("/v1/score", fields, _scores)


def tokenize(model: str, said: Messages, options: Given) -> Wanted[Tokens]:
    name = "prompt" if isinstance(said, str) else "messages"
    return Wanted("/tokenize", {"model": model, name: said, **options}, _tokens)


def detokenize(model: str, tokens: Sequence[int], options: Given) -> Wanted[str]:
    fields = {"model": model, "tokens": tokens, **options}
    return Wanted("/detokenize", fields, lambda body: _text(body).prompt)


def models() -> Wanted[list[Model]]:
    return Wanted("/v1/models", None, lambda body: _models(body).data)


def _embeddings(body: bytes) -> Embeddings:
    said = _vectors(body)
    rows = [Embedding(row.index, array("f", row.embedding).tolist()) for row in said.data]
    return Embeddings(model=said.model, data=rows, usage=said.usage)
