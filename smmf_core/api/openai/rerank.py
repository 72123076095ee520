"""Documents by how well they answer a query: body bytes in, an Embed with a query out; scores in,
response bytes out.

Owns the shapes: what Jina's and Cohere's clients share (`/v1/rerank`), Cohere's second version
(`/v2/rerank`), DB-GPT's `/v1/beta/relevance`. Must not compute scores.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from smmf_core.api.openai.decode import decode
from smmf_core.api.openai.schema import Count, Text
from smmf_core.api.openai.wanted import (
    Common,
    Wanted,
    WholeRenderer,
    check_texts,
    make_wanted,
    render_usage,
)
from smmf_core.messages import Embed, Usage, Vectors

_COHERE_TOKENS = 4096  # of a document, where the client of /v2/rerank does not say
_COHERE_UNIT = 100  # documents

_encode = msgspec.json.encode


class Document(msgspec.Struct, gc=False):
    text: str


class RerankBody(Common, kw_only=True, gc=False):
    """`POST /v1/rerank`, `POST /v2/rerank`"""

    query: Text
    documents: Annotated[list[str | Document], Meta(min_length=1)]
    top_n: Count | None = None
    return_documents: bool | None = None
    max_tokens_per_doc: Count | None = None


class RelevanceBody(Common, kw_only=True, gc=False):
    """`POST /v1/beta/relevance`"""

    query: Text
    documents: Annotated[list[str], Meta(min_length=1)]


_decoder = msgspec.json.Decoder(RerankBody)
_relevance_decoder = msgspec.json.Decoder(RelevanceBody)


def parse_rerank(body: bytes, unique_id: str, created: int = 0) -> Wanted:
    """Decode and validate. Raises ApiError (400) that names the document which is wrong."""
    request = decode(_decoder, body)
    return _rerank(request, RerankRenderer(unique_id, request), request.max_tokens_per_doc or 0)


def parse_rerank_v2(body: bytes, unique_id: str, created: int = 0) -> Wanted:
    """As parse_rerank; long documents are cut, as Cohere cuts them."""
    request = decode(_decoder, body)
    tokens = request.max_tokens_per_doc or _COHERE_TOKENS
    return _rerank(request, RerankV2Renderer(unique_id, request), tokens)


def parse_relevance(body: bytes, unique_id: str, created: int = 0) -> Wanted:
    """As parse_rerank."""
    request = decode(_relevance_decoder, body)
    return _rerank(request, RelevanceRenderer(request.model), 0)


def _rerank(
    request: RerankBody | RelevanceBody, renderer: WholeRenderer, max_tokens: int
) -> Wanted:
    documents = _texts(request)
    check_texts("documents", documents)
    embed = Embed(
        key=0,
        attempt=0,
        request_id="",
        model=request.model,
        inputs=[*documents],
        query=request.query,
        max_tokens=max_tokens,
        priority=request.priority or 0,
        param="documents",
    )
    size = sum(map(len, documents)) + len(request.query) * len(documents)
    return make_wanted(request, embed, renderer, size)


def _texts(request: RerankBody | RelevanceBody) -> list[str]:
    return [d if isinstance(d, str) else d.text for d in request.documents]


class RerankRenderer:
    """One answer as bytes: results by score, the best first; equal ones in the given order."""

    __slots__ = ("_documents", "_id", "_top_n", "model")

    def __init__(self, unique_id: str, request: RerankBody) -> None:
        self.model = request.model
        self._id = b"rerank-%b" % unique_id.encode()
        self._top_n = request.top_n
        self._documents = _texts(request) if request.return_documents else None

    def response(self, vectors: Vectors, usage: Usage) -> bytes:
        scores = memoryview(vectors.data).cast("f")
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[: self._top_n]
        results = b",".join([self._result(index, scores[index]) for index in order])
        return b'{"id":"%b","model":%b,"results":[%b],"usage":%b%b}' % (
            self._id, _encode(self.model), results, render_usage(usage),
            self._more(len(scores), usage),
        )  # fmt: skip

    def _more(self, documents: int, usage: Usage) -> bytes:
        return b""

    def _result(self, index: int, score: float) -> bytes:
        document = b""
        if self._documents is not None:
            document = b',"document":{"text":%b}' % _encode(self._documents[index])
        return b'{"index":%d,"relevance_score":%b%b}' % (index, _encode(score), document)


class RerankV2Renderer(RerankRenderer):
    """With what Cohere tells of the call."""

    __slots__ = ()

    def _more(self, documents: int, usage: Usage) -> bytes:
        units = -(-documents // _COHERE_UNIT)
        return (
            b',"meta":{"api_version":{"version":"2"},"billed_units":{"search_units":%d},'
            b'"tokens":{"input_tokens":%d}}' % (units, usage.prompt)
        )


class RelevanceRenderer:
    """The scores in the order of the documents."""

    __slots__ = ("model",)

    def __init__(self, model: str) -> None:
        self.model = model

    def response(self, vectors: Vectors, usage: Usage) -> bytes:
        scores = memoryview(vectors.data).cast("f").tolist()
        return b'{"object":"list","model":%b,"data":%b,"usage":%b}' % (
            _encode(self.model), _encode(scores), render_usage(usage),
        )  # fmt: skip
