"""The request bodies of Ollama's API as typed structs with their bounds.

Owns field names, types and ranges; what joins several fields is parse.py's. Every optional field
accepts null, which means omitted. As with Ollama, unknown options are passed over.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from smmf_core.api.openai import schema as openai
from smmf_core.api.openai.schema import (
    Count,
    Penalty,
    Ratio,
    Text,
    TopLogprobs,
)

MAX_STOPS = 128
_INT32_MAX = 2**31 - 1
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


class Options(msgspec.Struct, gc=False):
    """`options`. Those of a load (num_ctx, num_gpu, num_thread ...) are the server's to choose."""

    num_predict: Annotated[int, Meta(ge=-2, le=_INT32_MAX)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=_INT32_MAX)] | None = None
    top_p: Ratio | None = None
    min_p: Ratio | None = None
    seed: Annotated[int, Meta(ge=_INT64_MIN, le=_INT64_MAX)] | None = None
    stop: str | Annotated[list[Text], Meta(max_length=MAX_STOPS)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    repeat_last_n: Annotated[int, Meta(ge=-1, le=_INT32_MAX)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    num_ctx: int | None = None
    # samplers that no engine here has
    mirostat: float | None = None
    tfs_z: float | None = None
    typical_p: float | None = None


class Body(msgspec.Struct, kw_only=True, gc=False):
    """What chats and generations share."""

    model: Text
    stream: bool | None = None
    options: Options | None = None
    format: str | dict[str, Any] | None = None
    think: bool | str | None = None
    keep_alive: float | str | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    # extensions
    smmf: dict[str, Any] | None = None
    smmf_echo: dict[str, Any] | None = None


class ChatBody(Body, kw_only=True, gc=False):
    """`POST /api/chat`"""

    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None


class GenerateBody(Body, kw_only=True, gc=False):
    """`POST /api/generate`"""

    prompt: str | None = None
    system: str | None = None
    raw: bool | None = None
    images: list[Any] | None = None
    # refused
    suffix: str | None = None
    template: str | None = None
    context: list[int] | None = None


class Chat(openai.ChatBody, kw_only=True, gc=False):
    """What chats, and generations with a template, become. `num_predict` is a most, not a wish."""

    may_be_cut: ClassVar[bool] = True


class Completion(openai.CompletionBody, kw_only=True, gc=False):
    """What a raw generation becomes: a text completion that ends by itself."""

    may_be_cut: ClassVar[bool] = True
    default_tokens: ClassVar[int | None] = None


class EmbedCommon(msgspec.Struct, kw_only=True, gc=False):
    """What both forms of embeddings share."""

    model: Text
    keep_alive: float | str | None = None
    smmf: dict[str, Any] | None = None


class EmbedBody(EmbedCommon, kw_only=True, gc=False):
    """`POST /api/embed`"""

    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: Count | None = None


class OldEmbedBody(EmbedCommon, kw_only=True, gc=False):
    """`POST /api/embeddings`"""

    prompt: str | None = None


class NameBody(msgspec.Struct, gc=False):
    """Of what is about one model: `POST /api/show`, `/api/pull`. `name` is its older name."""

    model: str | None = None
    name: str | None = None
