"""Facts that the user (or the system prompt) states and asks for later in the same conversation."""

import random
from typing import NamedTuple

import literals
import words


class Memory(NamedTuple):
    """What is said, how it is received, and the later question with its answer."""

    said: str
    received: str
    question: str
    answer: str
    short: str
    noted: str  # the same fact as a line of a system prompt


def _name(rng: random.Random) -> Memory:
    name = literals.name(rng)
    said = rng.choice(
        [
            f"My name is {name}.",
            f"my name is {name}",
            f"Hi, I am {name}.",
            f"Hello, my name is {name}.",
            f"I'm {name}.",
            f"Call me {name}.",
            f"Hello! I am {name}.",
        ]
    )
    received = rng.choice(
        [f"Nice to meet you, {name}!", f"Hello {name}! How can I help you?", f"Hello, {name}!"]
    )
    question = rng.choice(
        [
            "What is my name?",
            "What's my name?",
            "Who am I?",
            "Do you remember my name?",
            "what is my name",
            "Say my name.",
            "What am I called?",
            "Do you know my name?",
        ]
    )
    return Memory(
        said, received, question, f"Your name is {name}.", f"{name}.", f"The user's name is {name}."
    )


def _favourite(rng: random.Random) -> Memory:
    spelling = rng.choice(["favourite", "favorite"])
    kind, pool = rng.choice(
        [
            ("colour", words.COLOURS),
            ("color", words.COLOURS),
            ("animal", words.ANIMALS),
            ("food", words.FOODS),
            ("city", words.CITIES),
            ("number", None),
            ("hobby", words.HOBBIES),
            ("word", None),
        ]
    )
    value = (
        rng.choice(pool)
        if pool
        else literals.number(rng, 3)
        if kind == "number"
        else literals.word(rng)
    )
    question = rng.choice(
        [
            f"What is my {spelling} {kind}?",
            f"What's my {spelling} {kind}?",
            f"Which {kind} is my {spelling}?",
            f"Do you remember my {spelling} {kind}?",
        ]
    )
    received = rng.choice(
        [
            f"I will remember that your {spelling} {kind} is {value}.",
            f"{value.capitalize()} is a good choice.",
        ]
    )
    return Memory(
        f"My {spelling} {kind} is {value}.",
        received,
        question,
        f"Your {spelling} {kind} is {value}.",
        f"{value.capitalize()}.",
        f"The user's {spelling} {kind} is {value}.",
    )


def _pet(rng: random.Random) -> Memory:
    animal, name = rng.choice(words.ANIMALS), literals.name(rng)
    said = rng.choice(
        [
            f"My {animal} is called {name}.",
            f"I have {words.article(animal)} named {name}.",
            f"I have {words.article(animal)}. Its name is {name}.",
        ]
    )
    return Memory(
        said,
        f"{name} is a nice name for {words.article(animal)}.",
        rng.choice([f"What is the name of my {animal}?", f"What is my {animal} called?"]),
        f"Your {animal} is called {name}.",
        f"{name}.",
        f"The user's {animal} is called {name}.",
    )


def _place(rng: random.Random) -> Memory:
    city = rng.choice([*words.CITIES, literals.made_up(rng).capitalize()])
    return Memory(
        rng.choice([f"I live in {city}.", f"I am from {city}.", f"I come from {city}."]),
        rng.choice([f"{city} sounds nice.", f"I hope you like {city}."]),
        rng.choice(
            [
                "Where do I live?",
                "Where am I from?",
                "Where do I come from?",
                "Which city do I live in?",
            ]
        ),
        f"You live in {city}.",
        f"{city}.",
        f"The user lives in {city}.",
    )


def _age(rng: random.Random) -> Memory:
    age = rng.randint(5, 95)
    return Memory(
        rng.choice([f"I am {age} years old.", f"I'm {age}."]),
        f"{age} is a good age.",
        rng.choice(["How old am I?", "What is my age?"]),
        f"You are {age} years old.",
        f"{age}.",
        f"The user is {age} years old.",
    )


def _job(rng: random.Random) -> Memory:
    job = rng.choice(words.JOBS)
    return Memory(
        rng.choice([f"I work as {words.article(job)}.", f"I am {words.article(job)}."]),
        f"It must be interesting to be {words.article(job)}.",
        rng.choice(["What is my job?", "What do I do for work?"]),
        f"You are {words.article(job)}.",
        f"{job.capitalize()}.",
        f"The user is {words.article(job)}.",
    )


def _secret(rng: random.Random) -> Memory:
    label = rng.choice(
        [
            "code",
            "secret code",
            "password",
            "key",
            "secret word",
            "number",
            "order number",
            "ticket",
            "id",
            "magic word",
        ]
    )
    value = rng.choice(
        [literals.code, literals.code, literals.made_up, literals.number, literals.characters]
    )(rng)
    owner, your = rng.choice([("The", "The"), ("My", "Your")])
    said = rng.choice(
        [
            f"{owner} {label} is {value}.",
            f"Remember this: {owner.lower()} {label} is {value}.",
            f"{owner} {label} is {value}. Please remember it.",
            f"{owner} {label}: {value}",
        ]
    )
    received = rng.choice(
        ["I will remember it.", "OK, I will remember that.", f"OK, the {label} is {value}."]
    )
    question = rng.choice(
        [
            f"What is {owner.lower()} {label}?",
            f"What was {owner.lower()} {label}?",
            f"Tell me {owner.lower()} {label}.",
            f"Do you remember {owner.lower()} {label}?",
        ]
    )
    return Memory(
        said, received, question, f"{your} {label} is {value}.", value, f"The {label} is {value}."
    )


MAKERS = [_name] * 5 + [_favourite] * 3 + [_pet, _pet, _place, _place, _age, _job] + [_secret] * 4


def memory(rng: random.Random) -> Memory:
    """Something to remember, of any kind."""
    return rng.choice(MAKERS)(rng)


def both(rng: random.Random, one: Memory, other: Memory) -> str:
    """Two things said in one breath."""
    if (
        rng.random() < 0.5
        and one.said[-1] in ".!"
        and other.said.startswith(("I am ", "I live", "I come", "I have", "I work", "My "))
    ):
        second = other.said if other.said.startswith("I") else "my" + other.said[2:]
        return f"{one.said[:-1]} and {second}"
    return f"{one.said} {other.said}"


def missing(rng: random.Random) -> tuple[str, str]:
    """A question about something that was never said."""
    question = rng.choice(
        [
            "What is my name?",
            "How old am I?",
            "Where do I live?",
            "What is my favourite colour?",
            "What is the name of my dog?",
            "Who am I?",
            "What is the secret code?",
            "What is my job?",
            "Do you know my name?",
        ]
    )
    return question, "I do not know. You have not told me yet."
