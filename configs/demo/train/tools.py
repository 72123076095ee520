"""Tool definitions, calls and results with varied names, so that the format and the copying are learnt, not the names."""

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import literals
import words

Value = Callable[[random.Random], Any]
Message = dict[str, Any]


def _people(rng: random.Random) -> str:
    return literals.name(rng)


def _city(rng: random.Random) -> str:
    return rng.choice(words.CITIES) if rng.random() < 0.6 else literals.made_up(rng).capitalize()


def _small(rng: random.Random) -> int:
    return rng.randint(0, 999)


def _price(rng: random.Random) -> float:
    return round(rng.uniform(0, 500), rng.choice([1, 2]))


def _day(rng: random.Random) -> str:
    return rng.choice(words.DAYS)


def _path(rng: random.Random) -> str:
    folder = rng.choice(["", "", "/tmp/", "docs/", "src/"])
    return folder + literals.word(rng) + rng.choice([".txt", ".md", ".py", ".csv", ".json"])


def _words(rng: random.Random) -> list[str]:
    return [literals.word(rng) for _ in range(rng.randint(1, 3))]


def _switch(rng: random.Random) -> bool:
    return rng.random() < 0.5


def _table(rng: random.Random) -> dict[str, Any]:
    makers = [literals.word, _small, literals.code]
    return {literals.identifier(rng): rng.choice(makers)(rng) for _ in range(rng.randint(1, 3))}


def _phrase(rng: random.Random) -> str:
    return " ".join(literals.word(rng) for _ in range(rng.randint(1, 5)))


class Ready(NamedTuple):
    """A tool that people really define: names, what it says about itself, its parameters and how one asks for it."""

    names: str
    about: str
    parameters: dict[str, Value]
    asks: str
    result: Callable[[random.Random], Any]


def _weather(rng: random.Random) -> dict[str, Any]:
    return {
        "temperature": rng.randint(-9, 39),
        "condition": rng.choice(["sunny", "rainy", "cloudy", "windy", "snowy"]),
    }


READY = (
    Ready(
        "get_weather|weather|get_current_weather|lookup_weather",
        "Get the weather of a city.",
        {"city|location|place": _city},
        "What is the weather in {0}?|How is the weather in {0}?|What's the weather like in {0} today?|Tell me the weather in {0}.|Weather in {0}?|Is it raining in {0}?",
        _weather,
    ),
    Ready(
        "get_time|current_time|get_local_time",
        "Get the time in a city.",
        {"city|location|timezone": _city},
        "What time is it in {0}?|Tell me the time in {0}.",
        lambda r: f"{r.randint(0, 23):02}:{r.randint(0, 59):02}",
    ),
    Ready(
        "add|sum|add_numbers|calculate_sum",
        "Add two numbers.",
        {"a|x": _small, "b|y": _small},
        "What is {0} plus {1}?|Add {0} and {1}.|Calculate {0} + {1}.|Use the tool to add {0} and {1}.",
        _small,
    ),
    Ready(
        "multiply|calculate_product",
        "Multiply two numbers.",
        {"a|x": _small, "b|y": _small},
        "Multiply {0} by {1}.|What is {0} times {1}?",
        _small,
    ),
    Ready(
        "search|web_search|search_web|find_documents",
        "Search for a text.",
        {"query|q|text": _phrase},
        "Search for {0}.|Look for {0}.|Find documents about {0}.|Search the web for {0}.",
        _phrase,
    ),
    Ready(
        "send_message|send_email|notify",
        "Send a message to a person.",
        {"to|recipient|name": _people, "text|message|body": _phrase},
        "Send {0} the message: {1}|Send a message to {0}: {1}|Tell {0}: {1}",
        lambda r: r.choice(["sent", "ok", {"status": "sent"}]),
    ),
    Ready(
        "set_timer|start_timer",
        "Start a timer.",
        {"minutes|duration": lambda r: r.randint(1, 90)},
        "Set a timer for {0} minutes.|Start a timer of {0} minutes.",
        lambda r: r.choice(["started", "ok"]),
    ),
    Ready(
        "get_price|price_of|get_stock_price",
        "Get the price of an item.",
        {"item|product|symbol": literals.word},
        "What is the price of {0}?|How much is {0}?",
        _price,
    ),
    Ready(
        "create_event|add_event|book_meeting",
        "Put an event into the calendar.",
        {"title|name": _phrase, "day|date": _day},
        "Create an event {0} on {1}.|Put {0} on {1} into my calendar.",
        lambda r: {"id": literals.number(r), "status": "created"},
    ),
    Ready(
        "get_user|find_user|lookup_user",
        "Find a user by name.",
        {"name|user": _people},
        "Find the user {0}.|Look up the user {0}.|Who is the user {0}?",
        lambda r: {"age": r.randint(1, 99), "city": _city(r)},
    ),
    Ready(
        "get_order|order_status|track_order",
        "Get the state of an order.",
        {"order_id|id|order": literals.code},
        "Where is my order {0}?|What is the status of order {0}?|Track order {0}.",
        lambda r: r.choice(
            ["shipped", "delivered", "waiting", {"status": "shipped", "days": r.randint(1, 9)}]
        ),
    ),
    Ready(
        "convert|convert_currency",
        "Convert money to another currency.",
        {
            "amount|value": _price,
            "currency|to": lambda r: r.choice(["EUR", "USD", "GBP", "JPY", "CHF"]),
        },
        "Convert {0} to {1}.|How much is {0} in {1}?",
        lambda r: {"amount": _price(r)},
    ),
    Ready(
        "turn_on|switch_on|light_on",
        "Turn a device on.",
        {"device|name": lambda r: r.choice(words.OBJECTS)},
        "Turn on the {0}.|Switch the {0} on.",
        lambda r: "on",
    ),
    Ready(
        "translate|translate_text",
        "Translate a text.",
        {
            "text": _phrase,
            "language|target_language|to": lambda r: r.choice(
                ["French", "German", "Spanish", "Italian"]
            ),
        },
        "Translate {0} into {1}.|What is {0} in {1}?",
        _phrase,
    ),
    Ready(
        "read_file|open_file",
        "Read a file.",
        {"path|file|filename": _path},
        "Read the file {0}.|Open {0}.|Show me {0}",
        _phrase,
    ),
    Ready(
        "delete_file|remove_file",
        "Delete a file.",
        {"path|file": _path},
        "Delete {0}.|Remove the file {0}.",
        lambda r: r.choice(["deleted", "ok"]),
    ),
    Ready(
        "play_music|play_song|play",
        "Play a song.",
        {"song|title|name": _phrase},
        "Play {0}.|Play the song {0}.",
        lambda r: "playing",
    ),
    Ready(
        "get_distance|distance",
        "Get the distance between two cities.",
        {"from|start|origin": _city, "to|end|destination": _city},
        "How far is it from {0} to {1}?|What is the distance from {0} to {1}?",
        lambda r: {"km": _small(r)},
    ),
    Ready(
        "roll_dice|random_number",
        "Roll dice.",
        {"count|n": lambda r: r.randint(1, 9)},
        "Roll {0} dice.",
        lambda r: [r.randint(1, 6) for _ in range(r.randint(1, 4))],
    ),
)
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
                    _phrase(rng),
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
        _people,
        _phrase,
        _small,
        _price,
        _city,
        literals.made_up,
        _switch,
        _words,
    ]
    parameters = {
        literals.identifier(rng): rng.choice(makers)
        for _ in range(rng.choice([0, 1, 1, 1, 2, 2, 3]))
    }
    result = rng.choice([literals.code, _phrase, literals.number, _small, _table])

    def use(rng: random.Random) -> Use:
        arguments = {key: make(rng) for key, make in parameters.items()}
        return Use(name, arguments, _asked(rng, name, arguments), result(rng))

    about = rng.choice(
        [
            f"{_phrase(rng).capitalize()}.",
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
