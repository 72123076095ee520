"""`POST /api/embed` and `/api/embeddings`: body bytes in, an Embed out; vectors in, bytes out.

Owns both shapes. Nothing to embed loads the model, as Ollama does. Must not compute vectors.
"""

from __future__ import annotations

from typing import Any

import msgspec

from smmf_core.api.dialect import Timed
from smmf_core.api.ollama.load import nothing
from smmf_core.api.ollama.render import ns
from smmf_core.api.ollama.schema import EmbedBody, EmbedCommon, OldEmbedBody
from smmf_core.api.openai import Wanted, parse_require
from smmf_core.api.openai.decode import decode
from smmf_core.api.openai.extensions import keep_alive_seconds
from smmf_core.api.openai.wanted import WholeRenderer, check_texts
from smmf_core.messages import Embed, Tokenize, Usage, Vectors
from smmf_core.native._vectors import render_rows

_CUT = -1  # what is longer than the context
_KEEP = 0  # it is refused

_embed = msgspec.json.Decoder(EmbedBody)
_old = msgspec.json.Decoder(OldEmbedBody)
_encode = msgspec.json.encode


def parse_embed(body: bytes, unique_id: str, created: int = 0) -> Wanted:
    """Decode and validate. Raises ApiError (400) that names the input which is wrong."""
    asked = decode(_embed, body)
    given = asked.input or []
    inputs = [given] if isinstance(given, str) else given
    check_texts("input", inputs)
    embed = _request(asked, inputs, "input")
    if isinstance(embed, Embed):
        embed.dimensions = asked.dimensions
        embed.max_tokens = _KEEP if asked.truncate is False else _CUT
    return _wanted(asked, embed, EmbedRenderer(asked.model), inputs)


def parse_embeddings(body: bytes, unique_id: str, created: int = 0) -> Wanted:
    """The older form: one text, one vector. Raises ApiError (400)."""
    asked = decode(_old, body)
    inputs = [asked.prompt] if asked.prompt else []
    embed = _request(asked, inputs, "prompt")
    if isinstance(embed, Embed):
        embed.max_tokens = _CUT
    return _wanted(asked, embed, OldEmbedRenderer(asked.model), inputs)


class EmbedRenderer(Timed):
    """One answer as bytes; `model` is what it calls the model."""

    __slots__ = ("model",)

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    def response(self, found: Any, usage: Usage) -> bytes:
        """May run beside the loop: it lets go of the GIL."""
        head = b'{"model":%b,"embeddings":[' % _encode(self.model)
        if not isinstance(found, Vectors):
            return head + b"]}"
        tail = b'],"total_duration":%d,"load_duration":%d,"prompt_eval_count":%d}' % (
            ns(self.times.total_s), ns(self.times.wait_s), usage.prompt,
        )  # fmt: skip
        return render_rows(found.data, found.dimensions, head, tail)


class OldEmbedRenderer:
    __slots__ = ("model",)

    def __init__(self, model: str) -> None:
        self.model = model

    def response(self, found: Any, usage: Usage) -> bytes:
        if not isinstance(found, Vectors):
            return b'{"embedding":[]}'
        return render_rows(found.data, found.dimensions, b'{"embedding":', b"}")


def _request(asked: EmbedCommon, inputs: list[str], param: str) -> Embed | Tokenize:
    if not inputs:
        return nothing(asked.model)
    texts: list[str | list[int]] = [*inputs]
    return Embed(key=0, attempt=0, request_id="", model=asked.model, inputs=texts, param=param)


def _wanted(
    asked: EmbedCommon, submit: Embed | Tokenize, renderer: WholeRenderer, inputs: list[str]
) -> Wanted:
    keep_alive_s, require = keep_alive_seconds(asked.keep_alive), parse_require(asked.smmf)
    return Wanted(submit, renderer, sum(map(len, inputs)), keep_alive_s, require)
