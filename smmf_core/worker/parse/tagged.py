"""Calls whose arguments stand one by one between tags, as bare text: GLM 4.5's and Qwen3-Coder's.

Owns that markup. Texts are given out while they come; other values once they are whole, since only
then can they be told from a text.
"""

from __future__ import annotations

import json

from smmf_core.worker.parse.calls import CallParser, Object, Wait
from smmf_core.worker.parse.thoughts import overlap
from smmf_core.worker.parse.typed import STRING, as_json, kinds_of

_CALL, _CALL_END = "<tool_call>", "</tool_call>"


class Glm45:
    """`<tool_call>name`, then for each argument `<arg_key>key</arg_key>` and
    `<arg_value>value</arg_value>`, then `</tool_call>`"""

    def openers(self, names: list[str]) -> tuple[list[str], list[str]]:
        return [_CALL], []

    def calls(self, parser: CallParser, opener: str) -> Wait[bool]:
        yield from parser.spaces()
        name = yield from parser.name()
        start = parser.at
        has_key = yield from parser.optional("<arg_key>")
        if not has_key and not (parser.knows(name) and (yield from parser.optional(_CALL_END))):
            return False
        parser.at = start
        if not name:
            return False
        parser.begin(name)
        schema, before = parser.parameters(name), "{"
        while (yield from parser.optional("<arg_key>")):
            key = yield from parser.until("</arg_key>")
            if not key or not (yield from parser.optional("<arg_value>")):
                break
            parser.give(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
            if not (yield from _value(parser, "</arg_value>", key, schema, in_lines=False)):
                return True
            before = ", "
        yield from _end(parser, before, [_CALL_END])
        return True


class Qwen3Coder:
    """`<tool_call>`, `<function=name>`, then for each argument `<parameter=key>`, a line or more of
    its value, and `</parameter>`, then `</function>` and `</tool_call>`"""

    def openers(self, names: list[str]) -> tuple[list[str], list[str]]:
        return [_CALL, "<function="], []

    def calls(self, parser: CallParser, opener: str) -> Wait[bool]:
        if opener == _CALL:
            yield from parser.spaces()
            if not (yield from parser.literal("<function=")):
                return False
        name = yield from parser.name()
        if not name or not (yield from parser.literal(">")):
            return False
        parser.begin(name)
        schema, before = parser.parameters(name), "{"
        while (yield from parser.optional("<parameter=")):
            key = yield from parser.until(">")
            if not key:
                break
            parser.give(f"{before}{json.dumps(key, ensure_ascii=False)}: ")
            if not (yield from _value(parser, "</parameter>", key, schema, in_lines=True)):
                return True
            before = ", "
        yield from _end(parser, before, ["</function>", _CALL_END])
        return True


def _end(parser: CallParser, before: str, marks: list[str]) -> Wait[None]:
    """Behind the last argument. Of a call that the answer's limit cut no more is given."""
    first, *others = marks
    if (yield from parser.optional(first)) or not (parser.is_final and parser.is_cut):
        parser.give("{}" if before == "{" else "}")
        yield from parser.ended()
    for mark in others:
        yield from parser.optional(mark)


def _value(parser: CallParser, close: str, key: str, schema: Object, in_lines: bool) -> Wait[bool]:
    """Give the value that ends with `close`. False: the answer ended before it did. `in_lines`: a
    line break after the opening tag and one before `close` are not its own."""
    if in_lines:
        yield from parser.literal("\n")
    properties = schema.get("properties")
    of_key = properties.get(key) if isinstance(properties, dict) else None
    kinds = kinds_of(of_key, schema)
    if kinds == STRING:
        return (yield from _text(parser, close, in_lines))
    while (end := parser.rest.find(close)) < 0:
        if parser.is_final:
            break
        yield
    text = parser.rest[:end] if end >= 0 else parser.rest
    parser.skip(len(text) + len(close))
    if end >= 0 or not parser.is_cut:
        parser.give(as_json(text.removesuffix("\n") if in_lines else text, kinds))
    return (yield from _go_on(parser, end >= 0))


def _text(parser: CallParser, close: str, in_lines: bool) -> Wait[bool]:
    """A text, as it comes: all but what may be the closing tag."""
    parser.give('"')
    marks = [close, "\n" + close] if in_lines else [close]
    while (end := parser.rest.find(close)) < 0:
        rest = parser.rest
        if parser.is_final and not parser.is_cut:
            break
        held = max(overlap(rest, mark) for mark in marks)
        parser.give(_escaped(rest[: len(rest) - held]))
        parser.skip(len(rest) - held)
        if parser.is_final:
            parser.skip(held)
            return False
        yield
    text = parser.rest[:end] if end >= 0 else parser.rest
    parser.skip(len(text) + len(close))
    parser.give(_escaped(text.removesuffix("\n") if in_lines else text) + '"')
    return (yield from _go_on(parser, end >= 0))


def _go_on(parser: CallParser, is_closed: bool) -> Wait[bool]:
    """An answer that ended by itself inside a value ended the call, too."""
    if not is_closed and not parser.is_cut:
        parser.give("}")
        yield from parser.ended()
    return is_closed


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
