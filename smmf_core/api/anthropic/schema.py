"""The request body of Messages as a typed struct with its bounds.

Owns field names, types and ranges; messages, system and tools are blocks.py's and tools.py's. Every
optional field accepts null, which means omitted.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from smmf_core.api.openai.schema import Count, CountOrZero, Messages, Ratio, Text

MAX_STOPS = 128
Effort = Literal["low", "medium", "high", "xhigh", "max"]


class Metadata(msgspec.Struct, gc=False):
    user_id: str | None = None


class Thinking(msgspec.Struct, gc=False):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Meta(ge=1024)] | None = None


class ToolChoice(msgspec.Struct, gc=False):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OutputConfig(msgspec.Struct, gc=False):
    effort: Effort | None = None
    format: dict[str, Any] | None = None


class CountBody(msgspec.Struct, kw_only=True, gc=False):
    """`POST /v1/messages/count_tokens`: what a prompt is made of."""

    model: Text
    messages: Messages
    system: str | list[dict[str, Any]] | None = None
    thinking: Thinking | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: ToolChoice | None = None
    output_config: OutputConfig | None = None
    container: Any = None
    mcp_servers: list[Any] | None = None
    # extensions
    chat_template_kwargs: dict[str, Any] | None = None
    keep_alive: float | str | None = None
    smmf: dict[str, Any] | None = None


class MessagesBody(CountBody, kw_only=True, gc=False):
    """`POST /v1/messages`"""

    max_tokens: Count
    stop_sequences: Annotated[list[Text], Meta(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    temperature: Ratio | None = None
    top_p: Ratio | None = None
    top_k: CountOrZero | None = None
    metadata: Metadata | None = None
    # an extension
    smmf_echo: dict[str, Any] | None = None
