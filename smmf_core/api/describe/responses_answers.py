"""The answers of Responses as structs, for the description only.

Owns their fields and types; must not be used to make an answer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Count = Annotated[int, Meta(ge=0)]


class ResponseItem(Struct):
    """A message, a thought, or a call of a tool, each with fields of its own."""

    id: str
    type: Literal["message", "reasoning", "function_call", "custom_tool_call"]
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant"] | UnsetType = UNSET
    content: list[dict[str, Any]] | UnsetType = UNSET
    summary: list[Any] | UnsetType = UNSET
    call_id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    namespace: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    input: str | UnsetType = UNSET


class ResponseError(Struct):
    code: str
    message: str


class ResponseUsage(Struct):
    input_tokens: Count
    input_tokens_details: dict[str, Count]
    output_tokens: Count
    output_tokens_details: dict[str, Count]
    total_tokens: Count


class ResponseCut(Struct):
    reason: Literal["max_output_tokens", "content_filter"]


class Response(Struct):
    """All keys, always; what the request left open is what was used."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    error: ResponseError | None
    incomplete_details: ResponseCut | None
    output: list[ResponseItem]
    usage: ResponseUsage | None
    model: str
    instructions: str | None
    previous_response_id: None
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    text: dict[str, Any]
    reasoning: dict[str, Any]
    truncation: Literal["disabled"]
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: Count
    max_output_tokens: int | None
    max_tool_calls: int | None
    store: bool
    background: bool
    service_tier: str
    metadata: dict[str, str]
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None


class ResponseEvent(Struct):
    """An event of a stream; its name is its `type`, its number one more than that before."""

    type: str
    sequence_number: Count
    response: Response | UnsetType = UNSET
    item: ResponseItem | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    output_index: Count | UnsetType = UNSET
    content_index: Count | UnsetType = UNSET
    part: dict[str, Any] | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET


class InputTokens(Struct):
    object: Literal["response.input_tokens"]
    input_tokens: Count
