"""The rules that join several fields of one body.

Owns what must go together and what this release does not support; single fields and their ranges
are the schema's.
"""

from __future__ import annotations

from typing import Any

from smmf_core.api.openai.decode import check_nesting, shown, unsupported
from smmf_core.api.openai.messages import check_messages
from smmf_core.api.openai.sampling import check_logit_bias
from smmf_core.api.openai.schema import MAX_CHOICES, Body, ChatBody, CompletionBody
from smmf_core.api.openai.tools import check_response_format, check_tool_choice, check_tools
from smmf_core.errors import ApiError


def check_common(body: Body) -> None:
    """Raises ApiError (400)."""
    if body.stream_options is not None and not body.stream:
        text = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise ApiError("invalid_value", text, "stream_options")
    if body.use_beam_search:
        raise unsupported("use_beam_search")
    if body.skip_special_tokens is False:
        raise unsupported("skip_special_tokens")
    if body.logit_bias:
        check_logit_bias(body.logit_bias)
    if body.smmf_echo:
        check_nesting(body.smmf_echo, "smmf_echo")


def check_chat(body: ChatBody) -> None:
    """Raises ApiError (400); normalises messages, tools and response_format in place."""
    check_messages(body.messages)
    for name in ("max_completion_tokens", "max_tokens"):
        if getattr(body, name) == 0:
            text = f"Invalid '{name}': integer below minimum value. Expected a value >= 1"
            raise ApiError("integer_below_min_value", f"{text}, but got 0 instead.", name)
    if body.top_logprobs and not body.logprobs:
        text = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise ApiError("invalid_value", text, "top_logprobs")
    if body.tools is not None or body.tool_choice is not None or body.response_format is not None:
        _check_tools(body)
    if body.functions or body.function_call is not None:
        name = "functions" if body.functions else "function_call"
        text = f"Unsupported parameter: '{name}'. Use 'tools' and 'tool_choice' instead."
        raise ApiError("unsupported_parameter", text, name)
    for i, modality in enumerate(body.modalities or ()):
        if modality != "text":
            text = f"Invalid 'modalities': this model answers with text, not {shown(modality)}."
            raise ApiError("unsupported_value", text, f"modalities[{i}]")
    if body.chat_template_kwargs:
        check_nesting(body.chat_template_kwargs, "chat_template_kwargs")
    if body.continue_final_message:
        _check_continue(body)


def check_completion(body: CompletionBody) -> None:
    """Raises ApiError (400)."""
    _check_prompts(body.prompt, body.n or 1)
    if body.suffix:
        text = "Unsupported parameter: 'suffix' is not supported by this model."
        raise ApiError("unsupported_parameter", text, "suffix")
    if body.best_of is not None and body.best_of != (body.n or 1):
        text = "Unsupported value: 'best_of' must equal 'n'."
        raise ApiError("unsupported_value", text, "best_of")
    if body.response_format is not None:
        check_nesting(body.response_format, "response_format")
        body.response_format = check_response_format(body.response_format)


def _check_tools(body: ChatBody) -> None:
    for name in ("tools", "tool_choice", "response_format"):
        value = getattr(body, name)
        if isinstance(value, dict | list):
            check_nesting(value, name)
    body.tools = check_tools(body.tools)
    body.tool_choice = check_tool_choice(body.tool_choice, body.tools)
    body.response_format = check_response_format(body.response_format)


def _check_continue(body: ChatBody) -> None:
    if body.add_generation_prompt:
        text = "'continue_final_message' and 'add_generation_prompt' exclude each other."
        raise ApiError("invalid_value", text, "continue_final_message")
    if body.messages[-1]["role"] != "assistant":
        text = "'continue_final_message' needs an assistant message at the end of 'messages'."
        raise ApiError("invalid_value", text, "continue_final_message")


def _check_prompts(prompt: str | list[Any], n: int) -> None:
    """1. A text; 2. one prompt of token ids; 3. several prompts, all texts or all token lists."""
    width = n
    if not isinstance(prompt, str):
        kinds = set(map(type, prompt))
        if len(kinds) > 1:
            text = "Invalid 'prompt': all its items must be of one type."
            raise ApiError("invalid_type", text, "prompt")
        if kinds != {int}:
            width = n * len(prompt)
    if width > MAX_CHOICES:
        text = f"Too many choices: {width} (prompts x n), the most is {MAX_CHOICES}."
        raise ApiError("invalid_value", text, "prompt")
