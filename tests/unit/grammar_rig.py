"""What tests of grammars have in common: requests, and what an answer may go on with."""

from __future__ import annotations

from typing import Any

import numpy as np
from byte_tokens import END

from smmf_core.engines.base import Sequence
from smmf_core.engines.grammar.compiler import Grammars
from smmf_core.engines.grammar.constraint import Constraint
from smmf_core.messages import Sampling, Submit

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
FUNCTIONS = [
    {"name": "add", "parameters": {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/n"}},
        "required": ["x"],
        "$defs": {"n": {"type": "integer"}},
    }},
    {"name": "now"},
]  # fmt: skip
TOOLS = [{"type": "function", "function": function} for function in FUNCTIONS]
SCHEMAS: dict[str, Any] = {f["name"]: f.get("parameters") or {} for f in FUNCTIONS}


def submit(schema: Any = None, **fields: Any) -> Submit:
    if schema is not None:
        form = {"name": "x", "schema": schema}
        fields["response_format"] = {"type": "json_schema", "json_schema": form}
    return Submit(1, 0, "r", "m", True, 1, None, [[1]], Sampling(), **fields)


def bind(grammars: Grammars, asked: Submit, output: list[int] | None = None) -> Constraint:
    grammars.check(asked)
    sequence = Sequence(1, [1, *(output or [])], 1, asked.sampling, 9, asked)
    bound = grammars.bind(sequence)
    assert bound is not None
    return bound


def allowed(bound: Constraint) -> set[int]:
    mask = np.full(bound.words, -1, np.int32)
    bound.fill(mask)
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def follows(bound: Constraint, tokens: bytes | list[int]) -> bool:
    """Whether the whole text follows, and the answer may end there."""
    for token in tokens:
        if token not in allowed(bound):
            return False
        bound.accept(token)
    return END in allowed(bound)
