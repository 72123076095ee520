"""From the bytes of a Messages request to the chat that it asks for.

Owns what becomes of each field; what a chat is to a Worker is `openai.finish`'s.
"""

from __future__ import annotations

from typing import Any

import msgspec

from smmf_core.api.anthropic.blocks import read_messages
from smmf_core.api.anthropic.schema import CountBody, MessagesBody, OutputConfig, Thinking
from smmf_core.api.anthropic.tools import read_tool_choice, read_tools
from smmf_core.api.openai.decode import check_nesting, decode, missing, unknown_value
from smmf_core.api.openai.schema import ChatBody
from smmf_core.api.openai.tools import check_response_format
from smmf_core.errors import ApiError

_decoder = msgspec.json.Decoder(MessagesBody)
_FREE = ("messages", "tools", "chat_template_kwargs")  # go on as they are


def parse(body: bytes) -> ChatBody:
    """Decode and validate. Raises ApiError (400)."""
    asked = decode(_decoder, body)
    if asked.smmf_echo:
        check_nesting(asked.smmf_echo, "smmf_echo")
    if asked.thinking is not None:
        _check_budget(asked.thinking, asked.max_tokens)
    chat = read_prompt(asked)
    chat.stream = asked.stream
    chat.max_tokens = asked.max_tokens
    chat.temperature = asked.temperature
    chat.top_p = asked.top_p
    chat.top_k = asked.top_k
    chat.stop = asked.stop_sequences
    chat.user = asked.metadata.user_id if asked.metadata else None
    chat.smmf_echo = asked.smmf_echo
    return chat


def read_prompt(asked: CountBody) -> ChatBody:
    """A chat with everything that the model is told. Raises ApiError (400)."""
    _check(asked)
    chat = read_messages(asked.system, asked.messages)
    if not any(message["role"] != "system" for message in chat):
        text = "Invalid 'messages': they hold no user's turn."
        raise ApiError("invalid_value", text, "messages")
    tools, choice = read_tools(asked.tools), asked.tool_choice
    config = asked.output_config or OutputConfig()
    return ChatBody(
        model=asked.model,
        messages=chat,
        tools=tools,
        tool_choice=read_tool_choice(choice, tools),
        parallel_tool_calls=not (choice and choice.disable_parallel_tool_use),
        response_format=_response_format(config.format),
        reasoning_effort=config.effort,
        chat_template_kwargs=_template_args(asked),
        continue_final_message=_is_begun(chat),
        keep_alive=asked.keep_alive,
        smmf=asked.smmf,
    )


def _check(asked: CountBody) -> None:
    for name in _FREE:
        value = getattr(asked, name)
        if value:
            check_nesting(value, name)
    for name in ("container", "mcp_servers"):
        if getattr(asked, name):
            text = f"Unsupported parameter: '{name}' is not supported."
            raise ApiError("unsupported_parameter", text, name)


def _check_budget(thinking: Thinking, max_tokens: int) -> None:
    if thinking.type != "enabled":
        return
    if thinking.budget_tokens is None:
        raise missing("thinking.budget_tokens")
    if thinking.budget_tokens >= max_tokens:
        text = (
            f"Invalid 'thinking.budget_tokens': it must be below 'max_tokens', which is "
            f"{max_tokens}."
        )
        raise ApiError("invalid_value", text, "thinking.budget_tokens")


def _template_args(asked: CountBody) -> dict[str, Any] | None:
    """Whether to think reaches the template as a variable; explicit variables win."""
    thinking = asked.thinking
    if thinking is None or thinking.type not in ("enabled", "disabled"):
        return asked.chat_template_kwargs
    args: dict[str, Any] = {"enable_thinking": thinking.type == "enabled"}
    if thinking.type == "enabled":
        args["thinking_budget"] = thinking.budget_tokens
    return args | (asked.chat_template_kwargs or {})


def _response_format(form: dict[str, Any] | None) -> dict[str, Any] | None:
    """`output_config.format`: a schema that the answer follows."""
    if form is None:
        return None
    check_nesting(form, "output_config.format")
    if form.get("type") != "json_schema":
        raise unknown_value("output_config.format.type", form.get("type"), ("json_schema",))
    schema = form.get("schema")
    if not isinstance(schema, dict):
        raise missing("output_config.format.schema")
    wrapper = {"name": "output", "schema": schema, "strict": True}
    return check_response_format({"type": "json_schema", "json_schema": wrapper})


def _is_begun(chat: list[dict[str, Any]]) -> bool:
    """Whether the last turn is the beginning of the answer. Raises ApiError (400) for a call
    there: a tool's answer must follow it."""
    last = chat[-1]
    if last["role"] != "assistant":
        return False
    if "tool_calls" in last:
        text = "Invalid 'messages': a 'tool_use' must be followed by its 'tool_result'."
        raise ApiError("invalid_value", text, "messages")
    return True
