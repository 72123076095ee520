"""Calls of tools as GBNF, in the form in which each family of models writes them.

Owns the rules around names and arguments; the forms are grammar.tools's, whose pieces are text here
even where they are special tokens: llama.cpp's grammars see tokens' texts.
"""

from __future__ import annotations

import json
from typing import Any

from smmf_core.engines.grammar.keywords import Object
from smmf_core.engines.grammar.tool_arguments import Tags, alone, options_of, properties_of
from smmf_core.engines.grammar.tools import FORMS, Form
from smmf_core.engines.llama_cpp import gbnf
from smmf_core.worker.parse.typed import kinds_of

_FREE = '( [^<] | "<" [^/] )*'  # a text without closing tags
_JSON_KEYS = {"hermes": "arguments", "mistral": "arguments", "llama3_json": "parameters"}
"""Forms of one JSON object, with free white space in it; by the key of their arguments."""


def calls_body(
    grammar: gbnf.Grammar, tool_format: str, functions: list[Object], is_one: bool
) -> str:
    """Calls of these functions: one, or one or several. Raises ValueError."""
    form = FORMS.get(tool_format)
    if form is None:
        raise ValueError(f"calls of the format {tool_format} cannot be forced here.")
    call = grammar.add(" | ".join(_call(grammar, tool_format, form, f) for f in functions))
    between = None if is_one else form.between
    more = "" if between is None else f" ( {gbnf.literal(between)} {call} )*"
    before, after = _joined(form.before_all), _joined(form.after_all)
    return f"{before} {call}{more} {after}".strip()


def _call(grammar: gbnf.Grammar, tool_format: str, form: Form, function: Object) -> str:
    schema = {"type": "object", **(function.get("parameters") or {})}
    strict = bool(function.get("strict"))
    if tool_format in _JSON_KEYS:
        return _json_call(grammar, tool_format, function["name"], grammar.schema(schema, strict))
    before = [piece.replace("{name}", function["name"]) for piece in form.before]
    if form.tags is not None:
        arguments = _tagged(grammar, schema, form.tags, strict)
    elif form.is_python:
        arguments = _pythonic(grammar, schema, strict)
    else:
        arguments = grammar.schema(schema, strict)
    return f"{_joined(before)} {arguments} {_joined(form.after)}"


def _json_call(grammar: gbnf.Grammar, tool_format: str, name: str, arguments: str) -> str:
    space, written = grammar.base("ws"), gbnf.literal(json.dumps(name))
    keys = [gbnf.literal(f'"{key}"') for key in ("name", _JSON_KEYS[tool_format])]
    body = (
        f'"{{" {space} {keys[0]} ":" {space} {written} "," {space} {keys[1]} ":" {space}'
        f' {arguments} {space} "}}"'
    )
    if tool_format != "hermes":
        return body
    return f'"<tool_call>" {space} {body} {space} "</tool_call>"'


def _tagged(grammar: gbnf.Grammar, schema: Object, tags: Tags, strict: bool) -> str:
    """Arguments in the schema's order."""
    parts = []
    for name, value, is_required in properties_of(schema):
        opening = _joined([*tags.before_name, name, *tags.behind_name])
        closing = _joined([tags.in_line, tags.close, *tags.behind_value])
        part = f"{opening} {_tagged_value(grammar, value, schema, strict)} {closing}"
        parts.append(part if is_required else f"( {part} )?")
    return grammar.add(" ".join(parts) or '""')


def _tagged_value(grammar: gbnf.Grammar, schema: Any, document: Object, strict: bool) -> str:
    """1. One of a list of texts. 2. Any text. 3. JSON."""
    options = options_of(schema)
    if options:
        return f"( {' | '.join(map(gbnf.literal, options))} )"
    if "string" in kinds_of(schema, document):
        return grammar.add(_FREE)
    return grammar.schema(alone(schema, document), strict)


def _pythonic(grammar: gbnf.Grammar, schema: Object, strict: bool) -> str:
    """`name=value` with commas, those that are required first."""
    properties = sorted(properties_of(schema), key=lambda found: not found.is_required)
    first, rest = '""', '""'  # of the arguments from the last on
    for name, value, is_required in reversed(properties):
        written = grammar.schema(alone(value, schema), strict)
        own = grammar.add(f"{gbnf.literal(f'{name}=')} {written}")
        head = f"{own} {rest}" if is_required else f"{own} {rest} | {first}"
        tail = f'", " {own} {rest}' if is_required else f'( ", " {own} )? {rest}'
        first, rest = grammar.add(head), grammar.add(tail)
    return first


def _joined(pieces: list[str]) -> str:
    text = "".join(pieces)
    return gbnf.literal(text) if text else ""
