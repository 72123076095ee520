"""`POST /v1/embeddings`: body bytes in, an Embed out; a Worker's vectors in, response bytes out.

Owns what clients see of embeddings (openai-openapi 2.3.0, with vLLM's and our extensions); must not
compute any.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from smmf_core.api.openai.decode import decode
from smmf_core.api.openai.schema import Count, Prompts
from smmf_core.api.openai.wanted import (
    Common,
    Wanted,
    check_count,
    empty_text,
    make_wanted,
    render_usage,
)
from smmf_core.errors import ApiError
from smmf_core.messages import Embed, Usage, Vectors
from smmf_core.native._vectors import render_embeddings

_BYTES_PER_TOKEN = 4  # for inputs that come as token ids

_encode = msgspec.json.encode


class EmbeddingsBody(Common, kw_only=True, gc=False):
    """`POST /v1/embeddings`"""

    input: str | Prompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    user: str | None = None
    # extensions
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    prompt_name: str | None = None


_decoder = msgspec.json.Decoder(EmbeddingsBody)


def parse_embeddings(body: bytes, unique_id: str, created: int = 0) -> Wanted:
    """Decode and validate. Raises ApiError (400) that names the input which is wrong."""
    request = decode(_decoder, body)
    inputs = _inputs(request.input)
    embed = Embed(
        key=0,
        attempt=0,
        request_id="",
        model=request.model,
        inputs=inputs,
        dimensions=request.dimensions,
        max_tokens=request.truncate_prompt_tokens or 0,
        prompt_name=request.prompt_name,
        priority=request.priority or 0,
    )
    size = sum(len(i) if isinstance(i, str) else len(i) * _BYTES_PER_TOKEN for i in inputs)
    renderer = EmbeddingsRenderer(request.model, request.encoding_format == "base64")
    return make_wanted(request, embed, renderer, size)


def _inputs(given: str | list[Any]) -> list[str | list[int]]:
    """The four forms as one: texts or token lists, one per input."""
    if isinstance(given, str):
        if not given:
            raise empty_text("input")
        return [given]
    kinds = set(map(type, given))
    if kinds == {int}:
        return [given]
    check_count("input", len(given))
    if len(kinds) > 1:
        text = "Invalid 'input': all its items must be of one type."
        raise ApiError("invalid_type", text, "input")
    if "" in given:
        raise empty_text(f"input[{given.index('')}]")
    return given


class EmbeddingsRenderer:
    """One answer as bytes; `model` is what it calls the model."""

    __slots__ = ("_is_base64", "model")

    def __init__(self, model: str, is_base64: bool) -> None:
        self.model = model
        self._is_base64 = is_base64

    def response(self, vectors: Vectors, usage: Usage) -> bytes:
        """May run beside the loop: it lets go of the GIL."""
        tail = b'],"model":%b,"usage":%b}' % (_encode(self.model), render_usage(usage))
        head = b'{"object":"list","data":['
        return render_embeddings(vectors.data, vectors.dimensions, self._is_base64, head, tail)
