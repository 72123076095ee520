"""From the bytes of a Responses request to the chat that it asks for.

Owns what becomes of each field, and what of the API needs a memory that this server does not have;
what a chat is to a Worker is `openai.finish`'s.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from smmf_core.api.openai.decode import check_nesting, clip, decode, missing, unknown_value
from smmf_core.api.openai.schema import Effort
from smmf_core.api.responses.items import read_input
from smmf_core.api.responses.schema import (
    InputBody,
    Reasoning,
    ResponsesBody,
    ResponsesChat,
    TextConfig,
)
from smmf_core.api.responses.tools import read_format, read_tool_choice, read_tools
from smmf_core.errors import ApiError

LOGPROBS = "message.output_text.logprobs"
_decoder = msgspec.json.Decoder(ResponsesBody)
_EFFORTS = get_args(Effort)
_SUMMARIES = ("auto", "concise", "detailed")
_VERBOSITIES = ("low", "medium", "high")
_TRUNCATIONS = ("auto", "disabled")
_TIERS = ("auto", "default", "flex", "scale", "priority", "fast")
_INCLUDES = (
    LOGPROBS,
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
)
_MAX_METADATA, _MAX_KEY, _MAX_VALUE = 16, 64, 512  # OpenAI's
_SAME = (
    "stream", "temperature", "top_p", "presence_penalty", "frequency_penalty", "user",
    "safety_identifier", "prompt_cache_key", "seed", "top_k", "ignore_eos", "min_tokens",
    "priority", "smmf_echo",
)  # fmt: skip


def parse(body: bytes) -> ResponsesChat:
    """Decode and validate. Raises ApiError (400)."""
    asked = decode(_decoder, body)
    _check(asked)
    chat = read_prompt(asked)
    for name in _SAME:
        setattr(chat, name, getattr(asked, name))
    chat.max_completion_tokens = asked.max_output_tokens
    chat.logprobs = LOGPROBS in (asked.include or ()) or bool(asked.top_logprobs)
    chat.top_logprobs = asked.top_logprobs
    return chat


def read_prompt(asked: InputBody) -> ResponsesChat:
    """A chat with everything that the model is told. Raises ApiError (400)."""
    _check_memory(asked)
    if asked.input is None:
        raise missing("input")
    check_nesting(asked.chat_template_kwargs or {}, "chat_template_kwargs")
    reasoning, text = asked.reasoning or Reasoning(), asked.text or TextConfig()
    _check_word("reasoning.effort", reasoning.effort, _EFFORTS)
    _check_word("reasoning.summary", reasoning.summary, _SUMMARIES)
    _check_word("text.verbosity", text.verbosity, _VERBOSITIES)
    tools = read_tools(asked.tools)
    return ResponsesChat(
        asked=asked,
        model=asked.model,
        messages=read_input(asked.instructions, asked.input),
        tools=[{"type": "function", "function": tool.function} for tool in tools.values()] or None,
        called=tools,
        tool_choice=read_tool_choice(asked.tool_choice, tools),
        parallel_tool_calls=asked.parallel_tool_calls,
        response_format=read_format(text.format),
        reasoning_effort=reasoning.effort,  # type: ignore[arg-type]
        chat_template_kwargs=asked.chat_template_kwargs,
        keep_alive=asked.keep_alive,
        smmf=asked.smmf,
    )


def _check(asked: ResponsesBody) -> None:
    if asked.stream_options is not None and not asked.stream:
        text = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise ApiError("invalid_value", text, "stream_options")
    for name, why in (
        ("background", "answers are not stored"),
        ("prompt", "there are no stored prompts"),
        ("context_management", "contexts are not compacted"),
    ):
        if getattr(asked, name):
            text = f"Unsupported parameter: '{name}' is not supported: {why} here."
            raise ApiError("unsupported_parameter", text, name)
    for i, name in enumerate(asked.include or ()):
        _check_word(f"include[{i}]", name, _INCLUDES)
    _check_word("service_tier", asked.service_tier, _TIERS)
    _check_metadata(asked.metadata or {})
    check_nesting(asked.smmf_echo or {}, "smmf_echo")


def _check_memory(asked: InputBody) -> None:
    """What would need answers or items that were stored, or an input that may be cut."""
    if asked.previous_response_id is not None:
        text = (
            f"Previous response with id '{clip(asked.previous_response_id)}' not found: responses "
            "are not stored here. Send the whole conversation as 'input'."
        )
        raise ApiError("previous_response_not_found", text, "previous_response_id")
    if asked.conversation is not None:
        text = "Unsupported parameter: 'conversation'. Conversations are not stored here."
        raise ApiError("unsupported_parameter", text, "conversation")
    _check_word("truncation", asked.truncation, _TRUNCATIONS)
    if asked.truncation == "auto":
        text = "Invalid 'truncation': inputs are never cut here. Supported values are: 'disabled'."
        raise ApiError("unsupported_value", text, "truncation")


def _check_word(param: str, given: str | None, known: tuple[str, ...]) -> None:
    if given is not None and given not in known:
        raise unknown_value(param, given, known)


def _check_metadata(metadata: dict[str, Any]) -> None:
    if len(metadata) > _MAX_METADATA:
        text = f"Invalid 'metadata': at most {_MAX_METADATA} keys, but got {len(metadata)}."
        raise ApiError("invalid_value", text, "metadata")
    for key, value in metadata.items():
        if len(key) > _MAX_KEY or len(value) > _MAX_VALUE:
            text = (
                f"Invalid 'metadata': keys have at most {_MAX_KEY} characters, and values at most "
                f"{_MAX_VALUE}; '{clip(key)}' has {len(key)}, its value {len(value)}."
            )
            raise ApiError("invalid_value", text, "metadata")
