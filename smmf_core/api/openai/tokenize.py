"""`POST /tokenize` and `/detokenize`: a text or a chat as a model's tokens, and back.

Owns vLLM's shapes of both, and `content` of llama.cpp's server; must not tokenise.
"""

from __future__ import annotations

from typing import Any

import msgspec

from smmf_core.api.openai.decode import check_nesting, decode, missing
from smmf_core.api.openai.images import take_images
from smmf_core.api.openai.messages import check_messages
from smmf_core.api.openai.schema import Messages, TokenId
from smmf_core.api.openai.tools import check_tools
from smmf_core.api.openai.wanted import Common, Wanted, make_wanted
from smmf_core.errors import ApiError
from smmf_core.messages import Detokenize, Detokenized, Tokenize, Tokenized, Usage

_SOURCES = ("messages", "prompt", "content")
_UNSUPPORTED = ("chat_template", "mm_processor_kwargs", "with_pieces")
_BYTES_PER_TOKEN = 4

_encode = msgspec.json.encode


class TokenizeBody(Common, kw_only=True, gc=False):
    """`POST /tokenize`. The text is in `prompt` or `messages` (vLLM), or `content` (llama.cpp)."""

    prompt: str | None = None
    messages: Messages | None = None
    content: str | None = None
    add_special_tokens: bool | None = None
    add_special: bool | None = None  # llama.cpp's name of it
    return_token_strs: bool | None = None
    # of chats
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    # refused
    chat_template: str | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    with_pieces: bool | None = None


class DetokenizeBody(Common, kw_only=True, gc=False):
    """`POST /detokenize`"""

    tokens: list[TokenId]


_tokenize_decoder = msgspec.json.Decoder(TokenizeBody)
_detokenize_decoder = msgspec.json.Decoder(DetokenizeBody)


def parse_tokenize(body: bytes, unique_id: str, created: int = 0) -> Wanted:
    """Decode and validate. Raises ApiError (400)."""
    request = decode(_tokenize_decoder, body)
    _check(request)
    text = request.prompt if request.prompt is not None else request.content or ""
    special = request.add_special_tokens
    if special is None:
        special = request.add_special
    if special is None:
        special = request.prompt is not None  # a chat's template, and llama.cpp, add none
    continues = request.continue_final_message is True
    adds_prompt = request.add_generation_prompt
    chat_bytes, images = take_images(request.messages or [])
    tokenize = Tokenize(
        key=0,
        attempt=0,
        request_id="",
        model=request.model,
        text=text,
        messages=request.messages,
        add_special=special,
        with_strings=request.return_token_strs is True,
        add_generation_prompt=not continues if adds_prompt is None else adds_prompt,
        continue_final_message=continues,
        template_args=request.chat_template_kwargs,
        tools=request.tools,
        priority=request.priority or 0,
        images=images,
    )
    return make_wanted(request, tokenize, TokenizeRenderer(request.model), chat_bytes + len(text))


def parse_detokenize(body: bytes, unique_id: str, created: int = 0) -> Wanted:
    """Decode and validate. Raises ApiError (400)."""
    request = decode(_detokenize_decoder, body)
    detokenize = Detokenize(
        key=0,
        attempt=0,
        request_id="",
        model=request.model,
        tokens=request.tokens,
        priority=request.priority or 0,
    )
    size = len(request.tokens) * _BYTES_PER_TOKEN
    return make_wanted(request, detokenize, DetokenizeRenderer(request.model), size)


def _check(request: TokenizeBody) -> None:
    """1. One text. 2. Nothing that is not supported. 3. Tools. 4. A chat's own rules."""
    given = [name for name in _SOURCES if getattr(request, name) is not None]
    if not given:
        raise missing("prompt")
    if len(given) > 1:
        text = f"'{given[0]}' and '{given[1]}' exclude each other."
        raise ApiError("invalid_value", text, given[1])
    for name in _UNSUPPORTED:
        if getattr(request, name):
            raise ApiError("unsupported_parameter", f"Unsupported parameter: '{name}'.", name)
    check_nesting(request.tools or [], "tools")
    request.tools = check_tools(request.tools)
    if request.messages is not None:
        _check_chat(request, request.messages)


def _check_chat(request: TokenizeBody, messages: list[dict[str, Any]]) -> None:
    check_messages(messages)
    check_nesting(request.chat_template_kwargs or {}, "chat_template_kwargs")
    if not request.continue_final_message:
        return
    name = "continue_final_message"
    if request.add_generation_prompt:
        text = f"'{name}' and 'add_generation_prompt' exclude each other."
        raise ApiError("invalid_value", text, name)
    if messages[-1]["role"] != "assistant":
        text = f"'{name}' needs an assistant message at the end of 'messages'."
        raise ApiError("invalid_value", text, name)


class TokenizeRenderer:
    """One answer as bytes."""

    __slots__ = ("model",)

    def __init__(self, model: str) -> None:
        self.model = model

    def response(self, found: Tokenized, usage: Usage) -> bytes:
        return b'{"count":%d,"max_model_len":%d,"tokens":%b,"token_strs":%b}' % (
            found.count, found.context_length, found.ids, found.strings or b"null",
        )  # fmt: skip


class DetokenizeRenderer:
    """One answer as bytes."""

    __slots__ = ("model",)

    def __init__(self, model: str) -> None:
        self.model = model

    def response(self, found: Detokenized, usage: Usage) -> bytes:
        return b'{"prompt":%b}' % _encode(found.text)
