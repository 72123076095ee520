"""From a request's bytes to a `Parsed`: what the Router needs to know, and the Submit for a Worker.

Two steps, because the defaults belong to the model that the body names: `parse`, then `finish`.
Must not know queues, workers or HTTP.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from smmf_core.api.openai.decode import decode
from smmf_core.api.openai.extensions import keep_alive_seconds
from smmf_core.api.openai.images import take_images
from smmf_core.api.openai.rules import check_chat, check_common, check_completion
from smmf_core.api.openai.sampling import build_sampling
from smmf_core.api.openai.schema import ChatBody, CompletionBody, Request
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

CHAT, COMPLETION = "chat", "completion"
_BYTES_PER_TOKEN = 4  # for prompts that come as token ids
_chat = msgspec.json.Decoder(ChatBody)
_completion = msgspec.json.Decoder(CompletionBody)
_draw_seed = partial(random.getrandbits, 63)


class Parsed(msgspec.Struct, gc=False):
    """One valid request. The Router fills `submit.key`, `attempt`, `request_id`."""

    model: str  # as the client named it
    submit: Submit
    dialect: str  # CHAT | COMPLETION
    stream: bool
    include_usage: bool
    continuous_usage: bool
    logprobs: bool
    n_choices: int  # prompts x n
    prompt_bytes: int  # an estimate, without roles and tools
    max_tokens: int | None
    priority: int
    keep_alive_s: float | None  # how long the model is to stay loaded after it
    user: str  # groups a client's requests; "" when it does not say
    body: Request  # for dialects whose answers repeat what was asked


def parse(dialect: str, body: bytes) -> Request:
    """Decode and validate. Raises ApiError (400)."""
    if dialect == CHAT:
        chat = decode(_chat, body)
        check_common(chat)
        check_chat(chat)
        return chat
    completion = decode(_completion, body)
    check_common(completion)
    check_completion(completion)
    return completion


def finish(
    request: Request, defaults: dict[str, Any], draw_seed: Callable[[], int] = _draw_seed
) -> Parsed:
    """Build the Submit, with the model's `[inference]` values for what the client left open.

    Raises ApiError (400) where a client's value contradicts a default.
    """
    if isinstance(request, ChatBody):
        return _finish_chat(request, defaults, draw_seed)
    return _finish_completion(request, defaults, draw_seed)


def _finish_chat(body: ChatBody, defaults: dict[str, Any], draw_seed: Callable[[], int]) -> Parsed:
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    add_prompt = body.add_generation_prompt
    size, images = take_images(body.messages)
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
        tools=None if body.tool_choice == "none" else body.tools,
        tool_choice=body.tool_choice,
        response_format=body.response_format,
        priority=body.priority or 0,
        echo=body.smmf_echo,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        may_be_cut=body.may_be_cut,
        images=images,
    )
    return _parsed(CHAT, body, submit, submit.n, size)


def _finish_completion(
    body: CompletionBody, defaults: dict[str, Any], draw_seed: Callable[[], int]
) -> Parsed:
    prompts = _prompts(body.prompt)
    sampling = build_sampling(body, defaults, body.logprobs, body.default_tokens, draw_seed)
    if sampling.max_tokens == 0 and not body.echo:
        text = "Invalid 'max_tokens': 0 is allowed only together with 'echo'."
        raise ApiError("integer_below_min_value", text, "max_tokens")
    submit = Submit(
        key=0,
        attempt=0,
        request_id="",
        model=body.model,
        stream=body.stream is True,
        n=body.n or 1,
        messages=None,
        prompts=prompts,
        sampling=sampling,
        echo_prompt=body.echo is True,
        response_format=body.response_format,
        priority=body.priority or 0,
        echo=body.smmf_echo,
        may_be_cut=body.may_be_cut,
    )
    size = sum(len(p) if isinstance(p, str) else len(p) * _BYTES_PER_TOKEN for p in prompts)
    return _parsed(COMPLETION, body, submit, submit.n * len(prompts), size)


def _parsed(dialect: str, body: Request, submit: Submit, choices: int, size: int) -> Parsed:
    options = body.stream_options
    include_usage = options is not None and options.include_usage is True
    return Parsed(
        model=body.model,
        submit=submit,
        dialect=dialect,
        stream=submit.stream,
        include_usage=include_usage,
        continuous_usage=include_usage and options.continuous_usage_stats is True,  # type: ignore[union-attr]
        logprobs=submit.sampling.logprobs is not None,
        n_choices=choices,
        prompt_bytes=size,
        max_tokens=submit.sampling.max_tokens,
        priority=submit.priority,
        keep_alive_s=keep_alive_seconds(body.keep_alive),
        user=body.user or body.safety_identifier or body.prompt_cache_key or "",
        body=body,
    )


def _prompts(prompt: str | list[Any]) -> list[str | list[int]]:
    """The four forms as one: texts or token lists, one per prompt."""
    if isinstance(prompt, str):
        return [prompt]
    return [prompt] if isinstance(prompt[0], int) else prompt


def _template_args(body: ChatBody) -> dict[str, Any] | None:
    """`reasoning_effort` reaches the template as a variable; explicit variables win."""
    effort = body.reasoning_effort
    if effort is None:
        return body.chat_template_kwargs
    args: dict[str, Any] = {"reasoning_effort": effort}
    if effort == "none":
        args["enable_thinking"] = False
    return args | (body.chat_template_kwargs or {})
