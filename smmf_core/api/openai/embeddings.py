"""`POST /v1/embeddings`: body bytes in, an Embed out; a Worker's vectors in, response bytes out.

Owns what clients see of embeddings (openai-openapi 2.3.0, with vLLM's and our extensions); must not
compute any.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import Meta

from smmf_core.api.openai.decode import decode
from smmf_core.api.openai.extensions import Require, keep_alive_seconds, parse_require
from smmf_core.api.openai.schema import Count, Priority, Prompts, Text
from smmf_core.errors import ApiError
from smmf_core.messages import Embed, Usage, Vectors

MAX_INPUTS = 2048  # OpenAI's bound
_BYTES_PER_TOKEN = 4  # for inputs that come as token ids
_FLOAT_BYTES = 4

_encode = msgspec.json.encode


class EmbeddingsBody(msgspec.Struct, kw_only=True, gc=False):
    """Every optional field accepts null, which means omitted."""

    model: Text
    input: str | Prompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    user: str | None = None
    # extensions
    truncate_prompt_tokens: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    prompt_name: str | None = None
    priority: Priority | None = None
    keep_alive: float | str | None = None
    smmf: dict[str, Any] | None = None


class VectorRenderer(Protocol):
    model: str  # as the answer calls it

    def response(self, vectors: Vectors, usage: Usage) -> bytes: ...


class Wanted(msgspec.Struct, gc=False):
    """One valid request for vectors or scores. The Router fills `embed.key` and the like."""

    embed: Embed
    renderer: VectorRenderer
    input_bytes: int  # an estimate
    keep_alive_s: float | None
    require: Require | None


_decoder = msgspec.json.Decoder(EmbeddingsBody)


def parse_embeddings(body: bytes, unique_id: str) -> Wanted:
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
    keep_alive_s = keep_alive_seconds(request.keep_alive)
    return Wanted(embed, renderer, size, keep_alive_s, parse_require(request.smmf))


def check_count(name: str, count: int) -> None:
    if count > MAX_INPUTS:
        text = f"array too long. Expected an array with maximum length {MAX_INPUTS}"
        got = f"but got an array with length {count} instead."
        raise ApiError("array_above_max_length", f"Invalid '{name}': {text}, {got}", name)


def empty_text(name: str) -> ApiError:
    return ApiError("invalid_value", f"Invalid '{name}': it cannot be an empty string.", name)


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
        rows = _base64_rows(vectors) if self._is_base64 else _float_rows(vectors)
        data = b",".join(
            [
                b'{"object":"embedding","index":%d,"embedding":%b}' % (index, row)
                for index, row in enumerate(rows)
            ]
        )
        return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (
            data, _encode(self.model), render_usage(usage),
        )  # fmt: skip


def render_usage(usage: Usage) -> bytes:
    return b'{"prompt_tokens":%d,"total_tokens":%d}' % (usage.prompt, usage.prompt)


def _base64_rows(vectors: Vectors) -> list[bytes]:
    """float32, little-endian, as the official clients expect it."""
    data, size = memoryview(vectors.data), vectors.dimensions * _FLOAT_BYTES
    return [
        b'"%b"' % b2a_base64(data[at : at + size], newline=False)
        for at in range(0, len(data), size)
    ]


def _float_rows(vectors: Vectors) -> list[bytes]:
    from smmf_core.api.openai.floats import float_rows  # numpy costs a Router 20 MB: on demand

    return [_encode(row) for row in float_rows(vectors)]
