"""Calls of tools that are forced, in every family's form, as llama.cpp's grammars have them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from gguf_models import accepts, make_gguf, open_llama

from smmf_core.engines.llama_cpp.engine import LlamaCppEngine
from smmf_core.engines.llama_cpp.grammar import Grammars
from smmf_core.errors import ApiError
from smmf_core.messages import Sampling, Submit
from smmf_core.worker.parse import FORMATS as PARSED
from smmf_core.worker.parse.calls import CallParser


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppEngine]:
    engine = open_llama(make_gguf(tmp_path_factory.mktemp("tiny"), max_position_embeddings=2048))
    yield engine
    engine.close()


def submit(parameters: Any) -> Submit:
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    return Submit(1, 0, "r", "m", True, 1, None, [[1]], Sampling(), tools=tools,
                  tool_choice="required")  # fmt: skip


DAYS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "days": {"$ref": "#/$defs/days"}, "city": {"type": "string"}, "unit": {"enum": ["C", "F"]},
    },
    "required": ["city", "unit"],
    "$defs": {"days": {"type": "integer", "maximum": 9, "minimum": 0}},
}  # fmt: skip
GLM = "<arg_key>%s</arg_key>\n<arg_value>%s</arg_value>\n"
QWEN = "<parameter=%s>\n%s\n</parameter>\n"
KEYED = '{"name": "f", "%s": %s}'
SPACED = ' "x" \\ <b>\n'


def written(form: str, arguments: dict[str, Any]) -> str:
    """One call of `f`, as the family writes it."""
    as_json = json.dumps(arguments)
    pairs = [f"{name}={json.dumps(value)}" for name, value in arguments.items()]
    mark = "<\uff5ctool\u2581%s\uff5c>"

    def each(form: str) -> str:
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in arguments.items()}
        return "".join(form % pair for pair in texts.items())

    return {
        "hermes": f"<tool_call>{KEYED % ('arguments', as_json)}</tool_call>",
        "llama3_json": KEYED % ("parameters", as_json),
        "mistral": f"[TOOL_CALLS][{KEYED % ('arguments', as_json)}]",
        "deepseek_v3": mark % "calls\u2581begin"
        + mark % "call\u2581begin"
        + "function"
        + mark % "sep"
        + f"f\n```json\n{as_json}\n```"
        + mark % "call\u2581end"
        + mark % "calls\u2581end",
        "glm4": f"f\n{as_json}",
        "internlm": f"<|action_start|><|plugin|>\n{KEYED % ('parameters', as_json)}<|action_end|>",
        "phi": f"<|tool_call|>[{KEYED % ('arguments', as_json)}]<|/tool_call|>",
        "glm45": f"<tool_call>f\n{each(GLM)}</tool_call>",
        "qwen3_coder": f"<tool_call>\n<function=f>\n{each(QWEN)}</function>\n</tool_call>",
        "llama4_pythonic": f"[f({', '.join(pairs)})]",
    }[form]


@pytest.mark.parametrize("form", PARSED)
def test_calls_in_every_format(engine: LlamaCppEngine, form: str) -> None:
    """What is forced is what the answers' parser reads."""
    grammars = Grammars(engine._loaded.model, form)
    grammar = grammars.text(submit(DAYS))
    in_order = form == "llama4_pythonic"  # those that are required come first
    some: dict[str, Any] = {"city": SPACED, "unit": "C"}
    all_ = {**some, "days": 3} if in_order else {"days": 3, **some}
    for arguments in (some, all_):
        text = written(form, arguments)
        assert accepts(engine, grammar, text), text
        parser = CallParser(PARSED[form], {"f": DAYS}, None, "call_{}".format)
        said: Any = [*parser.push(text), *parser.finish(False)]
        assert json.loads("".join(delta.arguments for delta in said)) == arguments
    for bad in ({"unit": "C"}, {**some, "unit": "K"}, {"city": "a", "unit": "C", "days": 12}):
        assert not accepts(engine, grammar, written(form, bad))
    assert not accepts(engine, grammar, "Hello")


def test_calls_that_have_no_grammar(engine: LlamaCppEngine) -> None:
    for form, parameters, words in (
        ("zorp", DAYS, "format zorp cannot be forced"),
        ("glm45", {"anyOf": [{}]}, "'anyOf' of all arguments"),
        ("hermes", {"$ref": "#/x"}, "nothing at"),
    ):
        with pytest.raises(ApiError, match=words) as caught:
            Grammars(engine._loaded.model, form).text(submit(parameters))
        assert (caught.value.status, caught.value.param) == (400, "tool_choice")
