"""JSON schemas as GBNF, the grammars of llama.cpp.

Owns what is generated for each keyword; must not know a vocabulary. Keywords as in JSON Schema
2020-12. Properties come in the schema's order; what a schema leaves open (types, more properties
of an object that names some) is closed, as in OpenAI's structured outputs.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from smmf_core.engines.llama_cpp.gbnf_numbers import integer_range
from smmf_core.engines.llama_cpp.gbnf_pattern import pattern_rule

MAX_RULES = 4000
_MAX_REPEAT = 2000  # llama.cpp copies a repeated item so often: more takes seconds
_BASE = {
    "ws": '| " " | "\\n" [ \\t]{0,20}',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" ws ( string ":" ws value ( "," ws string ":" ws value )* ws )? "}"',
    "array": '"[" ws ( value ( "," ws value )* ws )? "]"',
    "string": '"\\"" char* "\\""',
    "char": '[^"\\\\\\x7F\\x00-\\x1F] | "\\\\" ( ["\\\\/bfnrt] | "u" [0-9a-fA-F]{4} )',
    "integer": '"-"? natural',
    "natural": '"0" | [1-9] [0-9]{0,17}',
    "fraction": '( "." [0-9]{1,17} )? ( [eE] [-+]? [0-9]{1,2} )?',
    "number": '"-"? natural fraction',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "date": '[0-9]{4} "-" ( "0" [1-9] | "1" [0-2] ) "-" ( "0" [1-9] | [12] [0-9] | "3" [01] )',
    "time": '( [01] [0-9] | "2" [0-3] ) ":" [0-5] [0-9] ":" [0-5] [0-9] ( "." [0-9]{1,6} )? zone',
    "zone": '"Z" | [-+] ( [01] [0-9] | "2" [0-3] ) ":" [0-5] [0-9]',
    "date-time": 'date "T" time',
    "uuid": '[0-9a-f]{8} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{12}',
    "byte": '"25" [0-5] | "2" [0-4] [0-9] | "1" [0-9] [0-9] | [1-9]? [0-9]',
    "ipv4": 'byte "." byte "." byte "." byte',
    "email": '[a-zA-Z0-9._%+-]{1,64} "@" [a-zA-Z0-9-]{1,63} ( "." [a-zA-Z0-9-]{1,63} )+',
}
_TERMINAL = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]')
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "email")
_NAMES = ("string", "number", "integer", "boolean", "null", "array", "object")
_REFUSED = (
    "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties",
    "propertyNames", "unevaluatedProperties", "unevaluatedItems", "contains", "multipleOf",
    "uniqueItems", "minProperties", "maxProperties",
)  # fmt: skip


class SchemaError(ValueError):
    """A schema that has no grammar; the message is for the client."""


class Grammar:
    """Rules that grow as schemas are added."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        self._count = 0

    def schema(self, schema: Any, strict: bool = False) -> str:
        """The name of a rule for the instances of a schema.

        `strict`: a keyword that would not be followed is an error. Raises SchemaError.
        """
        try:
            return _Schema(self, schema, strict).rule
        except RecursionError:
            raise SchemaError("The schema is nested too deeply.") from None

    def base(self, name: str) -> str:
        """A rule for any value of a JSON type, with all that it needs."""
        if name not in self._rules:
            self._rules[name] = _BASE[name]
            for part in _NAME.findall(_TERMINAL.sub("", _BASE[name])):
                self.base(part)
        return name

    def add(self, body: str, name: str = "") -> str:
        """A rule of its own for a body."""
        if not name:
            self._count += 1
            name = f"r{self._count}"
        if len(self._rules) > MAX_RULES:
            raise SchemaError("The schema is too large.")
        self._rules[name] = body
        return name

    def name(self) -> str:
        """A name for a rule whose body comes later."""
        self._count += 1
        return f"r{self._count}"

    def text(self, root: str) -> str:
        """The whole grammar; `root` is a body."""
        rules = {"root": root, **self._rules}
        return "".join(f"{name} ::= {body}\n" for name, body in rules.items())


def literal(text: str) -> str:
    """GBNF for exactly this text."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'.replace("\r", "\\r").replace("\t", "\\t")


class _Schema:
    """One schema document: its references are followed once and may be recursive."""

    def __init__(self, grammar: Grammar, document: Any, strict: bool) -> None:
        self._grammar = grammar
        self._document = document
        self._strict = strict
        self._references: dict[str, str] = {}
        self.rule = self._visit(document)

    def _visit(self, schema: Any) -> str:
        """The rule of a schema, by the first that it has: 1. nothing or `true`. 2. `$ref`.
        3. const. 4. enum. 5. anyOf or oneOf. 6. allOf. 7. several types. 8. one type."""
        base = self._grammar.base
        if schema is True or schema == {}:
            return base("value")
        if not isinstance(schema, dict):
            raise SchemaError(f"A schema must be an object, not {json.dumps(schema)}.")
        if self._strict:
            _refuse(schema)
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        if "const" in schema:
            return self._choice([schema["const"]])
        if "enum" in schema:
            return self._choice(schema["enum"])
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                rest = {k: v for k, v in schema.items() if k != keyword}
                return self._union([_merged(rest, part) for part in _list(schema, keyword)])
        if "allOf" in schema:
            return self._visit(self._all_of(schema))
        kind = schema.get("type")
        if isinstance(kind, list):
            return self._union([{**schema, "type": one} for one in kind])
        return self._typed(kind or _implied(schema), schema)

    def _typed(self, kind: str | None, schema: dict[str, Any]) -> str:
        if kind is None:
            return self._grammar.base("value")
        if kind not in _NAMES:
            raise SchemaError(f"Unknown type {json.dumps(kind)} in the schema.")
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return self._array(schema)
        if kind == "string":
            return self._string(schema)
        if kind in ("integer", "number"):
            return self._number(kind, schema)
        return self._grammar.base(kind)

    def _choice(self, values: Any) -> str:
        if not isinstance(values, list) or not values:
            raise SchemaError("'enum' must be a list of values.")
        texts = [json.dumps(value, ensure_ascii=False) for value in values]
        return self._grammar.add(" | ".join(map(literal, texts)))

    def _union(self, schemas: list[Any]) -> str:
        return self._grammar.add(" | ".join(map(self._visit, schemas)))

    def _reference(self, reference: Any) -> str:
        if reference not in self._references:
            name = self._grammar.name()
            self._references[reference] = name
            self._grammar.add(self._visit(self._resolve(reference)), name)
        return self._references[reference]

    def _resolve(self, reference: Any) -> Any:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise SchemaError(f"Only references into the schema itself are known: {reference!r}.")
        node = self._document
        for part in reference[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, dict) or key not in node:
                raise SchemaError(f"The schema has nothing at {reference!r}.")
            node = node[key]
        return node

    def _all_of(self, schema: dict[str, Any]) -> dict[str, Any]:
        merged = {k: v for k, v in schema.items() if k != "allOf"}
        for part in _list(schema, "allOf"):
            if isinstance(part, dict) and "$ref" in part:
                part = {**self._resolve(part["$ref"]), **{k: part[k] for k in part if k != "$ref"}}
            merged = _merged(merged, part)
        return merged

    def _object(self, schema: dict[str, Any]) -> str:
        """`{`, the properties in their order, then further ones where they are allowed."""
        grammar = self._grammar
        properties = schema.get("properties")
        more = schema.get("additionalProperties")
        if properties is None and more in (None, True):
            return grammar.base("object")
        if properties is not None and not isinstance(properties, dict):
            raise SchemaError("'properties' must be an object.")
        required = set(_list(schema, "required")) if "required" in schema else set()
        pairs = [(name, name in required) for name in properties or {}]
        missing = required - set(properties or {})
        if missing and not more:
            raise SchemaError(f"The required property {min(missing)!r} is not among 'properties'.")
        bodies = {
            name: f'{literal(json.dumps(name, ensure_ascii=False))} ":" {grammar.base("ws")} '
            + self._visit(value)
            for name, value in (properties or {}).items()
        }
        tail = ""
        if more:
            value = self._visit(more)
            tail = f'{grammar.base("string")} ":" {grammar.base("ws")} {value}'
        members = self._members(pairs, bodies, tail)
        return grammar.add(f'"{{" {grammar.base("ws")} {members} ws "}}"')

    def _members(self, pairs: list[tuple[str, bool]], bodies: dict[str, str], tail: str) -> str:
        """From the end: a rule for what may follow once something stands before it, and one for
        what may follow the opening brace. Each property costs two rules, whatever is optional."""
        grammar = self._grammar
        after = f'( "," ws {tail} )*' if tail else ""
        first = f"( {tail} {after} )?" if tail else ""
        for name, is_required in reversed(pairs):
            pair = grammar.add(bodies[name])
            then = grammar.add(after) if after else ""
            start = grammar.add(first) if first else ""
            after = f'"," ws {pair} {then}' if is_required else f'( "," ws {pair} )? {then}'
            if is_required:
                first = f"{pair} {then}"
            else:
                first = f"{pair} {then} | {start}" if start else f"( {pair} {then} )?"
        return f"( {first} )" if first else ""

    def _array(self, schema: dict[str, Any]) -> str:
        grammar = self._grammar
        fixed = [self._visit(item) for item in _list(schema, "prefixItems", [])]
        items = schema.get("items", True)
        least, most = self._bounds(schema, "minItems", "maxItems")
        if fixed and (items is False or "items" not in schema):
            body = ' "," ws '.join(fixed)
        elif fixed:
            item = self._visit(items)
            body = ' "," ws '.join(fixed) + f' ( "," ws {item} )*'
        elif most == 0:
            body = ""
        else:
            item = self._visit(items)
            last = None if most is None else most - 1
            rest = _times(f'( "," ws {item} )', max(least - 1, 0), last)
            body = f"{item} {rest}" if least else f"( {item} {rest} )?"
        grammar.base("ws")
        return grammar.add(f'"[" ws {body} ws "]"' if body else '"[" ws "]"')

    def _string(self, schema: dict[str, Any]) -> str:
        """By 1. its pattern; 2. a format that is known; 3. its length."""
        grammar = self._grammar
        pattern = schema.get("pattern")
        if pattern is not None:
            grammar.base("char")
            try:
                return grammar.add(f'"\\"" {pattern_rule(pattern)} "\\""')
            except ValueError as error:
                if self._strict:
                    raise SchemaError(f"The pattern {pattern!r} has no grammar: {error}") from None
        if schema.get("format") in _FORMATS:
            return grammar.add(f'"\\"" {grammar.base(schema["format"])} "\\""')
        least, most = self._bounds(schema, "minLength", "maxLength")
        if least == 0 and most is None:
            return grammar.base("string")
        return grammar.add(f'"\\"" {_times(grammar.base("char"), least, most)} "\\""')

    def _bounds(self, schema: dict[str, Any], low: str, high: str) -> tuple[int, int | None]:
        """A bound that is too large for a grammar is none, if not strict."""
        least, most = schema.get(low, 0), schema.get(high)
        for keyword, value in ((low, least), (high, most)):
            if value is not None and (not isinstance(value, int) or value < 0):
                raise SchemaError(f"'{keyword}' must be a number of things.")
        if most is not None and most < least:
            raise SchemaError(f"'{high}' is below '{low}'.")
        if most is not None and most > _MAX_REPEAT and not self._strict:
            most = None
        if max(least, most or 0) > _MAX_REPEAT:
            raise SchemaError(f"'{low}' and '{high}' may be at most {_MAX_REPEAT}.")
        return least, most

    def _number(self, kind: str, schema: dict[str, Any]) -> str:
        """Bounds hold for integers; of a number's bounds only that it is not negative. Others are
        refused where they must hold."""
        grammar = self._grammar
        if kind == "number" and self._strict:
            _refuse_bounds(schema)
        lows, highs = _limits(schema)
        if kind == "number":
            if max(lows, default=-1) < 0:
                return grammar.base("number")
            return grammar.add(f"{grammar.base('natural')} {grammar.base('fraction')}")
        if not lows and not highs:
            return grammar.base("integer")
        try:
            return grammar.add(integer_range(max(lows, default=None), min(highs, default=None)))
        except ValueError as error:
            raise SchemaError(str(error)) from None


def _refuse_bounds(schema: dict[str, Any]) -> None:
    """Of a number, but for `minimum: 0`."""
    for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if keyword in schema and (keyword, schema[keyword]) != ("minimum", 0):
            text = f"'{keyword}' of a number is not supported by this model's engine, but 0 as"
            raise SchemaError(f"{text} 'minimum'; those of integers are.")


def _refuse(schema: dict[str, Any]) -> None:
    found = [keyword for keyword in _REFUSED if schema.get(keyword) not in (None, False)]
    if found:
        raise SchemaError(f"The keyword '{found[0]}' is not supported by this model's engine.")


def _implied(schema: dict[str, Any]) -> str | None:
    """The type that a schema without one is about."""
    for keywords, kind in (
        (("properties", "required", "additionalProperties"), "object"),
        (("items", "prefixItems", "minItems", "maxItems"), "array"),
        (("pattern", "minLength", "maxLength"), "string"),
    ):
        if any(keyword in schema for keyword in keywords):
            return kind
    return None


def _merged(one: dict[str, Any], other: Any) -> dict[str, Any]:
    """Both schemas at once: properties and requirements add up, else the second counts."""
    if not isinstance(other, dict):
        return one
    merged = {**one, **other}
    if "properties" in one and "properties" in other:
        merged["properties"] = {**one["properties"], **other["properties"]}
    if "required" in one and "required" in other:
        merged["required"] = [*one["required"], *other["required"]]
    return merged


def _list(schema: dict[str, Any], keyword: str, default: Any = None) -> list[Any]:
    found = schema.get(keyword, default)
    if not isinstance(found, list):
        raise SchemaError(f"'{keyword}' must be a list.")
    return found


def _limits(schema: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Lower and upper bounds of whole numbers, included. Raises SchemaError."""
    found: dict[str, float] = {}
    for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        value = schema.get(keyword)
        if isinstance(value, (int, float)) and abs(value) < math.inf:
            found[keyword] = value
        elif value is not None:
            raise SchemaError(f"'{keyword}' must be a number.")
    lows = [math.ceil(found["minimum"])] if "minimum" in found else []
    highs = [math.floor(found["maximum"])] if "maximum" in found else []
    if "exclusiveMinimum" in found:
        lows.append(math.floor(found["exclusiveMinimum"]) + 1)
    if "exclusiveMaximum" in found:
        highs.append(math.ceil(found["exclusiveMaximum"]) - 1)
    return lows, highs


def _times(item: str, least: int, most: int | None) -> str:
    if (least, most) == (0, None):
        return f"{item}*"
    if most == 0:
        return ""
    return f"{item}{{{least},{'' if most is None else most}}}"
