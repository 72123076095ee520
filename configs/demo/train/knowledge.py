"""Questions about the fact tables, each with a full answer and a short one."""

import random
from typing import NamedTuple

import facts
import words


class Fact(NamedTuple):
    """One question with its answer as a sentence and in as few words as possible."""

    question: str
    answer: str
    short: str


def casual(rng: random.Random, question: str) -> str:
    """The question as people type it: sometimes wrapped, lower-cased or without its mark."""
    roll = rng.random()
    if roll < 0.10:
        question = rng.choice(
            [
                "Please tell me: ",
                "Tell me, ",
                "Hey, ",
                "Can you tell me: ",
                "Quick question: ",
                "So, ",
            ]
        ) + (question[0].lower() + question[1:])
    elif roll < 0.14:
        question += rng.choice([" Thanks!", " Please answer.", " I forgot."])
    if rng.random() < 0.10:
        question = question.lower()
    return question.rstrip("?.") if rng.random() < 0.10 else question


def _first(text: str) -> str:
    return text[0].upper() + text[1:]


def capital(rng: random.Random) -> Fact:
    country, city = rng.choice(list(facts.CAPITALS.items()))
    if rng.random() < 0.15:
        question = rng.choice(
            [f"{city} is the capital of which country?", f"Which country has the capital {city}?"]
        )
        return Fact(question, f"{city} is the capital of {country}.", f"{country}.")
    question = rng.choice(
        [f"What is the capital of {country}?"] * 4
        + [
            f"What's the capital of {country}?",
            f"Which city is the capital of {country}?",
            f"Name the capital of {country}.",
            f"Tell me the capital of {country}.",
            f"Capital of {country}?",
            f"What is the capital city of {country}?",
            f"Do you know the capital of {country}?",
        ]
    )
    return Fact(question, f"The capital of {country} is {city}.", f"{city}.")


def opposite(rng: random.Random) -> Fact:
    left, right = rng.choice(list(facts.OPPOSITES.items()))
    if (
        rng.random() < 0.5
        and "right" not in (left, right)
        and "light" not in (left, right)
        and "old" not in (left, right)
    ):
        left, right = right, left
    question = rng.choice(
        [
            f"What is the opposite of {left}?",
            f"What's the opposite of {left}?",
            f"Opposite of {left}?",
            f"Tell me the opposite of {left}.",
            f'What is the opposite of "{left}"?',
        ]
    )
    return Fact(question, f"The opposite of {left} is {right}.", f"{_first(right)}.")


def plural(rng: random.Random) -> Fact:
    one, many = rng.choice(list(facts.PLURALS.items()))
    question = rng.choice(
        [
            f"What is the plural of {one}?",
            f"What's the plural of {one}?",
            f"Plural of {one}?",
            f'What is the plural of "{one}"?',
            f"Give me the plural of {one}.",
        ]
    )
    return Fact(question, f"The plural of {one} is {many}.", f"{_first(many)}.")


def past(rng: random.Random) -> Fact:
    now, then = rng.choice(list(facts.PASTS.items()))
    question = rng.choice(
        [
            f"What is the past tense of {now}?",
            f"Past tense of {now}?",
            f"What is the past of {now}?",
        ]
    )
    return Fact(question, f"The past tense of {now} is {then}.", f"{_first(then)}.")


def animal(rng: random.Random) -> Fact:
    pick = rng.randrange(4)
    if pick == 0:
        who, what = rng.choice(list(facts.SOUNDS.items()))
        question = rng.choice(
            [
                f"What sound does {words.article(who)} make?",
                f"What does {words.article(who)} do to make noise?",
                f"Which sound does {words.article(who)} make?",
            ]
        )
        return Fact(question, f"{_first(words.article(who))} {what}.", f"{_first(what)}.")
    if pick == 1:
        who, what = rng.choice(list(facts.BABIES.items()))
        question = rng.choice(
            [
                f"What is a baby {who} called?",
                f"What do you call a baby {who}?",
                f"What is a young {who} called?",
            ]
        )
        return Fact(question, f"A baby {who} is called {words.article(what)}.", f"{_first(what)}.")
    if pick == 2:
        who, what = rng.choice(list(facts.HOMES.items()))
        question = rng.choice(
            [f"Where does {words.article(who)} live?", f"What is the home of {words.article(who)}?"]
        )
        place = (
            "water"
            if what == "water"
            else "the " + what
            if what in ("sea", "desert", "jungle", "cold south")
            else words.article(what)
        )
        return Fact(question, f"{_first(words.article(who))} lives in {place}.", f"{_first(what)}.")
    who, what = rng.choice(list(facts.LEGS.items()))
    question = rng.choice(
        [
            f"How many legs does {words.article(who)} have?",
            f"How many legs has {words.article(who)}?",
        ]
    )
    return Fact(question, f"{_first(words.article(who))} has {what} legs.", f"{_first(what)}.")


def colour(rng: random.Random) -> Fact:
    spelling = rng.choice(["colour", "color"])
    if rng.random() < 0.3:
        mix, result = rng.choice(list(facts.MIXES.items()))
        question = rng.choice(
            [f"Which {spelling} do {mix} make?", f"What {spelling} do you get when you mix {mix}?"]
        )
        return Fact(question, f"{_first(mix)} make {result}.", f"{_first(result)}.")
    thing, result = rng.choice(list(facts.COLOUR_OF.items()))
    question = rng.choice(
        [
            f"What {spelling} is {thing}?",
            f"Which {spelling} is {thing}?",
            f"What is the {spelling} of {thing}?",
        ]
    )
    return Fact(question, f"{_first(thing)} is {result}.", f"{_first(result)}.")


def kind(rng: random.Random) -> Fact:
    thing, what = rng.choice(list(facts.KINDS.items()))
    bare = thing[0].isupper() or what in ("metal", "sport", "food", "colour", "game")
    noun = thing if bare else words.article(thing)
    return Fact(f"What is {noun}?", f"{_first(noun)} is {words.article(what)}.", f"{_first(what)}.")


def _follow(rng: random.Random, names: list[str], unit: str) -> Fact:
    i = rng.randrange(len(names))
    step, word = rng.choice([(1, "after"), (-1, "before")])
    other = names[(i + step) % len(names)]
    question = rng.choice(
        [
            f"What {unit} comes {word} {names[i]}?",
            f"Which {unit} comes {word} {names[i]}?",
            f"Which {unit} is {word} {names[i]}?",
        ]
    )
    return Fact(question, f"{other} comes {word} {names[i]}.", f"{other}.")


def calendar(rng: random.Random) -> Fact:
    return (
        _follow(rng, words.DAYS, "day")
        if rng.random() < 0.5
        else _follow(rng, words.MONTHS, "month")
    )


def general(rng: random.Random) -> Fact:
    question, (answer, short) = rng.choice(list(facts.GENERAL.items()))
    return Fact(question, answer, short)


def term(rng: random.Random) -> Fact:
    thing, text = rng.choice(list(facts.TERMS.items()))
    noun, spoken = thing, _noun(thing, text)
    question = rng.choice(
        [f"What is {spoken}?"] * 4
        + [
            f"What does {noun} mean?",
            f"Explain {noun}.",
            f"Explain what {spoken} is.",
            f"Define {noun}.",
            f"Can you explain {spoken}?",
            f"What's {spoken}?",
            f"Tell me about {spoken}.",
            f"Please explain the word {noun}.",
            f"What is meant by {noun}?",
            f"What is {spoken} in SMMF?",
        ]
    )
    return Fact(question, text, f"{_first(noun)}.")


def difference(rng: random.Random) -> Fact:
    (a, first), (b, second) = rng.sample(list(facts.TERMS.items()), 2)
    one, other = _noun(a, first), _noun(b, second)
    question = rng.choice(
        [
            f"What is the difference between {one} and {other}?",
            f"Compare {one} and {other}.",
            f"Explain {one} and {other}.",
        ]
    )
    return Fact(question, f"{first} {second}", "")


def _noun(noun: str, text: str) -> str:
    """The term with the article that its explanation gives it."""
    return next(
        (a + noun for a in ("a ", "an ", "the ") if text.lower().startswith(a + noun.lower())), noun
    )


def arithmetic(rng: random.Random) -> Fact:
    a, b = rng.randint(0, 12), rng.randint(0, 12)
    pick = rng.choice("+++--*")
    if pick == "-" and a < b:
        a, b = b, a
    result = {"+": a + b, "-": a - b, "*": a * b}[pick]
    spoken = {"+": "plus", "-": "minus", "*": "times"}[pick]
    question = rng.choice(
        [
            f"What is {a} {spoken} {b}?",
            f"What is {a} {pick} {b}?",
            f"{a} {pick} {b} = ?",
            f"How much is {a} {spoken} {b}?",
            f"Calculate {a} {pick} {b}.",
        ]
    )
    return Fact(question, f"{a} {spoken} {b} is {result}.", f"{result}.")


SHORT = (
    [capital] * 4
    + [opposite] * 3
    + [plural] * 2
    + [
        past,
        animal,
        animal,
        animal,
        colour,
        colour,
        kind,
        kind,
        calendar,
        calendar,
        general,
        general,
        general,
    ]
    + [arithmetic] * 6
)
MAKERS = SHORT + [term] * 5 + [difference]


def fact(rng: random.Random, short: bool = False) -> Fact:
    """A question of any kind; with `short` one that a word or two can answer."""
    return rng.choice(SHORT if short else MAKERS)(rng)
