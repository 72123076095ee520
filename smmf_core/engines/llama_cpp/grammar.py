"""Which grammar binds a request's answer: its response format, or the tools that it must call.

Owns the checks before a request is taken; must not sample. How a schema becomes a grammar is
gbnf's.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any, NamedTuple

import msgspec

from smmf_core.engines.grammar.form import refused, wanted_schema
from smmf_core.engines.llama_cpp import gbnf
from smmf_core.engines.llama_cpp.api import Grammar, Model
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

_KEPT = 64  # grammars that were found good


class _Calls(NamedTuple):
    """How a family writes tool calls: around all, around each, and the key of the arguments."""

    before_all: str = ""
    before: str = ""
    after: str = ""
    after_all: str = ""
    between: str = ""
    arguments: str = "arguments"


_FORMATS = {
    "hermes": _Calls("", "<tool_call>", "</tool_call>", "", "\n"),
    "mistral": _Calls("[TOOL_CALLS][", "", "", "]", ", "),
    "llama3_json": _Calls(arguments="parameters"),
}


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
        if submit.response_format is None and not _must_call(submit):
            return ""
        key = msgspec.msgpack.encode([submit.response_format, submit.tools, submit.tool_choice])
        if key in self._good:
            self._good.move_to_end(key)
            return self._good[key]
        try:
            text = self._make(submit)
            Grammar(self._model, text).close()
        except ValueError as error:
            if not _must_call(submit):
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
        if _must_call(submit):
            return grammar.text(self._calls(grammar, submit))
        root = _response(grammar, submit.response_format or {})
        if submit.tools and submit.tool_choice != "none" and self._tool_format in _FORMATS:
            root = f"{root} | {self._calls(grammar, submit)}"
        return grammar.text(root)

    def _calls(self, grammar: gbnf.Grammar, submit: Submit) -> str:
        if self._tool_format not in _FORMATS:
            raise ValueError(f"calls of the format {self._tool_format} cannot be forced here.")
        form = _FORMATS[self._tool_format]
        is_one = isinstance(submit.tool_choice, dict) and "function" in submit.tool_choice
        bodies = [_call(grammar, form, function) for function in _functions(submit)]
        call = grammar.add(" | ".join(bodies))
        more = "" if is_one or not form.between else f" ( {gbnf.literal(form.between)} {call} )*"
        around = [gbnf.literal(text) if text else "" for text in (form.before_all, form.after_all)]
        return f"{around[0]} {call}{more} {around[1]}".strip()


def _must_call(submit: Submit) -> bool:
    choice = submit.tool_choice
    if not submit.tools or not choice:
        return False
    if isinstance(choice, dict):
        choice = choice.get("allowed_tools", {"mode": "required"}).get("mode")
    return bool(choice == "required")


def _functions(submit: Submit) -> list[dict[str, Any]]:
    """The functions that may be called, by `tool_choice`."""
    functions = [tool["function"] for tool in submit.tools or [] if tool.get("function")]
    choice = submit.tool_choice
    if isinstance(choice, dict):
        listed = choice.get("allowed_tools", {}).get("tools") or [choice]
        names = {entry["function"]["name"] for entry in listed}
        functions = [function for function in functions if function["name"] in names]
    return functions


def _call(grammar: gbnf.Grammar, form: _Calls, function: dict[str, Any]) -> str:
    """One call: an object of the function's name and its arguments."""
    schema = {"type": "object", **(function.get("parameters") or {})}
    arguments = grammar.schema(schema, strict=bool(function.get("strict")))
    space, name = grammar.base("ws"), gbnf.literal(json.dumps(function["name"]))
    keys = [gbnf.literal(f'"{key}"') for key in ("name", form.arguments)]
    body = (
        f'"{{" {space} {keys[0]} ":" {space} {name} "," {space} {keys[1]} ":" {space} {arguments}'
        f' {space} "}}"'
    )
    if not form.before:
        return body
    return f"{gbnf.literal(form.before)} {space} {body} {space} {gbnf.literal(form.after)}"


def _response(grammar: gbnf.Grammar, form: dict[str, Any]) -> str:
    """Every keyword that is not followed is an error, strict or not."""
    schema = wanted_schema(form)
    is_any = schema == {"type": "object"}
    return grammar.base("object") if is_any else grammar.schema(schema, strict=True)
