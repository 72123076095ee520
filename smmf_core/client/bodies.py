"""From a call's arguments to the request's path and JSON body, and how its answer is decoded.

Owns that; values are checked by the server only, so that there is one set of rules.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from smmf_core.client.types import Chat, Completion, Embedding, Embeddings, Models, Ranking, Usage


class Wanted(NamedTuple):
    path: str
    fields: dict[str, Any] | None  # None: there is no body
    decode: Callable[[bytes], Any]

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
_models = msgspec.json.Decoder(Models).decode


def chat(
    model: str, messages: str | Sequence[dict[str, Any]], stream: bool, options: dict[str, Any]
) -> Wanted:
    """`messages` as one text: a user's."""
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    fields = {"model": model, "messages": said, "stream": stream, **options}
    return Wanted("/v1/chat/completions", fields, _chat)


def complete(
    model: str, prompt: str | Sequence[Any], stream: bool, options: dict[str, Any]
) -> Wanted:
    fields = {"model": model, "prompt": prompt, "stream": stream, **options}
    return Wanted("/v1/completions", fields, _completion)


def embed(model: str, texts: str | Sequence[Any], options: dict[str, Any]) -> Wanted:
    fields = {"model": model, "input": texts, **options, "encoding_format": "base64"}
    return Wanted("/v1/embeddings", fields, _embeddings)


def rerank(model: str, query: str, documents: Sequence[str], options: dict[str, Any]) -> Wanted:
    fields = {"model": model, "query": query, "documents": documents, **options}
    return Wanted("/v1/rerank", fields, _ranking)


def models() -> Wanted:
    return Wanted("/v1/models", None, lambda body: _models(body).data)


def _embeddings(body: bytes) -> Embeddings:
    said = _vectors(body)
    rows = [Embedding(row.index, array("f", row.embedding).tolist()) for row in said.data]
    return Embeddings(model=said.model, data=rows, usage=said.usage)
