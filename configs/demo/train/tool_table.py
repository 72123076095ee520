"""Tools that people really define: their names, parameters, results and how one asks for them."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import literals
import tool_values as values
import words

Value = Callable[[random.Random], Any]


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
        {"city|location|place": values.city},
        "What is the weather in {0}?|How is the weather in {0}?|What's the weather like in {0} today?|Tell me the weather in {0}.|Weather in {0}?|Is it raining in {0}?",
        _weather,
    ),
    Ready(
        "get_time|current_time|get_local_time",
        "Get the time in a city.",
        {"city|location|timezone": values.city},
        "What time is it in {0}?|Tell me the time in {0}.",
        lambda r: f"{r.randint(0, 23):02}:{r.randint(0, 59):02}",
    ),
    Ready(
        "add|sum|add_numbers|calculate_sum",
        "Add two numbers.",
        {"a|x": values.small, "b|y": values.small},
        "What is {0} plus {1}?|Add {0} and {1}.|Calculate {0} + {1}.|Use the tool to add {0} and {1}.",
        values.small,
    ),
    Ready(
        "multiply|calculate_product",
        "Multiply two numbers.",
        {"a|x": values.small, "b|y": values.small},
        "Multiply {0} by {1}.|What is {0} times {1}?",
        values.small,
    ),
    Ready(
        "search|web_search|search_web|find_documents",
        "Search for a text.",
        {"query|q|text": values.phrase},
        "Search for {0}.|Look for {0}.|Find documents about {0}.|Search the web for {0}.",
        values.phrase,
    ),
    Ready(
        "send_message|send_email|notify",
        "Send a message to a person.",
        {"to|recipient|name": values.people, "text|message|body": values.phrase},
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
        values.price,
    ),
    Ready(
        "create_event|add_event|book_meeting",
        "Put an event into the calendar.",
        {"title|name": values.phrase, "day|date": values.day},
        "Create an event {0} on {1}.|Put {0} on {1} into my calendar.",
        lambda r: {"id": literals.number(r), "status": "created"},
    ),
    Ready(
        "get_user|find_user|lookup_user",
        "Find a user by name.",
        {"name|user": values.people},
        "Find the user {0}.|Look up the user {0}.|Who is the user {0}?",
        lambda r: {"age": r.randint(1, 99), "city": values.city(r)},
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
            "amount|value": values.price,
            "currency|to": lambda r: r.choice(["EUR", "USD", "GBP", "JPY", "CHF"]),
        },
        "Convert {0} to {1}.|How much is {0} in {1}?",
        lambda r: {"amount": values.price(r)},
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
            "text": values.phrase,
            "language|target_language|to": lambda r: r.choice(
                ["French", "German", "Spanish", "Italian"]
            ),
        },
        "Translate {0} into {1}.|What is {0} in {1}?",
        values.phrase,
    ),
    Ready(
        "read_file|open_file",
        "Read a file.",
        {"path|file|filename": values.path},
        "Read the file {0}.|Open {0}.|Show me {0}",
        values.phrase,
    ),
    Ready(
        "delete_file|remove_file",
        "Delete a file.",
        {"path|file": values.path},
        "Delete {0}.|Remove the file {0}.",
        lambda r: r.choice(["deleted", "ok"]),
    ),
    Ready(
        "play_music|play_song|play",
        "Play a song.",
        {"song|title|name": values.phrase},
        "Play {0}.|Play the song {0}.",
        lambda r: "playing",
    ),
    Ready(
        "get_distance|distance",
        "Get the distance between two cities.",
        {"from|start|origin": values.city, "to|end|destination": values.city},
        "How far is it from {0} to {1}?|What is the distance from {0} to {1}?",
        lambda r: {"km": values.small(r)},
    ),
    Ready(
        "roll_dice|random_number",
        "Roll dice.",
        {"count|n": lambda r: r.randint(1, 9)},
        "Roll {0} dice.",
        lambda r: [r.randint(1, 6) for _ in range(r.randint(1, 4))],
    ),
)
