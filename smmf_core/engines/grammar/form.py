"""Which grammar binds a request's answer: its response format, or the tools that it must call.

Owns that choice and the names of the fields that are at fault; must not compile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from smmf_core.engines.grammar.keywords import SchemaError
from smmf_core.engines.grammar.schema import check_schema
from smmf_core.engines.grammar.tools import (
    DEFAULT_FORMAT,
    FORMATS,
    SpecialId,
    call_rules,
    json_rule,
    must_call,
)
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

FORMAT_PARAM = "response_format"
SCHEMA_PARAM = "response_format.json_schema.schema"


class Form(NamedTuple):
    """A grammar, and the field of the request that asks for it."""

    grammar: str
    param: str


def answer_form(
    submit: Submit, tool_format: str, special_id: SpecialId, thought: str = ""
) -> Form | None:
    """None: the answer is free. Raises ApiError (400) for what cannot be followed. `thought`: a
    rule of that name for what goes before the answer.

    1. A call that is forced. 2. The response format; with tools at hand, a call instead of it.
    """
    start = f"{thought}start: thought " if thought else "start: "
    if must_call(submit.tools, submit.tool_choice):
        rules = _calls(submit, tool_format, special_id)
        return Form(start + "calls\n" + rules, "tool_choice")
    if is_free(submit):
        return None
    form = submit.response_format or {}
    param = param_of(form)
    answer = f"answer: {json_rule(wanted_schema(form))}\n"
    is_known = (tool_format or DEFAULT_FORMAT) in FORMATS
    if not submit.tools or submit.tool_choice == "none" or not is_known:
        return Form(start + "answer\n" + answer, param)
    rules = _calls(submit, tool_format, special_id)
    return Form(start + "(answer | calls)\n" + answer + rules, param)


def _calls(submit: Submit, tool_format: str, special_id: SpecialId) -> str:
    tools, choice = submit.tools or [], submit.tool_choice
    return call_rules(tools, choice, tool_format, special_id, submit.parallel_tool_calls)


def param_of(form: dict[str, Any]) -> str:
    """The field that is at fault when a response format cannot be followed."""
    return SCHEMA_PARAM if form["type"] == "json_schema" else FORMAT_PARAM


def is_free(submit: Submit) -> bool:
    """Whether no response format binds the answer."""
    return bool((submit.response_format or {}).get("type", "text") == "text")


def wanted_schema(form: dict[str, Any]) -> Any:
    """The schema of a response format that is not text. Raises ApiError when it cannot be."""
    wrapper = form.get("json_schema") or {}
    schema = wrapper.get("schema")
    if form["type"] != "json_schema" or schema is None:
        return {"type": "object"}
    try:
        check_schema(schema, bool(wrapper.get("strict")))
    except SchemaError as error:
        raise refused(form, str(error)) from None
    return schema


def refused(form: dict[str, Any] | None, reason: str) -> ApiError:
    """The same words from every engine."""
    name = ((form or {}).get("json_schema") or {}).get("name")
    text = f"Invalid schema for response_format '{name}': {reason}"
    return ApiError("invalid_value", text, SCHEMA_PARAM)
