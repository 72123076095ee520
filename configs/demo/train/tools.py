"""Tool definitions, calls and results with varied names: the format is to be learnt, not the names."""

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import literals
import tool_values as values
from tool_table import READY

Message = dict[str, Any]

MADE_UP_ASKS = (
    "Use {f} with {p}.",
    "Call {f} with {p}.",
    "Please call {f} with {p}.",
    "Run {f} with {p}.",
    "Use the tool {f} with {p}",
    "{f}: {p}",
    "I need {f} for {p}.",
    "Call the function {f} with {p}.",
    "Can you run {f} with {p}?",
    "Execute {f} with {p}",
    "Please use {f}. {p}",
)


class Use(NamedTuple):
    """One use of a tool: its name, its arguments, the request that asks for it, and a result."""

    name: str
    arguments: dict[str, Any]
    ask: str
    result: Any


class Tool(NamedTuple):
    """A tool's definition as the API takes it, and what makes up a use of it."""

    spec: Message
    use: Callable[[random.Random], Use]


def _type_of(value: Any) -> str:
    return {str: "string", int: "integer", float: "number", bool: "boolean", list: "array"}[
        type(value)
    ]


def _spec(rng: random.Random, name: str, about: str, arguments: dict[str, Any]) -> Message:
    properties: dict[str, Message] = {}
    for key, value in arguments.items():
        properties[key] = {
            "type": "number"
            if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.3
            else _type_of(value)
        }
        if isinstance(value, list):
            properties[key]["items"] = {"type": "string"}
        if rng.random() < 0.2:
            properties[key]["description"] = rng.choice(
                [
                    f"The {key}.",
                    f"The {key.replace('_', ' ')} to use",
                    key.capitalize(),
                    values.phrase(rng),
                ]
            )
        if isinstance(value, str) and rng.random() < 0.05:
            properties[key]["enum"] = rng.sample([value, literals.word(rng), literals.word(rng)], 3)
    schema: Message = {"type": "object", "properties": properties}
    if rng.random() < 0.75:
        schema["required"] = list(properties)
    if rng.random() < 0.15:
        schema["additionalProperties"] = False
    function: Message = {"name": name}
    if rng.random() < 0.7:
        function["description"] = about
    function["parameters"] = schema
    if rng.random() < 0.05:
        function["strict"] = True
    return {"type": "function", "function": function}


def ready(rng: random.Random) -> Tool:
    """A well-known kind of tool under one of its usual names."""
    kind = rng.choice(READY)
    name = rng.choice(kind.names.split("|"))
    if rng.random() < 0.15:
        name = f"{literals.identifier(rng)}_{name}"
    keys = [rng.choice(options.split("|")) for options in kind.parameters]

    def use(rng: random.Random) -> Use:
        values = [make(rng) for make in kind.parameters.values()]
        arguments = dict(zip(keys, values, strict=True))
        ask = rng.choice(kind.asks.split("|")).format(*values)
        hint = (
            rng.choice([f" Use {name}.", f" Use the {name} tool.", " Please use the tool."])
            if rng.random() < 0.1
            else ""
        )
        return Use(name, arguments, ask + hint, kind.result(rng))

    return Tool(_spec(rng, name, kind.about, use(rng).arguments), use)


def made_up(rng: random.Random) -> Tool:
    """A tool with random names and values, asked for by its name."""
    name = literals.identifier(rng)
    makers = [
        literals.code,
        literals.word,
        values.people,
        values.phrase,
        values.small,
        values.price,
        values.city,
        literals.made_up,
        values.switch,
        values.some_words,
    ]
    parameters = {
        literals.identifier(rng): rng.choice(makers)
        for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3]))
    }
    result = rng.choice([literals.code, values.phrase, literals.number, values.small, values.table])

    def use(rng: random.Random) -> Use:
        arguments = {key: make(rng) for key, make in parameters.items()}
        return Use(name, arguments, _asked(rng, name, arguments), result(rng))

    about = rng.choice(
        [
            f"{values.phrase(rng).capitalize()}.",
            f"Do the {name.replace('_', ' ')}.",
            literals.sentence(rng),
        ]
    )
    return Tool(_spec(rng, name, about, use(rng).arguments), use)


def _asked(rng: random.Random, name: str, arguments: dict[str, Any]) -> str:
    """A request that names the function and says the arguments."""
    if not arguments:
        return rng.choice(
            [f"Call {name}.", f"Use {name}.", f"Please run {name}.", f"Run the tool {name}."]
        )
    shown = {
        key: json.dumps(value) if isinstance(value, bool | list) else value
        for key, value in arguments.items()
    }
    if len(shown) == 1 and rng.random() < 0.4:
        value = next(iter(shown.values()))
        return rng.choice(
            [
                f"Call {name} with {value}.",
                f"Use {name} for {value}.",
                f"Run {name} on {value}",
                f"{name} {value}",
            ]
        )
    link = rng.choice([" = ", "=", " ", ": ", " set to "])
    listed = [f"{key}{link}{value}" for key, value in shown.items()]
    return rng.choice(MADE_UP_ASKS).format(f=name, p=rng.choice([", ", " and "]).join(listed))


def tool(rng: random.Random) -> Tool:
    """A tool of either kind."""
    return ready(rng) if rng.random() < 0.5 else made_up(rng)


def shown(result: Any) -> str:
    """A result as the content of a tool message."""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def told(result: Any) -> str:
    """The sentence in which the model passes a result on."""
    if isinstance(result, dict):
        parts = [f"{key.replace('_', ' ')} is {value}" for key, value in result.items()]
        said = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
        return f"Here is the result: {said}."
    if isinstance(result, list):
        return f"Here is the result: {', '.join(str(item) for item in result)}."
    return f"Here is the result: {result}{'' if str(result)[-1] in '.!?' else '.'}"


def call(number: int, use: Use) -> Message:
    """The tool call as it stands in an assistant message."""
    arguments = json.dumps(use.arguments, ensure_ascii=False)
    return {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": use.name, "arguments": arguments},
    }


def toolbox(rng: random.Random) -> list[Tool]:
    """One to four tools with different names."""
    tools = [tool(rng) for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 4]))]
    return list({one.spec["function"]["name"]: one for one in tools}.values())


def turn(uses: list[Use]) -> list[Message]:
    """A request that needs one or more calls at once, the calls, the results and the answer."""
    calls = [call(i, use) for i, use in enumerate(uses)]
    messages: list[Message] = [
        {"role": "user", "content": " And ".join(use.ask for use in uses)},
        {"role": "assistant", "content": None, "tool_calls": calls},
    ]
    messages += [
        {"role": "tool", "tool_call_id": f"call_{i}", "content": shown(use.result)}
        for i, use in enumerate(uses)
    ]
    told_all = [told(use.result) for use in uses]
    said = " ".join(
        [
            told_all[0],
            *(text.replace("Here is the result", "And the next one") for text in told_all[1:]),
        ]
    )
    return [*messages, {"role": "assistant", "content": said}]
