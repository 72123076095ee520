"""How the families of models write calls of tools: one class per form, all forms by name.

Owns the markup of those whose arguments are JSON, as the families' chat templates have it. Must
not decide what becomes of text that is no call.
"""

from __future__ import annotations

from smmf_core.worker.parse.calls import CallParser, Format, Wait
from smmf_core.worker.parse.pythonic import Pythonic
from smmf_core.worker.parse.tagged import Glm45, Qwen3Coder


def _deepseek(words: str) -> str:
    """Its markers, with wide bars and lower blocks for spaces."""
    return "<\uff5c" + words.replace(" ", "\u2581") + "\uff5c>"


class _Marked:
    """Calls that begin with a mark, anywhere."""

    marks: tuple[str, ...] = ()

    def openers(self, names: list[str]) -> tuple[list[str], list[str]]:
        return list(self.marks), []


class Hermes(_Marked):
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, of Qwen, too."""

    marks = ("<tool_call>",)

    def calls(self, parser: CallParser, opener: str) -> Wait[bool]:
        yield from parser.spaces()
        if not (yield from parser.json_call()):
            return False
        yield from parser.optional("</tool_call>")
        return True


class Llama3:
    """`{"name": ..., "parameters": {...}}`, several apart by `;` or a new line. Without the mark
    `<|python_tag|>` before it, an object is a call only when it names a tool."""

    def openers(self, names: list[str]) -> tuple[list[str], list[str]]:
        return ["<|python_tag|>"], ["{"]

    def calls(self, parser: CallParser, opener: str) -> Wait[bool]:
        is_marked = opener != "{"
        if is_marked:
            yield from parser.spaces()
        else:
            parser.at -= len(opener)
        if not (yield from parser.json_call(must_know=not is_marked)):
            return False
        while True:
            start = parser.at
            yield from parser.optional(";")
            yield from parser.spaces()
            if not (yield from parser.json_call(must_know=not is_marked)):
                parser.at = start
                return True


class Mistral(_Marked):
    """`[TOOL_CALLS][{"name": ..., "arguments": {...}}, ...]`; from tokenizer 11 on
    `[TOOL_CALLS]name[ARGS]{...}`, once per call."""

    marks = ("[TOOL_CALLS]",)

    def calls(self, parser: CallParser, opener: str) -> Wait[bool]:
        yield from parser.spaces()
        if (yield from parser.literal("[")):
            return (yield from parser.json_calls())
        if parser.next_mark == "{":
            return (yield from parser.json_call())
        name = yield from parser.name()
        if (yield from parser.literal("[CALL_ID]")):
            yield from parser.name()
        yield from parser.literal("[ARGS]")
        yield from parser.spaces()
        if not name or parser.next_mark != "{":
            return False
        parser.begin(name)
        yield from parser.arguments()
        return True


class DeepSeek(_Marked):
    """Marks around all calls and around each; the arguments of V3 stand in a block of code."""

    marks = (_deepseek("tool calls begin"),)

    def calls(self, parser: CallParser, opener: str) -> Wait[bool]:
        before, start = parser.count, parser.at
        while (yield from parser.optional(_deepseek("tool call begin"))):
            if not (yield from self._call(parser)):
                parser.at = start
                break
            yield from parser.optional(_deepseek("tool call end"))
            start = parser.at
        if parser.count > before:
            yield from parser.optional(_deepseek("tool calls end"))
        return parser.count > before

    def _call(self, parser: CallParser) -> Wait[bool]:
        name = yield from parser.name()
        if not name or not (yield from parser.literal(_deepseek("tool sep"))):
            return False
        yield from parser.spaces()
        in_block = parser.next_mark != "{"
        if in_block:  # what was read is the call's type
            name = yield from parser.name()
            if not name or not (yield from parser.optional("```json")):
                return False
            yield from parser.spaces()
        if parser.next_mark != "{":
            return False
        parser.begin(name)
        if (yield from parser.arguments()) and in_block:
            yield from parser.optional("```")
        return True


class Glm4:
    """A line with a tool's name, then the arguments."""

    def openers(self, names: list[str]) -> tuple[list[str], list[str]]:
        return [], [f"{name}\n" for name in names]

    def calls(self, parser: CallParser, opener: str) -> Wait[bool]:
        yield from parser.spaces()
        if parser.next_mark != "{":
            return False
        parser.begin(opener.rstrip())
        yield from parser.arguments()
        return True


class InternLm(_Marked):
    """`<|action_start|><|plugin|>{"name": ..., "parameters": {...}}<|action_end|>`"""

    marks = ("<|action_start|>",)

    def calls(self, parser: CallParser, opener: str) -> Wait[bool]:
        if not (yield from parser.optional("<|plugin|>")):
            return False
        yield from parser.spaces()
        if not (yield from parser.json_call()):
            return False
        yield from parser.optional("<|action_end|>")
        return True


class Phi(_Marked):
    """`<|tool_call|>[{"name": ..., "arguments": {...}}, ...]<|/tool_call|>`, or `functools[...]`"""

    marks = ("<|tool_call|>", "functools[")

    def calls(self, parser: CallParser, opener: str) -> Wait[bool]:
        if not opener.endswith("[") and not (yield from parser.optional("[")):
            return False
        if not (yield from parser.json_calls()):
            return False
        yield from parser.optional("<|/tool_call|>")
        return True


FORMATS: dict[str, Format] = {
    "hermes": Hermes(),
    "llama3_json": Llama3(),
    "mistral": Mistral(),
    "deepseek_v3": DeepSeek(),
    "glm4": Glm4(),
    "internlm": InternLm(),
    "phi": Phi(),
    "glm45": Glm45(),
    "qwen3_coder": Qwen3Coder(),
    "llama4_pythonic": Pythonic(),
}
SPECIAL: dict[str, tuple[str, ...]] = {
    "llama3_json": ("<|python_tag|>",),
    "mistral": ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    "deepseek_v3": tuple(
        _deepseek(f"tool {part}")
        for part in ("calls begin", "call begin", "sep", "call end", "calls end")
    ),
    "internlm": ("<|action_start|>", "<|plugin|>", "<|action_end|>"),
    "phi": ("<|tool_call|>", "<|/tool_call|>"),
    "hermes": ("<tool_call>", "</tool_call>"),
    "glm45": (
        "<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>",
    ),
    "qwen3_coder": ("<tool_call>", "</tool_call>"),
    "llama4_pythonic": ("<|python_start|>", "<|python_end|>"),
}  # fmt: skip
"""Marks that may be special tokens of a model, which have no text elsewhere."""
