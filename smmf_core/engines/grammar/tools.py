"""Calls of tools as a grammar, in the form in which each family of models writes them.

Owns what stands around a call's name and arguments; must not read an answer. The forms are those of
the models' own chat templates.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from smmf_core.engines.grammar.keywords import Object, SchemaError
from smmf_core.engines.grammar.schema import check_schema, prepared
from smmf_core.engines.grammar.tool_arguments import Tags, python_rules, tagged_rules
from smmf_core.errors import ApiError

DEFAULT_FORMAT = "hermes"  # of models that name none: most templates in use
# JSON on one line: with free white space, small models write blanks for ever, and the tokens of
# texts that have no choice (keys) end where a blank might come, not where the model is used to.
_SPACING = {"whitespace_flexible": False, "key_separator": ": ?", "item_separator": ", ?"}


class Form(NamedTuple):
    """Texts around all calls, around each, and between two; None: only one. A text is a list of
    pieces: those that are special tokens of the model are that token. `{name}` is the name."""

    before_all: list[str]
    before: list[str]
    after: list[str]
    after_all: list[str]
    between: str | None
    tags: Tags | None = None  # around each argument; None: they are one JSON object
    is_python: bool = False  # arguments as Python has them


def _json_call(arguments: str) -> str:
    return f'{{"name": "{{name}}", "{arguments}": '


def _deepseek(words: str) -> str:
    """Its markers, with wide bars and lower blocks for spaces."""
    return "<\uff5c" + words.replace(" ", "\u2581") + "\uff5c>"


FORMS = {
    "hermes": Form(
        [],
        ["<tool_call>", "\n" + _json_call("arguments")],
        ["}\n", "</tool_call>"],
        [],
        "\n",
    ),
    "llama3_json": Form([], [_json_call("parameters")], ["}"], [], None),
    "mistral": Form(["[TOOL_CALLS]", "["], [_json_call("arguments")], ["}"], ["]"], ", "),
    "deepseek_v3": Form(
        [_deepseek("tool calls begin")],
        [_deepseek("tool call begin"), "function", _deepseek("tool sep"), "{name}\n```json\n"],
        ["\n```", _deepseek("tool call end")],
        [_deepseek("tool calls end")],
        "\n",
    ),
    "glm4": Form([], ["{name}\n"], [], [], None),
    "internlm": Form(
        [],
        ["<|action_start|>", "<|plugin|>", "\n" + _json_call("parameters")],
        ["}", "<|action_end|>"],
        [],
        None,
    ),
    "phi": Form(
        ["<|tool_call|>", "["],
        [_json_call("arguments")],
        ["}"],
        ["]", "<|/tool_call|>"],
        ", ",
    ),
    "glm45": Form(
        [],
        ["<tool_call>", "{name}\n"],
        ["</tool_call>"],
        [],
        "\n",
        Tags(["<arg_key>"], ["</arg_key>", "\n", "<arg_value>"], "</arg_value>", ["\n"], ""),
    ),
    "qwen3_coder": Form(
        [],
        ["<tool_call>", "\n<function={name}>\n"],
        ["</function>\n", "</tool_call>"],
        [],
        "\n",
        Tags(["<parameter="], [">\n"], "</parameter>", ["\n"], "\n"),
    ),
    "llama4_pythonic": Form(["["], ["{name}("], [")"], ["]"], ", ", is_python=True),
}  # fmt: skip
FORMATS = tuple(FORMS)

SpecialId = Callable[[str], int | None]


def must_call(tools: list[Object] | None, choice: Any) -> bool:
    """Whether an answer has to be a call."""
    if not tools or not choice:
        return False
    if isinstance(choice, dict):
        choice = choice.get("allowed_tools", {"mode": "required"}).get("mode")
    return bool(choice == "required")


def grammar_for_tools(
    tools: list[Object],
    choice: Any,
    tool_format: str = "",
    special_id: SpecialId = lambda piece: None,
    is_parallel: bool = True,
) -> str:
    """A whole grammar (llguidance's Lark) of an answer that is calls of the tools that `choice`
    allows: one where it names a function or `is_parallel` is false, else one or several.

    Raises ApiError: a format that is not known, parameters that cannot be followed.
    """
    return "start: calls\n" + call_rules(tools, choice, tool_format, special_id, is_parallel)


def call_rules(
    tools: list[Object],
    choice: Any,
    tool_format: str,
    special_id: SpecialId,
    is_parallel: bool = True,
) -> str:
    """The rule `calls`, with those that it needs. Raises ApiError."""
    form = FORMS.get(tool_format or DEFAULT_FORMAT)
    if form is None:
        text = f"Calls in the format {tool_format!r} cannot be forced: use tool_choice 'auto'."
        raise ApiError("unsupported_value", text, "tool_choice")

    def written(pieces: list[str]) -> str:
        return " ".join(terminal(piece, special_id(piece)) for piece in pieces)

    rules: list[str] = []
    names: list[str] = []
    for number, function in _allowed(tools, choice):
        before = [piece.replace("{name}", function["name"]) for piece in form.before]
        own = f"call_{number}"
        arguments, *below = _arguments(form, function, number, special_id)
        names.append(own)
        rules += [f"{own}: {written(before)} {arguments} {written(form.after)}", *below]
    is_one = isinstance(choice, dict) and "function" in choice
    more = "" if is_one or not is_parallel or form.between is None else _more(form.between)
    around = written(form.before_all), written(form.after_all)
    calls = f"calls: {around[0]} call {more} {around[1]}".rstrip()
    return "\n".join([calls, f"call: {' | '.join(names)}", *rules, ""])


def terminal(text: str, token: int | None = None) -> str:
    """Exactly this text, or this token."""
    return json.dumps(text, ensure_ascii=False) if token is None else f"<[{token}]>"


def json_rule(schema: Any, lenient: bool = False) -> str:
    """The instances of a schema, as part of a rule. `lenient`: what cannot be followed is not."""
    options = {**_SPACING, "lenient": lenient}
    body = {"allOf": [schema]} if isinstance(schema, bool) else prepared(schema)
    return "%json " + json.dumps({**body, "x-guidance": options}, ensure_ascii=False)


def _more(between: str) -> str:
    return f"({terminal(between)} call)*"


def _arguments(form: Form, function: Object, number: int, special_id: SpecialId) -> list[str]:
    """The arguments as part of a rule, then the rules that they need.

    Where a tool is not `strict`, keywords that are not supported do not count (OpenAI's rule);
    limits hold for all."""
    schema = {"type": "object", **(function.get("parameters") or {})}
    strict = bool(function.get("strict"))

    def json_of(part: Any) -> str:
        return json_rule(part, lenient=not strict)

    def written(piece: str) -> str:
        return terminal(piece, special_id(piece))

    rule = f"arguments_{number}"
    try:
        check_schema(schema, strict, limits_only=not strict)
        if form.tags is not None:
            is_token = special_id(form.tags.close) is not None
            return [rule, *tagged_rules(rule, schema, form.tags, written, json_of, is_token)]
        if form.is_python:
            return [rule, *python_rules(rule, schema, written, json_of)]
    except SchemaError as error:
        text = f"Invalid schema for function '{function['name']}': {error}"
        param = f"tools[{number}].function.parameters"
        raise ApiError("invalid_value", text, param) from None
    return [json_of(schema)]


def _allowed(tools: list[Object], choice: Any) -> list[tuple[int, Object]]:
    """The functions that may be called, by their places among the tools."""
    found = [(n, tool["function"]) for n, tool in enumerate(tools) if tool.get("function")]
    if isinstance(choice, dict):
        listed = choice.get("allowed_tools", {}).get("tools") or [choice]
        names = {entry["function"]["name"] for entry in listed if entry.get("function")}
        found = [(n, function) for n, function in found if function["name"] in names]
    return found
