"""The answers of OpenAI's routes as structs, for the description only: renderers write bytes.

Owns their fields and types; must not be used to make an answer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Count = Annotated[int, Meta(ge=0)]
Finish = Literal["stop", "length", "tool_calls", "content_filter"]


class ErrorBody(Struct):
    """`param` names the field that is wrong, as `messages[0].content`."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(Struct):
    """OpenAI's error envelope: all four keys, always."""

    error: ErrorBody


class PromptDetails(Struct):
    cached_tokens: Count


class CompletionDetails(Struct):
    reasoning_tokens: Count


class Usage(Struct):
    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class PromptUsage(Struct):
    prompt_tokens: Count
    total_tokens: Count


class FunctionCall(Struct):
    name: str
    arguments: str


class ToolCall(Struct):
    id: str
    type: Literal["function"]
    function: FunctionCall


class TopLogprob(Struct):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Struct):
    """`bytes` are the token's own: a character may be split over tokens."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct):
    content: list[TokenLogprob]
    refusal: None


class ChatMessage(Struct):
    """The same thought is in both fields: some clients read the one, some the other."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    annotations: list[Any]
    tool_calls: list[ToolCall] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET


class ChatChoice(Struct):
    index: Count
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatCompletion(Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    service_tier: str
    usage: Usage


class FunctionDelta(Struct):
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(Struct):
    """`id`, `type` and the name come with a call's first delta only."""

    index: Count
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionDelta | UnsetType = UNSET


class ChatDelta(Struct):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: UnsetType | None = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET


class ChatChunkChoice(Struct):
    index: Count
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: Finish | None


class ChatCompletionChunk(Struct):
    """An event of a stream: `data: ` and this. With `include_usage` the last one has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType | None = UNSET


class TextLogprobs(Struct):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[Count]


class TextChoice(Struct):
    """`index` is that of the prompt times `n`, plus that of the choice."""

    index: Count
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Finish | None


class TextCompletion(Struct):
    """Also an event of a stream: `data: ` and this, then with `usage` in the last one at most."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage | UnsetType | None = UNSET


class Model(Struct):
    """`root` is the model that an alias or an adapter belongs to."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    max_model_len: Count | None
    status: str
    task: Literal["generate", "embed", "rerank"]
    capabilities: list[str]


class ModelList(Struct):
    object: Literal["list"]
    data: list[Model]


class Embedding(Struct):
    """The vector as numbers, or as base64 of little-endian float32."""

    object: Literal["embedding"]
    index: Count
    embedding: list[float] | str


class EmbeddingList(Struct):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: PromptUsage


class RankedDocument(Struct):
    text: str


class Ranked(Struct):
    index: Count
    relevance_score: float
    document: RankedDocument | UnsetType = UNSET


class Ranking(Struct):
    """The best first. `meta` is Cohere's, of `/v2/rerank`."""

    id: str
    model: str
    results: list[Ranked]
    usage: PromptUsage
    meta: dict[str, Any] | UnsetType = UNSET


class Relevance(Struct):
    """Scores in the order of the documents."""

    object: Literal["list"]
    model: str
    data: list[float]
    usage: PromptUsage


class Score(Struct):
    index: Count
    object: Literal["score"]
    score: float


class Scores(Struct):
    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: PromptUsage


class Tokens(Struct):
    count: Count
    max_model_len: Count
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(Struct):
    prompt: str


class Status(Struct):
    status: Literal["ok", "ready"]
