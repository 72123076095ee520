"""From a request's bytes to a `Parsed`: what the Router needs to know, and the Submit for a Worker.

Two steps, because the defaults belong to the model that the body names: `parse`, then `finish`.
Owns the rules that join several fields; must not know queues, workers or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec

from smmf_core.api.openai.decode import check_nesting, decode, unknown_value
from smmf_core.api.openai.messages import check_messages
from smmf_core.api.openai.sampling import build_sampling
from smmf_core.api.openai.schema import MAX_CHOICES, ChatBody, CompletionBody, Request
from smmf_core.api.openai.tools import check_response_format, check_tool_choice, check_tools
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

CHAT, COMPLETION = "chat", "completion"
_chat = msgspec.json.Decoder(ChatBody)
_completion = msgspec.json.Decoder(CompletionBody)


class Parsed(msgspec.Struct, gc=False):
    """One valid request. The Router fills `submit.key`, `attempt`, `request_id`, `deadline_s`."""

    model: str  # as the client named it
    submit: Submit
    dialect: str  # CHAT | COMPLETION
    stream: bool
    include_usage: bool
    continuous_usage: bool
    logprobs: bool
    n_choices: int  # prompts x n
    prompt_bytes: int  # at most; the body's size, which is all that is known before tokenising
    max_tokens: int | None
    priority: int
    user: str  # groups a client's requests; "" when it does not say


def parse(dialect: str, body: bytes) -> Request:
    """Decode and validate. Raises ApiError (400)."""
    if dialect == CHAT:
        chat = decode(_chat, body)
        _check_common(chat)
        _check_chat(chat)
        return chat
    completion = decode(_completion, body)
    _check_common(completion)
    _check_completion(completion)
    return completion


def finish(
    request: Request, defaults: dict[str, Any], draw_seed: Callable[[], int], body_bytes: int = 0
) -> Parsed:
    """Build the Submit, with the model's `[inference]` values for what the client left open.

    Raises ApiError (400) where a client's value contradicts a default.
    """
    if isinstance(request, ChatBody):
        return _finish_chat(request, defaults, draw_seed, body_bytes)
    return _finish_completion(request, defaults, draw_seed, body_bytes)


def _finish_chat(
    body: ChatBody, defaults: dict[str, Any], draw_seed: Callable[[], int], body_bytes: int
) -> Parsed:
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    add_prompt = body.add_generation_prompt
    submit = Submit(
        key=0,
        attempt=0,
        request_id="",
        model=body.model,
        stream=body.stream is True,
        n=body.n or 1,
        messages=body.messages,
        prompts=None,
        sampling=build_sampling(body, defaults, logprobs, None, draw_seed),
        add_generation_prompt=not body.continue_final_message if add_prompt is None else add_prompt,
        continue_final_message=body.continue_final_message is True,
        template_args=_template_args(body),
        tools=body.tools,
        tool_choice=body.tool_choice,
        response_format=body.response_format,
        priority=body.priority or 0,
        echo=body.smmf_echo,
    )
    return _parsed(CHAT, body, submit, submit.n, body_bytes)


def _finish_completion(
    body: CompletionBody, defaults: dict[str, Any], draw_seed: Callable[[], int], body_bytes: int
) -> Parsed:
    prompts = _prompts(body.prompt)
    submit = Submit(
        key=0,
        attempt=0,
        request_id="",
        model=body.model,
        stream=body.stream is True,
        n=body.n or 1,
        messages=None,
        prompts=prompts,
        sampling=build_sampling(body, defaults, body.logprobs, _COMPLETION_TOKENS, draw_seed),
        echo_prompt=body.echo is True,
        priority=body.priority or 0,
        echo=body.smmf_echo,
    )
    return _parsed(COMPLETION, body, submit, submit.n * len(prompts), body_bytes)


_COMPLETION_TOKENS = 16  # OpenAI's default of /v1/completions


def _parsed(dialect: str, body: Request, submit: Submit, choices: int, body_bytes: int) -> Parsed:
    options = body.stream_options
    include_usage = options is not None and options.include_usage is True
    return Parsed(
        model=body.model,
        submit=submit,
        dialect=dialect,
        stream=submit.stream,
        include_usage=include_usage,
        continuous_usage=include_usage and cast(Any, options).continuous_usage_stats is True,
        logprobs=submit.sampling.logprobs is not None,
        n_choices=choices,
        prompt_bytes=body_bytes,
        max_tokens=submit.sampling.max_tokens,
        priority=submit.priority,
        user=body.user or body.safety_identifier or body.prompt_cache_key or "",
    )
