"""`POST /v1/rerank`: body bytes in, an Embed with a query out; scores in, response bytes out.

Owns the shape that Jina's and Cohere's clients share; must not compute scores.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from smmf_core.api.openai.decode import decode
from smmf_core.api.openai.embeddings import Wanted, check_count, empty_text, render_usage
from smmf_core.api.openai.extensions import keep_alive_seconds, parse_require
from smmf_core.api.openai.schema import Count, Priority, Text
from smmf_core.messages import Embed, Usage, Vectors

_encode = msgspec.json.encode


class Document(msgspec.Struct, gc=False):
    text: str


class RerankBody(msgspec.Struct, kw_only=True, gc=False):
    """Every optional field accepts null, which means omitted."""

    model: Text
    query: Text
    documents: Annotated[list[str | Document], Meta(min_length=1)]
    top_n: Count | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: Count | None = None
    # extensions
    priority: Priority | None = None
    keep_alive: float | str | None = None
    smmf: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(RerankBody)


def parse_rerank(body: bytes, unique_id: str) -> Wanted:
    """Decode and validate. Raises ApiError (400) that names the document which is wrong."""
    request = decode(_decoder, body)
    check_count("documents", len(request.documents))
    documents = [d if isinstance(d, str) else d.text for d in request.documents]
    if "" in documents:
        raise empty_text(f"documents[{documents.index('')}]")
    embed = Embed(
        key=0,
        attempt=0,
        request_id="",
        model=request.model,
        inputs=[*documents],
        query=request.query,
        max_tokens=request.max_tokens_per_doc or 0,
        priority=request.priority or 0,
    )
    shown = documents if request.return_documents else None
    renderer = RerankRenderer(request.model, unique_id, request.top_n, shown)
    size = sum(map(len, documents)) + len(request.query) * len(documents)
    keep_alive_s = keep_alive_seconds(request.keep_alive)
    return Wanted(embed, renderer, size, keep_alive_s, parse_require(request.smmf))


class RerankRenderer:
    """One answer as bytes: results by score, the best first; equal ones in the given order."""

    __slots__ = ("_documents", "_id", "_top_n", "model")

    def __init__(
        self, model: str, unique_id: str, top_n: int | None, documents: list[str] | None
    ) -> None:
        self.model = model
        self._id = unique_id
        self._top_n = top_n
        self._documents = documents

    def response(self, vectors: Vectors, usage: Usage) -> bytes:
        scores = memoryview(vectors.data).cast("f")
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[: self._top_n]
        results = b",".join([self._result(index, scores[index]) for index in order])
        return b'{"id":"rerank-%b","model":%b,"results":[%b],"usage":%b}' % (
            self._id.encode(), _encode(self.model), results, render_usage(usage),
        )  # fmt: skip

    def _result(self, index: int, score: float) -> bytes:
        document = b""
        if self._documents is not None:
            document = b',"document":{"text":%b}' % _encode(self._documents[index])
        return b'{"index":%d,"relevance_score":%b%b}' % (index, _encode(score), document)
