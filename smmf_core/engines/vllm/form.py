"""The form that an answer is held to, in vLLM's terms: a grammar, as the other engines have it.

Owns what is asked of vLLM and what it is set to for that; must not import vLLM, which compiles and
follows it: with llguidance, as they do, so that a schema means the same everywhere.
"""

from __future__ import annotations

from typing import Any

from smmf_core.engines.grammar import form
from smmf_core.engines.grammar.tools import must_call
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

_KEY, _BACKEND = "structured_outputs_config", "guidance"


def answer_form(submit: Submit, tool_format: str) -> dict[str, Any]:
    """Arguments of vLLM's StructuredOutputsParams, {} for a free answer. Raises ApiError."""
    wanted = form.answer_form(submit, tool_format, lambda piece: None)
    return {"grammar": wanted.grammar} if wanted is not None else {}


def check_form(submit: Submit, has_grammars: bool, tool_format: str) -> None:
    """Raises ApiError for a form that this model cannot be held to."""
    is_forced = must_call(submit.tools, submit.tool_choice)
    if not has_grammars and (is_forced or not form.is_free(submit)):
        text = "This model runs without vLLM's tokenizer: its answers take no form."
        raise ApiError("unsupported_value", text, "tool_choice" if is_forced else form.FORMAT_PARAM)
    answer_form(submit, tool_format)


def refused(submit: Submit, reason: str) -> ApiError | None:
    """What vLLM says of a grammar, in the words of the other engines; None: it had none."""
    if must_call(submit.tools, submit.tool_choice):
        return ApiError("invalid_value", f"These tools cannot be forced: {reason}", "tool_choice")
    return None if form.is_free(submit) else form.refused(submit.response_format, reason)


def grammar_arguments(own: dict[str, Any]) -> dict[str, Any]:
    """The engine argument that chooses the library. Raises ValueError for another one."""
    given = own.get(_KEY) or {}
    backend = given.get("backend", _BACKEND) if isinstance(given, dict) else _BACKEND
    if backend != _BACKEND:
        text = f"[engine] {_KEY}: answers are held to grammars of the backend '{_BACKEND}' only."
        raise ValueError(text)
    return {_KEY: {"backend": _BACKEND, **(given if isinstance(given, dict) else {})}}
