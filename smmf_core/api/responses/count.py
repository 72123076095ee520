"""`POST /v1/responses/input_tokens`: how many tokens a request's prompt has.

Owns what is counted: the very prompt that Responses would make of it. Must not tokenise.
"""

from __future__ import annotations

import msgspec

from smmf_core.api.openai import Wanted, finish
from smmf_core.api.openai.decode import decode
from smmf_core.api.openai.extensions import keep_alive_seconds, parse_require
from smmf_core.api.responses.parse import read_prompt
from smmf_core.api.responses.schema import InputBody
from smmf_core.messages import Tokenize, Tokenized, Usage

_decoder = msgspec.json.Decoder(InputBody)


def parse_count(body: bytes, unique_id: str, created: int = 0) -> Wanted:
    """Decode and validate. Raises ApiError (400)."""
    chat = read_prompt(decode(_decoder, body))
    parsed = finish(chat, {})
    prompt = parsed.submit
    tokenize = Tokenize(
        key=0,
        attempt=0,
        request_id="",
        model=chat.model,
        text="",
        messages=prompt.messages,
        add_special=False,
        with_strings=False,
        add_generation_prompt=prompt.add_generation_prompt,
        template_args=prompt.template_args,
        tools=prompt.tools,
        images=prompt.images,
    )
    keep_alive_s, require = keep_alive_seconds(chat.keep_alive), parse_require(chat.smmf)
    renderer = CountRenderer(chat.model)
    return Wanted(tokenize, renderer, parsed.prompt_bytes, keep_alive_s, require)


class CountRenderer:
    """One answer as bytes."""

    __slots__ = ("model",)

    def __init__(self, model: str) -> None:
        self.model = model

    def response(self, found: Tokenized, usage: Usage) -> bytes:
        return b'{"object":"response.input_tokens","input_tokens":%d}' % found.count
