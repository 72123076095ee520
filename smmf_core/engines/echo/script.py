"""What the echo engine says to a request: a call of a tool, an instance of a schema, an echo.

Owns the choice and how each family's calls are written; must not pace or inject failures.
"""

from __future__ import annotations

import json
from typing import Any

from smmf_core.config.engine_options import EchoOptions
from smmf_core.engines.echo.schema_example import example
from smmf_core.messages import Submit

Object = dict[str, Any]


def script(submit: Submit, settings: EchoOptions) -> str | None:
    """The answer; None for plain words. Rules, in this order:

    1. The request itself asks for an echo: the last user message, or the prompt. 2. Tools: calls
    of the named function, or of the first ones, unless a tool has just answered. 3. A JSON schema
    or JSON object: an example of it. 4. text = "echo", as 1.
    """
    if submit.echo and submit.echo.get("text") == "echo":
        return _last_user_text(submit)
    functions = _functions(submit)
    if functions:
        wanted = [functions[k % len(functions)] for k in range(settings.calls)]
        calls = [(f["name"], _arguments(f)) for f in wanted]
        return _WRITERS.get(settings.tool_format, _hermes)(calls)
    if submit.response_format and submit.response_format.get("type") != "text":
        schema = (submit.response_format.get("json_schema") or {}).get("schema") or {}
        return json.dumps(example({"type": "object", **schema}))
    return _last_user_text(submit) if settings.text == "echo" else None


def _functions(submit: Submit) -> list[Object]:
    """Those that it may call now."""
    if not submit.tools:
        return []
    choice = submit.tool_choice
    functions: list[Object] = [t["function"] for t in submit.tools if t.get("function")]
    if choice == "none":
        return []
    if isinstance(choice, dict):
        listed = choice.get("allowed_tools", {}).get("tools") or [choice]
        names = {tool["function"]["name"] for tool in listed}
        return [function for function in functions if function["name"] in names]
    has_answer = bool(submit.messages) and (submit.messages or [])[-1].get("role") == "tool"
    return [] if has_answer and choice != "required" else functions


def _arguments(function: Object) -> str:
    schema = {"type": "object", **(function.get("parameters") or {})}
    return json.dumps(example(schema))


def _last_user_text(submit: Submit) -> str:
    if submit.messages is None:
        prompt = (submit.prompts or [""])[0]
        return prompt if isinstance(prompt, str) else "tokens"
    users = [m for m in submit.messages if m.get("role") == "user"]
    return str((users or submit.messages)[-1].get("content") or " ")


# --- calls as the families write them ---

Calls = list[tuple[str, str]]


def _object(name: str, arguments: str, key: str = "arguments") -> str:
    return f'{{"name": {json.dumps(name)}, "{key}": {arguments}}}'


def _hermes(calls: Calls) -> str:
    return "\n".join(f"<tool_call>\n{_object(*call)}\n</tool_call>" for call in calls)


def _llama3(calls: Calls) -> str:
    return "; ".join(_object(*call, "parameters") for call in calls)


def _mistral(calls: Calls) -> str:
    return f"[TOOL_CALLS][{', '.join(_object(*call) for call in calls)}]"


def _mark(words: str) -> str:
    return "<\uff5c" + words.replace(" ", "\u2581") + "\uff5c>"


def _deepseek(calls: Calls) -> str:
    begin, sep, end = _mark("tool call begin"), _mark("tool sep"), _mark("tool call end")
    written = [f"{begin}function{sep}{n}\n```json\n{a}\n```{end}" for n, a in calls]
    return _mark("tool calls begin") + "\n".join(written) + _mark("tool calls end")


def _glm4(calls: Calls) -> str:
    return "\n".join(f"{name}\n{arguments}" for name, arguments in calls)


def _internlm(calls: Calls) -> str:
    written = [_object(*call, "parameters") for call in calls]
    return "\n".join(f"<|action_start|><|plugin|>\n{w}<|action_end|>" for w in written)


def _phi(calls: Calls) -> str:
    return f"<|tool_call|>[{', '.join(_object(*call) for call in calls)}]<|/tool_call|>"


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _glm45(calls: Calls) -> str:
    return "\n".join(f"<tool_call>{n}\n{_each(_GLM_ARGUMENT, a)}</tool_call>" for n, a in calls)


def _qwen3_coder(calls: Calls) -> str:
    begin, end = "<tool_call>\n<function=", "</function>\n</tool_call>"
    return "\n".join(f"{begin}{n}>\n{_each(_QWEN_ARGUMENT, a)}{end}" for n, a in calls)


def _pythonic(calls: Calls) -> str:
    written = []
    for name, arguments in calls:
        pairs = [f"{key}={value!r}" for key, value in json.loads(arguments).items()]
        written.append(f"{name}({', '.join(pairs)})")
    return f"[{', '.join(written)}]"


_GLM_ARGUMENT = "<arg_key>{}</arg_key>\n<arg_value>{}</arg_value>\n"
_QWEN_ARGUMENT = "<parameter={}>\n{}\n</parameter>\n"


def _each(form: str, arguments: str) -> str:
    pairs = json.loads(arguments).items()
    return "".join(form.format(key, _written(value)) for key, value in pairs)


_WRITERS = {
    "hermes": _hermes,
    "llama3_json": _llama3,
    "mistral": _mistral,
    "deepseek_v3": _deepseek,
    "glm4": _glm4,
    "internlm": _internlm,
    "phi": _phi,
    "glm45": _glm45,
    "qwen3_coder": _qwen3_coder,
    "llama4_pythonic": _pythonic,
}
