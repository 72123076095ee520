"""Answers as the families of models write them, and what a client is to see of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from smmf_core.messages import ToolDelta
from smmf_core.worker.parse import FORMATS
from smmf_core.worker.parse.calls import CallParser

TOOLS: dict[str, Any] = {
    "get_weather": {
        "properties": {
            "city": {"$ref": "#/$defs/city"},
            "n": {"type": "array"},
            "days": {"type": "integer"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "$defs": {"city": {"type": "string"}},
    },
    "add": {"type": "object"},
}
ARGUMENTS = '{"city": "K\\u00f6ln \\"}{][", "n": [1, -2.5e3, true, null], "o": {"a": {}}}'
EMPTY = "{}"
BOTH = [("get_weather", ARGUMENTS), ("add", EMPTY)]


class Answer(NamedTuple):
    form: str
    text: str
    content: str
    calls: list[tuple[str, str]]


def _mark(words: str) -> str:
    return "<\uff5c" + words.replace(" ", "\u2581") + "\uff5c>"


_ALL, _CALL, _SEP = _mark("tool calls begin"), _mark("tool call begin"), _mark("tool sep")
_END, _ALL_END = _mark("tool call end"), _mark("tool calls end")
_WEATHER = f'{{"name": "get_weather", "arguments": {ARGUMENTS}}}'
_ADD = '{"name": "add", "arguments": {}}'
_LLAMA = _WEATHER.replace('"arguments"', '"parameters"')
_LLAMA_ADD = _ADD.replace('"arguments"', '"parameters"')
CITY = 'K\u00f6ln "x" \\n <b> {'
LINES = "a\n\nb</para\n"
CITY_JSON = json.dumps(CITY, ensure_ascii=False)


def _glm(key: str, value: str) -> str:
    return f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n"


def _qwen(key: str, value: str) -> str:
    return f"<parameter={key}>\n{value}\n</parameter>\n"


ANSWERS = [
    Answer("hermes", f"<tool_call>\n{_WEATHER}\n</tool_call>", "", BOTH[:1]),
    Answer(
        "hermes",
        f"Let me see.\n\n<tool_call>{_WEATHER}</tool_call>\n<tool_call>\n{_ADD}\n</tool_call>\n",
        "Let me see.",
        BOTH,
    ),
    Answer("hermes", f"<tool_call>{_WEATHER}</tool_call>\nDone <b>\n", "Done <b>\n", BOTH[:1]),
    Answer(
        "hermes",
        f"a <tool_call>{_ADD}</tool_call> b <tool_call>{_ADD}</tool_call> c",
        "a b c",
        [BOTH[1], BOTH[1]],
    ),
    Answer("hermes", f"<tool_call>{_WEATHER}", "", BOTH[:1]),  # stopped before its closing mark
    Answer("hermes", f"<tool_call>{_WEATHER[:-1]}</tool_call>", "", BOTH[:1]),  # a brace forgotten
    Answer(
        "hermes",
        f'<tool_call>{{"arguments": {ARGUMENTS}, "type": "function", "name": "add"}}</tool_call>',
        "",
        [("add", ARGUMENTS.replace("\\u00f6", "\u00f6").replace("-2.5e3", "-2500.0"))],
    ),
    Answer(
        "hermes",
        '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>',
        "",
        [("add", '{"a": 1}')],
    ),
    Answer("hermes", '<tool_call>{"name": "add"}</tool_call>', "", [("add", "{}")]),
    Answer(
        "hermes",
        '<tool_call>{"name": "add", "arguments": {"code": "a\n\tb\\d"}, "id": 7}</tool_call>',
        "",
        [("add", '{"code": "a\\n\\tb\\\\d"}')],
    ),
    Answer("llama3_json", _LLAMA, "", BOTH[:1]),
    Answer("llama3_json", f"<|python_tag|>{_LLAMA}; {_LLAMA_ADD}", "", BOTH),
    Answer("llama3_json", f"{_LLAMA}\n{_LLAMA_ADD}\n", "", BOTH),
    Answer("llama3_json", f"Here:\n{_LLAMA}", "Here:", BOTH[:1]),
    Answer("mistral", f"[TOOL_CALLS][{_WEATHER}, {_ADD}]", "", BOTH),
    Answer("mistral", f"Well.[TOOL_CALLS] [{_WEATHER}]", "Well.", BOTH[:1]),
    Answer(
        "mistral",
        f"[TOOL_CALLS]get_weather[ARGS]{ARGUMENTS}[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{{}}",
        "",
        BOTH,
    ),
    Answer(
        "deepseek_v3",
        f"Sure.{_ALL}{_CALL}function{_SEP}get_weather\n```json\n{ARGUMENTS}\n```{_END}\n"
        f"{_CALL}function{_SEP}add\n```json\n{{}}\n```{_END}{_ALL_END}",
        "Sure.",
        BOTH,
    ),
    Answer(
        "deepseek_v3",
        f"{_ALL}{_CALL}get_weather{_SEP}{ARGUMENTS}{_END}{_CALL}add{_SEP}{{}}{_END}{_ALL_END}",
        "",
        BOTH,
    ),
    Answer("glm4", f"get_weather\n{ARGUMENTS}", "", BOTH[:1]),
    Answer("glm4", f"I will.\nget_weather\n{ARGUMENTS}\nadd\n{{}}", "I will.", BOTH),
    Answer(
        "internlm",
        f"Yes<|action_start|><|plugin|>\n{_LLAMA}<|action_end|>\n"
        f"<|action_start|><|plugin|>{_LLAMA_ADD}<|action_end|>",
        "Yes",
        BOTH,
    ),
    Answer("phi", f"<|tool_call|>[{_WEATHER}, {_ADD}]<|/tool_call|>", "", BOTH),
    Answer("phi", f"functools[{_ADD}]", "", BOTH[1:]),
    Answer(
        "glm45",
        "Sure.\n<tool_call>get_weather\n"
        f'{_glm("city", CITY)}{_glm("n", "[1, -2.5, true, null]")}{_glm("note", "null")}'
        "</tool_call>\n<tool_call>add</tool_call>",
        "Sure.",
        [("get_weather", f'{{"city": {CITY_JSON}, "n": [1, -2.5, true, null], "note": null}}'),
         ("add", EMPTY)],
    ),
    Answer(
        "glm45",
        f'<tool_call>get_weather\n{_glm("days", "3")}{_glm("city", "007")}{_glm("note", "12")}',
        "",
        [("get_weather", '{"days": 3, "city": "007", "note": "12"}')],
    ),
    Answer(
        "glm45",
        f'<tool_call>unknown\n{_glm("a", "x < y")}{_glm("b", "True")}</tool_call> and so on',
        "and so on",
        [("unknown", '{"a": "x < y", "b": true}')],
    ),
    Answer("glm45", "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Köln", "",
           [("get_weather", '{"city": "Köln"}')]),
    Answer(
        "qwen3_coder",
        "Let me.\n<tool_call>\n<function=get_weather>\n"
        f'{_qwen("city", CITY)}{_qwen("n", "[1, {}]")}{_qwen("days", "5")}'
        "</function>\n</tool_call>\n"
        "<tool_call>\n<function=add>\n</function>\n</tool_call>",
        "Let me.",
        [("get_weather", f'{{"city": {CITY_JSON}, "n": [1, {{}}], "days": 5}}'), ("add", EMPTY)],
    ),
    Answer(
        "qwen3_coder",
        f'<function=get_weather>{_qwen("city", LINES)}{_qwen("days", "many")}'
        "</function>\n",
        "",
        [("get_weather", '{"city": "a\\n\\nb</para\\n", "days": "many"}')],
    ),
    Answer(
        "llama4_pythonic",
        "[get_weather(city='K\u00f6ln \"}{][ \\'\\\\', n=[1, -2.5e3, True, None,], "
        "o={'a': {}, \"b\": (1,)}), add()]",
        "",
        [("get_weather", '{"city": "K\u00f6ln \\"}{][ \'\\\\", "n": [1, -2.5e3, true, null], '
          '"o": {"a": {}, "b": [1]}}'), ("add", EMPTY)],
    ),
    Answer("llama4_pythonic", 'Well:\n[add(a=1, b = "x\\x41\\u00e9\\d\n")]\nDone', "Well:\nDone",
           [("add", '{"a": 1, "b": "xA\\u00e9\\\\d\\n"}')]),
    Answer(
        "llama4_pythonic", "<|python_start|>[what(a=1.)]<|python_end|>", "",
        [("what", '{"a": 1.0}')],
    ),
]  # fmt: skip

PLAIN = [
    Answer(form, text, text, [])
    for form in FORMATS
    for text in (
        "Just words.\n\n",
        " 1 < 2 and [3] {4} \n",
        '{"items": [{"name": "x"}], "name": "get_weather"}',
        "a <tool_",
        "get_weather is what I would call.",
        "\n\nadd\nnothing",
    )
]
BROKEN = [
    Answer("hermes", text, text, [])
    for text in (
        "<tool_call>nothing</tool_call> more",
        '<tool_call>{"name": 5, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "add", "arguments": [1]}</tool_call>',
        "<tool_call>{'name': 'add'}</tool_call>",
        '<tool_call>{"name": "add", "arguments": "nothing"}</tool_call>',
        "<tool_call><tool_call>",
        '<tool_call>{"name": "ad',
    )
] + [
    Answer("llama3_json", text, text, [])
    for text in (
        '{"name": "unknown", "parameters": {}}',
        '<|python_tag|>search.call(query="x")',
        '{"name": "add", "parameters": 5}',
        '{"name"',
    )
] + [
    Answer("mistral", "[TOOL_CALLS]none of them", "[TOOL_CALLS]none of them", []),
    Answer("mistral", "[TOOL_CALLS][]", "[TOOL_CALLS][]", []),
    Answer("deepseek_v3", f"{_ALL}x{_ALL_END}", f"{_ALL}x{_ALL_END}", []),
    Answer("deepseek_v3", f"{_ALL}{_CALL}add{_SEP}x", f"{_ALL}{_CALL}add{_SEP}x", []),
    Answer("glm4", "add\n(1, 2)", "add\n(1, 2)", []),
    Answer("internlm", "<|action_start|><|interpreter|>1", "<|action_start|><|interpreter|>1", []),
    Answer("phi", "functools[1]", "functools[1]", []),
    *(Answer("glm45", text, text, []) for text in (
        "<tool_call>nothing</tool_call>", "<tool_call>add is it", "<tool_call><arg_key>a</arg_key>",
    )),
    *(Answer("qwen3_coder", text, text, []) for text in (
        "<tool_call>add</tool_call>", "<function=", "<function=add now>", "<tool_call>\n<functio",
    )),
    *(Answer("llama4_pythonic", text, text, []) for text in (
        "[unknown(a=1)]", "[add(1, 2)]", "x [add()]", "<|python_start|>print(1)", "[add", "[add(",
    )),
]  # fmt: skip


class Seen(NamedTuple):
    content: str
    calls: list[tuple[str, str, str]]  # id, name, arguments


def parsed(form: str, parts: Iterable[str], most: int | None = None, is_cut: bool = False) -> Seen:
    """What a client puts together of the pieces. Checks their form on the way."""
    parser = CallParser(FORMATS[form], TOOLS, most, "call_{}".format)
    out: list[str | ToolDelta] = []
    for part in parts:
        out += parser.push(part)
    out += parser.finish(is_cut)
    content = ""
    calls: list[list[str]] = []
    for item in out:
        assert item
        if isinstance(item, str):
            content += item
        elif item.id:
            assert (item.index, item.arguments) == (len(calls), "")
            assert item.name
            calls.append([item.id, item.name, ""])
        else:
            assert (item.index, item.name) == (len(calls) - 1, "")
            assert item.arguments
            calls[-1][2] += item.arguments
    return Seen(content, [(call[0], call[1], call[2]) for call in calls])
