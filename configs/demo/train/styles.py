"""System prompts and what each does to an answer."""

import json
import random
from collections.abc import Callable
from typing import NamedTuple

import literals
import words

HELPFUL = (
    "You are a helpful assistant.",
    "You are a helpful assistant.",
    "You are a friendly assistant.",
    "Be brief.",
    "Be helpful and honest.",
    "Answer the questions of the user.",
    "You are a helpful, honest and harmless assistant.",
    "Be polite.",
    "You are an assistant that answers briefly.",
    "Answer in English.",
    "You answer questions.",
    "You are a concise assistant.",
    "Answer in one sentence.",
    "Keep your answers short.",
    "You are a test assistant.",
    "You are a chatbot.",
    "Use the tools when they help.",
)
GUIDES = (
    "Answer in one word.",
    "Answer with one word only.",
    "Reply with a single word.",
    "Use only one word in your answer.",
    "One word answers only.",
    "Please answer in one word.",
    "Answer with only one word.",
    "Be extremely brief: one word.",
)


class Style(NamedTuple):
    """The system prompt (empty for none), the change of an answer, and whether it only fits questions with a short answer."""

    prompt: str
    change: Callable[[str, str], str]
    short_only: bool = False
    name: str = ""


def _same(full: str, short: str) -> str:
    return full


def style(rng: random.Random) -> Style:
    """A style; more than half of the time none at all."""
    roll = rng.random()
    if roll < 0.58:
        return Style("", _same)
    if roll < 0.70:
        return Style(rng.choice(HELPFUL), _same)
    lead = rng.choice(["", "", "You are a helpful assistant. "])
    if roll < 0.79:
        name = rng.choice([*words.BOT_NAMES, literals.made_up(rng).capitalize()])
        one = words.article(rng.choice(words.ADJECTIVES))
        prompt = rng.choice(
            [
                f"Your name is {name}.",
                f"You are {name}.",
                f"You are {name}, {one} assistant.",
                f"You are {one} assistant named {name}.",
                f"You are called {name}. Be brief.",
                f"You are an assistant called {name}.",
            ]
        )
        return Style(prompt, _same, name=name)
    if roll < 0.86:
        return Style(lead + rng.choice(GUIDES), lambda full, short: short, short_only=True)
    if roll < 0.90:
        begin = rng.choice(
            [
                "Well,",
                "Sure:",
                "Arr!",
                "Dear friend,",
                "OK.",
                literals.word(rng).capitalize() + ":",
                literals.made_up(rng).capitalize(),
            ]
        )
        guide = rng.choice(
            [
                f'Start every answer with "{begin}".',
                f"Begin every answer with {begin}",
                f'Begin each reply with "{begin}"',
            ]
        )
        return Style(lead + guide, lambda full, short: f"{begin} {full}")
    if roll < 0.94:
        end = rng.choice(
            [
                "Over.",
                "Meow!",
                "My friend.",
                "The end.",
                literals.word(rng).capitalize() + "!",
                literals.made_up(rng).capitalize() + ".",
            ]
        )
        guide = rng.choice(
            [
                f'End every answer with "{end}".',
                f'Finish every reply with "{end}"',
                f"End every answer with {end}",
            ]
        )
        return Style(lead + guide, lambda full, short: f"{full} {end}")
    if roll < 0.96:
        prompt = rng.choice(
            ["You are a pirate.", "Talk like a pirate.", "You are a friendly pirate."]
        )
        return Style(prompt, lambda full, short: f"Arr! {full}")
    if roll < 0.98:
        text = literals.literal(rng)
        prompt = rng.choice(
            [
                f"Always answer with: {text}",
                f"Whatever the user says, answer: {text}",
                f"Only answer with this text: {text}",
            ]
        )
        return Style(prompt, lambda full, short: text)
    prompt = rng.choice(
        [
            "Answer as JSON with the key answer.",
            'Answer as JSON: {"answer": ...}',
            "Answer only as JSON with the key answer.",
        ]
    )
    return Style(
        prompt,
        lambda full, short: json.dumps({"answer": short.rstrip(".")}, ensure_ascii=False),
        short_only=True,
    )
