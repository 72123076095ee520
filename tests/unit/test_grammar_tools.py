"""Calls of tools as grammars, in every family's form: what is forced is what the parser reads."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from byte_tokens import CALL, VOCAB, Bytes
from grammar_rig import FUNCTIONS, PERSON, SCHEMAS, TOOLS, bind, follows, submit

from smmf_core.engines.grammar.compiler import Grammars
from smmf_core.engines.grammar.tools import FORMATS, grammar_for_tools
from smmf_core.errors import ApiError
from smmf_core.messages import Submit, ToolDelta
from smmf_core.worker.parse.calls import CallParser
from smmf_core.worker.parse.formats import FORMATS as PARSED


def call_of(form: str, name: str, arguments: str) -> str:
    """As each family writes one call."""
    keyed = f'{{"name": "{name}", "%s": {arguments}}}'
    return {
        "hermes": f"<tool_call>\n{keyed % 'arguments'}\n</tool_call>",
        "llama3_json": keyed % "parameters",
        "mistral": f"[TOOL_CALLS][{keyed % 'arguments'}]",
        "deepseek_v3": "<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin"
        f"\uff5c>function<\uff5ctool\u2581sep\uff5c>{name}\n```json\n{arguments}\n```"
        "<\uff5ctool\u2581call\u2581end\uff5c><\uff5ctool\u2581calls\u2581end\uff5c>",
        "glm4": f"{name}\n{arguments}",
        "internlm": f"<|action_start|><|plugin|>\n{keyed % 'parameters'}<|action_end|>",
        "phi": f"<|tool_call|>[{keyed % 'arguments'}]<|/tool_call|>",
        "glm45": f"<tool_call>{name}\n{one_by_one(GLM, arguments)}</tool_call>",
        "qwen3_coder": f"<tool_call>\n<function={name}>\n{one_by_one(QWEN, arguments)}"
        "</function>\n</tool_call>",
        "llama4_pythonic": f"[{name}({one_by_one('%s=%s', arguments)})]",
    }[form]


GLM = "<arg_key>%s</arg_key>\n<arg_value>%s</arg_value>\n"
QWEN = "<parameter=%s>\n%s\n</parameter>\n"


def one_by_one(form: str, arguments: str) -> str:
    return "".join(form % (key, json.dumps(v)) for key, v in json.loads(arguments).items())


def tokens_of(text: str) -> list[int]:
    parts = text.split("[TOOL_CALLS]")
    return [*parts[0].encode(), *(token for part in parts[1:] for token in [CALL, *part.encode()])]


def forced(choice: Any, **fields: Any) -> Submit:
    return submit(tools=TOOLS, tool_choice=choice, **fields)


@pytest.mark.parametrize("form", FORMATS)
def test_calls_in_every_format(form: str) -> None:
    grammars = Grammars(Bytes(), VOCAB, form)
    add, now = call_of(form, "add", '{"x": 3}'), call_of(form, "now", "{}")
    named = {"type": "function", "function": {"name": "add"}}
    for choice, good, bad in (
        ("required", [add, now], ["Hello", call_of(form, "add", '{"x": "3"}')]),
        (named, [add], [now, call_of(form, "sub", "{}")]),
    ):
        asked = forced(choice)
        assert [text for text in good if not follows(bind(grammars, asked), tokens_of(text))] == []
        assert [text for text in bad if follows(bind(grammars, asked), tokens_of(text))] == []
    allowed_tools = {"mode": "required", "tools": [{"type": "function", "function": FUNCTIONS[1]}]}
    only = forced({"type": "allowed_tools", "allowed_tools": allowed_tools})
    assert follows(bind(grammars, only), tokens_of(now))
    assert not follows(bind(grammars, only), tokens_of(add))


MANY: dict[str, Any] = {
    "name": "many",
    "parameters": {
        "properties": {
            "some": {"type": "integer"},
            "text": {"$ref": "#/$defs/text"},
            "unit": {"enum": ["C", "F"]},
            "list": {"type": "array", "items": {"$ref": "#/$defs/text"}},
        },
        "required": ["text", "unit"],
        "$defs": {"text": {"type": "string"}},
    },
}


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        (
            "glm45",
            [GLM % ("text", 'a "b"\n<') + GLM % ("unit", "C"),
             GLM % ("some", 3) + GLM % ("text", "") + GLM % ("unit", "F") + GLM % ("list", "[]")],
            ["", GLM % ("text", "a") + GLM % ("unit", "K"), GLM % ("unit", "C"),
             GLM % ("some", "x") + GLM % ("text", "a") + GLM % ("unit", "C")],
        ),
        (
            "qwen3_coder",
            [QWEN % ("text", "a\n\nb") + QWEN % ("unit", "C"),
             QWEN % ("some", 3) + QWEN % ("text", "3") + QWEN % ("unit", "F")],
            ["", QWEN % ("text", "a") + QWEN % ("unit", "K")],
        ),
        (
            "llama4_pythonic",
            ['text="a", unit="C"', 'text="\\"", unit="F", some=-1', 'text="", unit="C", list=["a"]',
             'text="a", unit="C", some=1, list=[]'],
            ["", 'text="a"', 'text="a", unit="K"', 'unit="C", text="a"', 'text=3, unit="C"',
             'text="a", unit="C", list=["a"], some=1'],
        ),
    ],
)  # fmt: skip
def test_arguments_one_by_one(form: str, good: list[str], bad: list[str]) -> None:
    """What is forced is what the parser reads, with the types of the schema."""
    around = {"glm45": ("<tool_call>many\n", "</tool_call>"),
              "qwen3_coder": ("<tool_call>\n<function=many>\n", "</function>\n</tool_call>"),
              "llama4_pythonic": ("[many(", ")]")}[form]  # fmt: skip
    grammars = Grammars(Bytes(), VOCAB, form)
    asked = submit(tools=[{"type": "function", "function": MANY}], tool_choice="required")
    for text in [*good, *bad]:
        whole = text.join(around)
        assert follows(bind(grammars, asked), whole.encode()) == (text in good), text
        if text not in good:
            continue
        parser = CallParser(PARSED[form], {"many": MANY["parameters"]}, None, "call_{}".format)
        said: Any = [*parser.push(whole), *parser.finish(False)]
        jsonschema.validate(json.loads("".join(delta.arguments for delta in said)),
                            MANY["parameters"])  # fmt: skip


def test_arguments_that_have_no_form_one_by_one() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"anyOf": [{}]}}}]
    for form in ("glm45", "qwen3_coder", "llama4_pythonic"):
        with pytest.raises(ApiError, match="'anyOf' of all arguments") as caught:
            Grammars(Bytes(), VOCAB, form).check(submit(tools=tools, tool_choice="required"))
        assert caught.value.param == "tools[0].function.parameters"


def test_several_calls() -> None:
    grammars = Grammars(Bytes(), VOCAB)
    one = call_of("hermes", "now", "{}")
    assert follows(bind(grammars, forced("required")), f"{one}\n{one}".encode())
    single = forced("required", parallel_tool_calls=False)
    assert follows(bind(grammars, single), one.encode())
    assert not follows(bind(grammars, single), f"{one}\n{one}".encode())
    assert grammar_for_tools(TOOLS, "required", "hermes").startswith("start: calls\n")


def test_with_tools_at_hand_an_answer_in_a_form_may_be_a_call_instead() -> None:
    grammars = Grammars(Bytes(), VOCAB)
    call = call_of("hermes", "now", "{}").encode()
    asked = submit(PERSON, tools=TOOLS, tool_choice="auto")
    assert follows(bind(grammars, asked), call)
    assert follows(bind(grammars, asked), b'{"name": "x", "age": 1}')
    assert not follows(bind(grammars, submit(PERSON, tools=TOOLS, tool_choice="none")), call)


def test_tools_that_cannot_be_forced() -> None:
    def tools(parameters: Any, **fields: Any) -> list[dict[str, Any]]:
        function = {"name": "f", "parameters": parameters, **fields}
        return [{"type": "function", "function": function}]

    grammars = Grammars(Bytes(), VOCAB)
    lenient = submit(tools=tools({"not": {}, "properties": {"a": {}}}), tool_choice="required")
    assert follows(bind(grammars, lenient), call_of("hermes", "f", '{"a": 1}').encode())
    strict = submit(tools=tools({"not": {}}, strict=True), tool_choice="required")
    with pytest.raises(ApiError, match="function 'f': the keyword 'not'") as caught:
        grammars.check(strict)
    assert caught.value.param == "tools[0].function.parameters"
    with pytest.raises(ApiError, match="format 'zorp' cannot be forced") as caught:
        Grammars(Bytes(), VOCAB, "zorp").check(forced("required"))
    assert (caught.value.status, caught.value.param) == (400, "tool_choice")


def test_the_parsers_of_answers_read_what_is_forced() -> None:
    for form in FORMATS:
        parser = CallParser(PARSED[form], SCHEMAS, None, lambda index: f"call_{index}")
        said = [*parser.push(call_of(form, "add", '{"x": 3}')), *parser.finish(False)]
        deltas = [piece for piece in said if isinstance(piece, ToolDelta)]
        assert deltas == said
        assert [delta.name for delta in deltas if delta.name] == ["add"]
        assert "".join(delta.arguments for delta in deltas) == '{"x": 3}'
