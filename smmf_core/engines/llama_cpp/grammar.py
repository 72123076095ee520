"""Which grammar binds a request's answer: its response format, or the tools that it must call.

Owns the checks before a request is taken; must not sample. How a schema becomes a grammar is
gbnf's.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec

from smmf_core.engines.grammar.form import refused, wanted_schema
from smmf_core.engines.grammar.tools import FORMS, must_call
from smmf_core.engines.llama_cpp import gbnf
from smmf_core.engines.llama_cpp.api import Grammar, Model
from smmf_core.engines.llama_cpp.calls import calls_body
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

_KEPT = 64  # grammars that were found good


class Grammars:
    """Checked grammars of one model. `tool_format`: the name of how it writes tool calls."""

    def __init__(self, model: Model, tool_format: str = "") -> None:
        self._model = model
        self._tool_format = tool_format or "hermes"
        self._good: OrderedDict[bytes, str] = OrderedDict()

    def text(self, submit: Submit) -> str:
        """The grammar of a request's answer; "" when it is free.

        Raises ApiError (400) for a format that cannot be followed.
        """
        if submit.response_format is None and not must_call(submit.tools, submit.tool_choice):
            return ""
        key = msgspec.msgpack.encode(
            [
                submit.response_format,
                submit.tools,
                submit.tool_choice,
                submit.parallel_tool_calls,
            ]
        )
        if key in self._good:
            self._good.move_to_end(key)
            return self._good[key]
        try:
            text = self._make(submit)
            Grammar(self._model, text).close()
        except ValueError as error:
            if not must_call(submit.tools, submit.tool_choice):
                raise refused(submit.response_format, str(error)) from None
            text = f"These tools cannot be forced: {error}"
            raise ApiError("invalid_value", text, "tool_choice") from None
        self._good[key] = text
        if len(self._good) > _KEPT:
            self._good.popitem(last=False)
        return text

    def _make(self, submit: Submit) -> str:
        """1. A forced call. 2. The response format; with tools at hand, a call instead of it."""
        grammar = gbnf.Grammar()
        if must_call(submit.tools, submit.tool_choice):
            return grammar.text(self._calls(grammar, submit))
        root = _response(grammar, submit.response_format or {})
        if submit.tools and submit.tool_choice != "none" and self._tool_format in FORMS:
            root = f"{root} | {self._calls(grammar, submit)}"
        return grammar.text(root)

    def _calls(self, grammar: gbnf.Grammar, submit: Submit) -> str:
        is_named = isinstance(submit.tool_choice, dict) and "function" in submit.tool_choice
        is_one = is_named or not submit.parallel_tool_calls
        return calls_body(grammar, self._tool_format, _functions(submit), is_one)


def _functions(submit: Submit) -> list[dict[str, Any]]:
    """The functions that may be called, by `tool_choice`."""
    functions = [tool["function"] for tool in submit.tools or [] if tool.get("function")]
    choice = submit.tool_choice
    if isinstance(choice, dict):
        listed = choice.get("allowed_tools", {}).get("tools") or [choice]
        names = {entry["function"]["name"] for entry in listed}
        functions = [function for function in functions if function["name"] in names]
    return functions


def _response(grammar: gbnf.Grammar, form: dict[str, Any]) -> str:
    """Every keyword that is not followed is an error, strict or not."""
    schema = wanted_schema(form)
    is_any = schema == {"type": "object"}
    return grammar.base("object") if is_any else grammar.schema(schema, strict=True)
