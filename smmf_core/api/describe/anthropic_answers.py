"""The answers of Anthropic's routes as structs, for the description only.

Owns their fields and types; must not be used to make an answer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Count = Annotated[int, Meta(ge=0)]


class AnthropicErrorBody(Struct):
    type: str
    message: str


class AnthropicError(Struct):
    type: Literal["error"]
    error: AnthropicErrorBody
    request_id: str


class MessageUsage(Struct):
    """Tokens that came from a cache are not among the input's."""

    input_tokens: Count
    cache_creation_input_tokens: Count
    cache_read_input_tokens: Count
    output_tokens: Count
    output_tokens_details: dict[str, Count] | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET


class TextBlock(Struct, tag_field="type", tag="text"):
    text: str


class ThinkingBlock(Struct, tag_field="type", tag="thinking"):
    thinking: str
    signature: str


class ToolUseBlock(Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


class Message(Struct):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlock | ThinkingBlock | ToolUseBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: MessageUsage


class MessageEvent(Struct):
    """An event of a stream; its name is its `type`. `message_start` has the `message`, deltas are
    in `delta`, blocks in `content_block`; `ping` may come at any time."""

    type: Literal[
        "message_start", "content_block_start", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop", "ping", "error",
    ]  # fmt: skip
    index: Count | UnsetType = UNSET
    message: dict[str, Any] | UnsetType = UNSET
    content_block: dict[str, Any] | UnsetType = UNSET
    delta: dict[str, Any] | UnsetType = UNSET
    usage: dict[str, Any] | UnsetType = UNSET
    error: AnthropicErrorBody | UnsetType = UNSET


class TokenCount(Struct):
    input_tokens: Count
