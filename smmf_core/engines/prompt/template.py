"""Chat messages to prompt text: the model's own Jinja template, in a sandbox.

Owns how messages look to a template; must not tokenise. The rules are those of transformers'
`apply_chat_template`, so that a model sees what it was trained on.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from smmf_core.engines.prompt.parts import Mark, Taken, as_parts, ask, shaped
from smmf_core.engines.prompt.text import read_json, special_tokens
from smmf_core.engines.prompt.told_tools import with_tools
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
# Ends the final message while it is rendered. Its own last space tells whether the template trims.
_CONTINUE_MARK = "\ue000smmf-continue\ue000 "
_TEMPLATE_FILES = ("chat_template.json", "processor_config.json", "tokenizer_config.json")
_REASON_CHARACTERS = 300  # of a template's error in ours: it may quote a whole message


class _Generation(Extension):
    """`{% generation %}` marks the answer's tokens for training; here its body is just rendered."""

    tags = {"generation"}  # noqa: RUF012 (so declared by Jinja)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class ChatTemplate:
    """One model's template, as `base.ChatTemplate`.

    `named` may hold `tool_use`: it is taken when a request brings tools. Raises ValueError when
    a template does not compile.
    """

    def __init__(self, named: dict[str, str], special_tokens: dict[str, str]) -> None:
        environment = _environment()
        self.image_mark: Mark | None = None  # for a template that knows no parts
        self._special_tokens = special_tokens
        self._sources = named
        try:
            self._compiled = {name: environment.from_string(text) for name, text in named.items()}
        except jinja2.TemplateError as error:
            raise ValueError(f"The chat template does not compile: {error}") from None
        self._taken = {name: self._ask(name) for name in named}

    @property
    def source(self) -> str:
        """All that it may write."""
        return "\n".join(self._sources.values())

    @property
    def shows_tools(self) -> bool:
        """Whether it has words for tools. If not, they are told_tools'."""
        return "tools" in self.source

    def render(self, submit: Submit) -> str:
        """The prompt of `submit.messages`. Raises ApiError (param `messages`) when it has none."""
        name = "tool_use" if submit.tools and "tool_use" in self._sources else "default"
        messages = [_message(m, self._sources[name]) for m in submit.messages or []]
        if submit.tools and not self.shows_tools:
            messages = with_tools(messages, submit.tools)
        if submit.continue_final_message:
            _mark_final(messages)
        variables = {
            **self._special_tokens,
            **(submit.template_args or {}),
            "messages": shaped(messages, self._taken[name], self.image_mark),
            "tools": submit.tools or None,
            "add_generation_prompt": submit.add_generation_prompt
            and not submit.continue_final_message,
        }
        variables.setdefault("documents", None)
        try:
            text = self._compiled[name].render(variables)
        except Exception as error:  # the template is the model's program: it may raise anything
            reason = str(error) or type(error).__name__
            text = f"The model's chat template refuses these messages: {reason}"
            raise ApiError("invalid_value", text[:_REASON_CHARACTERS], "messages") from error
        return _cut_at_mark(text) if submit.continue_final_message else text

    def _ask(self, name: str) -> Taken:
        """What it does with texts and with parts."""
        fixed = {**self._special_tokens, "tools": None, "documents": None}
        compiled = self._compiled[name]
        return ask(
            lambda messages: compiled.render(fixed, messages=messages, add_generation_prompt=True)
        )


def load_chat_template(folder: Path, tokens: dict[str, str] | None = None) -> ChatTemplate | None:
    """The template of a model folder, None if it has none. Raises ValueError. `tokens` are the
    special tokens that its files may leave unsaid.

    1. `chat_template.jinja`. 2. `chat_template` of chat_template.json or processor_config.json:
    there the templates of models that see are. 3. `chat_template` of tokenizer_config.json. It is a
    string, or a list of named templates, of which one is `default`.
    """
    path = folder / "chat_template.jinja"
    template: Any = path.read_text(encoding="utf-8") if path.is_file() else None
    for name in _TEMPLATE_FILES:
        template = template or read_json(folder / name).get("chat_template")
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
    else:
        named = {"default": template} if template else {}
    if "default" not in named:
        return None
    return ChatTemplate(named, {**(tokens or {}), **special_tokens(folder)})


def _environment() -> ImmutableSandboxedEnvironment:
    """The sandbox bounds `range` and forbids attributes of Python's internals."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON; Jinja's own filter escapes HTML characters."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _message(message: dict[str, Any], source: str) -> dict[str, Any]:
    """A message as templates expect it.

    1. Parts of text become one string; with images they stay parts. 2. No content is "", or None
    beside tool calls. 3. The role `developer` is `system` to a template that does not know it. 4.
    Arguments of tool calls are objects, not JSON text. 5. Reasoning is found under each of its
    names.
    """
    seen = dict(message)
    content = seen.get("content")
    if isinstance(content, list) and not any(part.get("type") == "image" for part in content):
        content = "".join(part.get("text") or part.get("refusal") or "" for part in content)
    if content is None and not seen.get("tool_calls"):
        content = ""
    seen["content"] = content
    if seen.get("role") == "developer" and "developer" not in source:
        seen["role"] = "system"
    if seen.get("tool_calls"):
        seen["tool_calls"] = [_tool_call(call) for call in seen["tool_calls"]]
    named = (seen[field] for field in _REASONING_FIELDS if seen.get(field) is not None)
    reasoning = next(named, None)
    if reasoning is not None:
        seen = {"thinking": reasoning, **seen, "reasoning_content": reasoning}
    return seen


def _tool_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _mark_final(messages: list[dict[str, Any]]) -> None:
    if not messages or not messages[-1]["content"]:
        text = "continue_final_message needs a final message with content."
        raise ApiError("invalid_value", text, "messages")
    if isinstance(messages[-1]["content"], list):
        messages[-1]["content"] = [*messages[-1]["content"], *as_parts(_CONTINUE_MARK)]
    else:
        messages[-1]["content"] += _CONTINUE_MARK


def _cut_at_mark(text: str) -> str:
    """What comes before the mark; without spaces at its end if the template trims content."""
    at = text.rfind(_CONTINUE_MARK.strip())
    if at < 0:
        text = "The model's chat template leaves the final message out: it cannot be continued."
        raise ApiError("invalid_value", text, "messages")
    return text[:at] if text.startswith(_CONTINUE_MARK, at) else text[:at].rstrip()
