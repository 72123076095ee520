"""`POST /v1/score`: the scores of pairs of texts, as vLLM shapes it.

Owns which text goes with which: one with one, one with each of many, or many with as many. Must
not compute scores.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from smmf_core.api.openai.decode import decode
from smmf_core.api.openai.schema import Text
from smmf_core.api.openai.wanted import Common, Wanted, check_texts, make_wanted, render_usage
from smmf_core.errors import ApiError
from smmf_core.messages import Embed, Usage, Vectors

_encode = msgspec.json.encode

Texts = Annotated[list[str], Meta(min_length=1)]


class ScoreBody(Common, kw_only=True, gc=False):
    """`POST /v1/score`"""

    text_1: Text | Texts
    text_2: Text | Texts
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    user: str | None = None


_decoder = msgspec.json.Decoder(ScoreBody)


def parse_score(body: bytes, unique_id: str, created: int = 0) -> Wanted:
    """Decode and validate. Raises ApiError (400)."""
    request = decode(_decoder, body)
    queries, texts = _texts("text_1", request.text_1), _texts("text_2", request.text_2)
    if len(queries) not in (1, len(texts)):
        text = f"'text_1' has {len(queries)} texts, 'text_2' {len(texts)}"
        rule = "Expected one text in 'text_1', or as many as in 'text_2'."
        raise ApiError("invalid_value", f"Invalid 'text_1': {text}. {rule}", "text_1")
    is_one = len(queries) == 1
    embed = Embed(
        key=0,
        attempt=0,
        request_id="",
        model=request.model,
        inputs=[*texts],
        query=queries[0] if is_one else None,
        max_tokens=request.truncate_prompt_tokens or 0,
        priority=request.priority or 0,
        queries=None if is_one else queries,
        param="text_2",
    )
    size = sum(map(len, texts)) + sum(map(len, queries)) * (len(texts) if is_one else 1)
    renderer = ScoreRenderer(request.model, unique_id, created)
    return make_wanted(request, embed, renderer, size)


def _texts(name: str, given: str | list[str]) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    check_texts(name, texts)
    return texts


class ScoreRenderer:
    """One answer as bytes: a score for each pair, in the given order."""

    __slots__ = ("_created", "_id", "model")

    def __init__(self, model: str, unique_id: str, created: int) -> None:
        self.model = model
        self._id = unique_id.encode()
        self._created = created

    def response(self, vectors: Vectors, usage: Usage) -> bytes:
        scores = memoryview(vectors.data).cast("f").tolist()
        data = b",".join(
            [
                b'{"index":%d,"object":"score","score":%b}' % (index, _encode(score))
                for index, score in enumerate(scores)
            ]
        )
        head = b'{"id":"score-%b","object":"list","created":%d' % (self._id, self._created)
        return b'%b,"model":%b,"data":[%b],"usage":%b}' % (
            head, _encode(self.model), data, render_usage(usage),
        )  # fmt: skip
