"""From the bytes of `/api/chat` and `/api/generate` to the chat or completion that they ask for.

Owns what becomes of each field; what a chat is to a Worker is `openai.finish`'s.
"""

from __future__ import annotations

from typing import Any

import msgspec

from smmf_core.api.dialect import Load
from smmf_core.api.ollama.load import PromptlessLoad
from smmf_core.api.ollama.messages import is_begun, read_messages, read_tools, with_images
from smmf_core.api.ollama.options import read_format, read_options, read_think
from smmf_core.api.ollama.render import CHAT, GENERATE
from smmf_core.api.ollama.schema import Body, Chat, ChatBody, Completion, GenerateBody
from smmf_core.api.openai import Request
from smmf_core.api.openai.decode import check_nesting, decode
from smmf_core.api.openai.rules import check_chat
from smmf_core.errors import ApiError

_chat = msgspec.json.Decoder(ChatBody)
_generate = msgspec.json.Decoder(GenerateBody)
_REFUSED = {
    "suffix": "the model's end of the text cannot be given",
    "template": "the model's own is used; 'raw' leaves it out",
    "context": "send the former turns as 'messages' to /api/chat",
}


def parse_chat(body: bytes) -> Request | Load:
    """Decode and validate. Raises ApiError (400)."""
    asked = decode(_chat, body)
    if not asked.messages:
        return PromptlessLoad(asked, CHAT)
    return _as_chat(asked, read_messages(asked.messages), asked.tools)


def parse_generate(body: bytes) -> Request | Load:
    """Decode and validate. Raises ApiError (400)."""
    asked = decode(_generate, body)
    for name, instead in _REFUSED.items():
        if getattr(asked, name):
            text = f"Unsupported parameter: '{name}'; {instead}."
            raise ApiError("unsupported_parameter", text, name)
    if asked.raw:
        _check_raw(asked)
    if not asked.prompt:
        return PromptlessLoad(asked, GENERATE)
    if asked.raw:
        return _as_completion(asked, asked.prompt)
    chat = [{"role": "system", "content": asked.system}] if asked.system else []
    content = with_images("user", asked.prompt, asked.images or [], "images")
    return _as_chat(asked, [*chat, {"role": "user", "content": content}], None)


def _as_chat(
    asked: Body, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None
) -> Request:
    chat = Chat(
        messages=messages,
        tools=read_tools(tools),
        response_format=read_format(asked.format),
        continue_final_message=is_begun(messages),
        logprobs=asked.logprobs,
        top_logprobs=asked.top_logprobs if asked.logprobs else None,
        **read_think(asked.think),
        **_common(asked),
    )
    check_chat(chat)
    return chat


def _as_completion(asked: GenerateBody, prompt: str) -> Request:
    logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    return Completion(prompt=prompt, logprobs=logprobs, **_common(asked))


def _common(asked: Body) -> dict[str, Any]:
    """What both of OpenAI's bodies have."""
    if asked.smmf_echo:
        check_nesting(asked.smmf_echo, "smmf_echo")
    return {
        "model": asked.model,
        "stream": asked.stream is not False,
        "keep_alive": asked.keep_alive,
        "smmf": asked.smmf,
        "smmf_echo": asked.smmf_echo,
        **read_options(asked.options),
    }


def _check_raw(asked: GenerateBody) -> None:
    for name in ("system", "format", "images"):
        if getattr(asked, name):
            text = f"Invalid '{name}': 'raw' does not go with it."
            raise ApiError("unsupported_value", text, name)
