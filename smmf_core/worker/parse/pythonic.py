"""Calls as Python writes them, in a list: Llama 4's.

Owns that syntax around the arguments' literals, which are python_scan's.
"""

from __future__ import annotations

import json

from smmf_core.worker.parse.calls import CallParser, Wait
from smmf_core.worker.parse.python_scan import PythonScanner

_START, _END = "<|python_start|>", "<|python_end|>"


class Pythonic:
    """`[name(key=value, ...), ...]`, maybe between marks. Without them, a list is one of calls
    only when it begins with a tool's name."""

    def openers(self, names: list[str]) -> tuple[list[str], list[str]]:
        return [_START], [f"[{name}(" for name in names]

    def calls(self, parser: CallParser, opener: str) -> Wait[bool]:
        before = parser.count
        if opener == _START:
            yield from parser.spaces()
            if not (yield from parser.literal("[")):
                return False
        else:
            parser.at -= len(opener) - 1
        start = parser.at
        while (yield from _call(parser)):
            start = parser.at
            if (yield from parser.optional("]")) or not (yield from parser.optional(",")):
                break
            start = parser.at
        else:
            parser.at = start
        if parser.count > before:
            yield from parser.optional(_END)
        return parser.count > before


def _call(parser: CallParser) -> Wait[bool]:
    """One call. False: it is none, or broken: what follows is content."""
    yield from parser.spaces()
    name = yield from parser.name()
    if not name or not (yield from parser.literal("(")):
        return False
    yield from parser.spaces()
    key, has_begun = "", False
    while not (yield from parser.literal(")")):
        key = yield from parser.name()
        if not key or not (yield from parser.optional("=")):
            return _broken(parser, has_begun)
        if not has_begun:
            parser.begin(name)
        parser.give(f"{', ' if has_begun else '{'}{json.dumps(key)}: ")
        has_begun = True
        yield from parser.spaces()
        if not (yield from _literal(parser)):
            return False
        yield from parser.optional(",")
        yield from parser.spaces()
    if not has_begun:
        parser.begin(name)
    parser.give("}" if has_begun else "{}")
    yield from parser.ended()
    return True


def _broken(parser: CallParser, has_begun: bool) -> bool:
    """Behind an argument the call is one, though its end is not: unless the answer was cut."""
    if has_begun and not (parser.is_final and parser.is_cut):
        parser.give("}")
    return False


def _literal(parser: CallParser) -> Wait[bool]:
    scanner = PythonScanner()
    while True:
        out, taken = scanner.take(parser.rest, 0)
        parser.give(out)
        parser.skip(taken)
        if scanner.is_done or scanner.is_bad or parser.is_final:
            return scanner.is_done
        yield
