"""Makers of varied values: the arguments and results of tools."""

import random
from typing import Any

import literals
import words


def people(rng: random.Random) -> str:
    return literals.name(rng)


def city(rng: random.Random) -> str:
    return rng.choice(words.CITIES) if rng.random() < 0.6 else literals.made_up(rng).capitalize()


def small(rng: random.Random) -> int:
    return rng.randint(0, 999)


def price(rng: random.Random) -> float:
    return round(rng.uniform(0, 500), rng.choice([1, 2]))


def day(rng: random.Random) -> str:
    return rng.choice(words.DAYS)


def path(rng: random.Random) -> str:
    folder = rng.choice(["", "", "/tmp/", "docs/", "src/"])
    return folder + literals.word(rng) + rng.choice([".txt", ".md", ".py", ".csv", ".json"])


def some_words(rng: random.Random) -> list[str]:
    return [literals.word(rng) for _ in range(rng.randint(1, 3))]


def switch(rng: random.Random) -> bool:
    return rng.random() < 0.5


def table(rng: random.Random) -> dict[str, Any]:
    makers = [literals.word, small, literals.code]
    return {literals.identifier(rng): rng.choice(makers)(rng) for _ in range(rng.randint(1, 3))}


def phrase(rng: random.Random) -> str:
    return " ".join(literals.word(rng) for _ in range(rng.randint(1, 5)))
