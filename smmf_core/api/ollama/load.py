"""A request without a prompt: its model is to be loaded, or with `keep_alive` 0 unloaded.

Owns the request for a Worker, which is for the tokens of nothing: it waits for the model as any
other does. Must not know how models are loaded.
"""

from __future__ import annotations

from smmf_core.api.dialect import Load
from smmf_core.api.ollama.render import Form, created_at
from smmf_core.api.ollama.schema import Body
from smmf_core.api.openai import Wanted, parse_require
from smmf_core.api.openai.extensions import keep_alive_seconds
from smmf_core.messages import Tokenize, Tokenized, Usage


class PromptlessLoad(Load):
    """An api.dialect.Load of a chat or of a generation."""

    def __init__(self, asked: Body, form: Form) -> None:
        self.model = asked.model
        self.keep_alive_s = keep_alive_seconds(asked.keep_alive)
        self._require = parse_require(asked.smmf)
        self._form = form

    def wanted(self, created: int) -> Wanted:
        renderer = _LoadRenderer(self, created)
        return Wanted(nothing(self.model), renderer, 0, self.keep_alive_s, self._require)

    def body(self, model: str, created: int, done: str) -> bytes:
        return self._form.empty(model, created_at(created), done)


class _LoadRenderer:
    __slots__ = ("_created", "_load", "model")

    def __init__(self, load: PromptlessLoad, created: int) -> None:
        self.model = load.model
        self._load = load
        self._created = created

    def response(self, found: Tokenized, usage: Usage) -> bytes:
        return self._load.body(self.model, self._created, "load")


def nothing(model: str) -> Tokenize:
    """A request that any Worker can answer, and that costs it nothing."""
    return Tokenize(
        key=0, attempt=0, request_id="", model=model, text="", messages=None, add_special=False,
        with_strings=False,
    )  # fmt: skip
