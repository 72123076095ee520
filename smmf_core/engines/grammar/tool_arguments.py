"""Arguments of a call that stand one by one, as a grammar: between tags, or as Python has them.

Owns the rules of one function's arguments; must not know what stands around calls. Answers in these
forms name no other arguments than the schema does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from smmf_core.engines.grammar.keywords import Object, SchemaError
from smmf_core.worker.parse.typed import kinds_of

_OF_WHOLE = ("anyOf", "oneOf", "allOf", "$ref", "if")
_DEFINITIONS = ("$defs", "definitions")

Terminal = Callable[[str], str]
JsonRule = Callable[[Any], str]


class Tags(NamedTuple):
    """Around an argument's name and around its value. Pieces that are special tokens are that."""

    before_name: list[str]
    behind_name: list[str]
    close: str
    behind_value: list[str]
    in_line: str  # between a value and `close`


def tagged_rules(
    rule: str, schema: Object, tags: Tags, terminal: Terminal, json_rule: JsonRule, is_token: bool
) -> list[str]:
    """The rules of `rule`: arguments in the schema's order. `is_token`: `tags.close` is one token.
    Raises SchemaError."""
    parts, rules = [], []
    for number, (name, value, is_required) in enumerate(properties_of(schema)):
        own = f"{rule}_{number}"
        pieces = [*tags.before_name, name, *tags.behind_name]
        body = " ".join([*map(terminal, pieces), f"{own}_value", *map(terminal, tags.behind_value)])
        rules += [f"{own}: {body}", *_value(f"{own}_value", value, schema, tags, terminal,
                                           json_rule, is_token)]  # fmt: skip
        parts.append(own if is_required else f"{own}?")
    return [f"{rule}: {' '.join(parts) or terminal('')}", *rules]


def python_rules(rule: str, schema: Object, terminal: Terminal, json_rule: JsonRule) -> list[str]:
    """The rules of `rule`: `name=value` with commas, those that are required first; values as JSON
    has them, which is Python but for three words. Raises SchemaError."""
    properties = sorted(properties_of(schema), key=lambda found: not found.is_required)
    comma = terminal(", ")
    rules = []
    first, rest = terminal(""), terminal("")  # of the arguments from the last on
    for number, (name, value, is_required) in reversed(list(enumerate(properties))):
        own = f"{rule}_{number}"
        rules.append(f"{own}: {terminal(f'{name}=')} {json_rule(alone(value, schema))}")
        head = f"{own} {rest}" if is_required else f"{own} {rest} | {first}"
        tail = f"{comma} {own} {rest}" if is_required else f"({comma} {own})? {rest}"
        rules += [f"{own}_first: {head}", f"{own}_rest: {tail}"]
        first, rest = f"{own}_first", f"{own}_rest"
    return [f"{rule}: {first}", *rules]


class Property(NamedTuple):
    name: str
    schema: Any
    is_required: bool


def properties_of(schema: Object) -> Iterator[Property]:
    """Raises SchemaError for what is said of all arguments together."""
    for keyword in _OF_WHOLE:
        if keyword in schema:
            text = f"'{keyword}' of all arguments together is not supported in the form in which"
            raise SchemaError(f"{text} this model writes calls.")
    required = schema.get("required") or []
    for name, value in (schema.get("properties") or {}).items():
        yield Property(name, value, name in required)


def _value(
    rule: str, schema: Any, document: Object, tags: Tags, terminal: Terminal,
    json_rule: JsonRule, is_token: bool,
) -> list[str]:  # fmt: skip
    """A value with what closes it. 1. One of a list of texts. 2. Any text. 3. JSON."""
    end = f"{terminal(tags.in_line)} {terminal(tags.close)}"
    options = options_of(schema)
    if options:
        return [f"{rule}: ({' | '.join(map(terminal, options))}) {end}"]
    if "string" not in kinds_of(schema, document):
        return [f"{rule}: {json_rule(alone(schema, document))} {end}"]
    if is_token:
        return [f"{rule}: /(.|\\n)*/ {terminal(tags.close)}"]
    closing = (tags.in_line + tags.close).replace("/", "\\/").replace("\n", "\\n")
    return [f"{rule}[lazy]: /(.|\\n)*{closing}/"]


def options_of(schema: Any) -> list[str]:
    """The texts of an enum or const of texts."""
    if not isinstance(schema, dict):
        return []
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    return list(values) if all(isinstance(value, str) for value in values) else []


def alone(schema: Any, document: Object) -> Any:
    """A part of a document, with what it may refer to."""
    found = {keyword: document[keyword] for keyword in _DEFINITIONS if keyword in document}
    return {**found, **schema} if isinstance(schema, dict) and found else schema
