"""How many tokens a chat's prompt has, for dialects that have a path for that question.

Owns what is counted: the very prompt that an answer would go on from. Must not tokenise.
"""

from __future__ import annotations

from smmf_core.api.openai.extensions import keep_alive_seconds, parse_require
from smmf_core.api.openai.parse import finish
from smmf_core.api.openai.schema import ChatBody
from smmf_core.api.openai.wanted import Wanted
from smmf_core.messages import Tokenize, Tokenized, Usage


def wanted_count(chat: ChatBody, form: bytes) -> Wanted:
    """`form` is the answer, with %d for the number. Raises ApiError (400)."""
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
        continue_final_message=prompt.continue_final_message,
        template_args=prompt.template_args,
        tools=prompt.tools,
        images=prompt.images,
    )
    keep_alive_s, require = keep_alive_seconds(chat.keep_alive), parse_require(chat.smmf)
    renderer = CountRenderer(chat.model, form)
    return Wanted(tokenize, renderer, parsed.prompt_bytes, keep_alive_s, require)


class CountRenderer:
    """One answer as bytes."""

    __slots__ = ("_form", "model")

    def __init__(self, model: str, form: bytes) -> None:
        self.model = model
        self._form = form

    def response(self, found: Tokenized, usage: Usage) -> bytes:
        return self._form % found.count
