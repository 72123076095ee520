"""Tiny stories of three to eight sentences, built from parts, about a wished hero, place or object."""

import random

import words

FEELINGS = ("happy", "glad", "proud", "merry")
MORALS = (
    "From that day on, they were best friends.",
    "And that was the best day of the year.",
    "Everybody was happy.",
    "Since then, nobody there has been lonely.",
    "They never forgot that day.",
    "And so the story ends.",
    "Then it was time to sleep.",
    "After that, they met every day.",
)
WEATHER = ("sunny", "rainy", "windy", "cold", "warm", "quiet", "foggy", "snowy")


def _plot(rng: random.Random, name: str, place: str, thing: str, who: str) -> tuple[str, str]:
    """A problem and how it ends, with the help of `who`."""
    verb, near = rng.choice(words.VERBS), words.article(rng.choice(words.OBJECTS))
    problem, end = rng.choice(
        [
            (
                f"One day, {name} lost {words.article(thing)}.",
                f"{who} found the {thing} under {near}.",
            ),
            (
                f"{name} was looking for a {rng.choice(words.COLOURS)} {thing}.",
                f"{who} found the {thing} behind the {place}.",
            ),
            (
                f"One day, {name} found {words.article(thing)} near the {place}.",
                f"{who} said that the {thing} was very old.",
            ),
            (f"{name} wanted to learn to {verb}.", f"{who} showed {name} how to {verb}."),
            (
                f"One morning, {name} heard a strange sound.",
                f"{who} had made the sound with {words.article(thing)}.",
            ),
            (
                f"{name} was hungry and had nothing to eat.",
                f"{who} gave {name} some {rng.choice(words.FOODS)} soup.",
            ),
        ]
    )
    return problem, end[0].upper() + end[1:]


def story(
    rng: random.Random, animal: str, name: str, place: str, thing: str, sentences: int
) -> str:
    """One story with exactly `sentences` sentences (3 to 8) about the given animal, name, place and thing."""
    mood, other_mood = rng.sample(words.ADJECTIVES, 2)
    friend = rng.choice([a for a in words.ANIMALS if a != animal])
    opening = rng.choice(
        [
            f"Once upon a time, there was {words.article(mood)} {animal} named {name}.",
            f"Once there lived {words.article(mood)} {animal} called {name}.",
            f"{name} was {words.article(mood)} {animal}.",
            f"There was once {words.article(mood)} {animal}, and its name was {name}.",
        ]
    )
    problem, end = _plot(
        rng, name, place, thing, f"the {friend}" if sentences > 4 else words.article(friend)
    )
    # In the order of the story; the number says how early a sentence is worth its place.
    body = [
        (4, f"{name} lived {words.at(place)}."),
        (5, f"It was a {rng.choice(WEATHER)} day."),
        (1, problem),
        (3, f"Then {words.article(other_mood)} {friend} came along."),
        (5, f'"Do not worry," said the {friend}, "I will help you."'),
        (2, end),
        (5, f"{name} was very {rng.choice(FEELINGS)}."),
        (5, f"They shared some {rng.choice(words.FOODS)} pie and sang a song."),
    ]
    ranked = sorted(range(len(body)), key=lambda i: (body[i][0], rng.random()))
    kept = sorted(ranked[: sentences - 2])
    return " ".join([opening, *(body[i][1] for i in kept), rng.choice(MORALS)])


def request(rng: random.Random) -> tuple[str, str]:
    """A wish for a story and the story."""
    animal, name, place, thing = (
        rng.choice(words.ANIMALS),
        rng.choice(words.NAMES),
        rng.choice(words.PLACES),
        rng.choice(words.OBJECTS),
    )
    count = rng.randint(3, 8)
    ask = rng.choice(
        [
            "Tell me a story",
            "Tell me a short story",
            "Write a story",
            "Write a tiny story",
            "Tell a story",
            "Please tell me a story",
            "Can you tell me a story",
            "I want a story",
        ]
    )
    one = words.article(animal)
    wish = rng.choice(
        [
            "",
            f" about {one}",
            f" about {one}",
            f" about {one} named {name}",
            f" about {one} called {name}",
            f" about {one} {words.at(place)}",
            f" about {one} named {name} {words.at(place)}",
            f" about {one} and {words.article(thing)}",
            f" about {name} the {animal}",
            f" about {one} in {count} sentences",
        ]
    )
    if "sentences" not in wish and rng.random() < 0.15:
        wish += f" with {count} sentences"
    if wish.endswith("sentences") and rng.random() < 0.5:
        wish = wish.replace(str(count), words.NUMBER_WORDS[count])
    mark = "?" if ask.startswith("Can") else "."
    while True:
        text = story(rng, animal, name, place, thing, count)
        if (f"the {place}" not in wish or place in text) and (thing not in wish or thing in text):
            return ask + wish + mark, text
        count = count if "sentences" in wish else rng.randint(5, 8)


def opening(rng: random.Random) -> str:
    """A story as plain text, for completions without a chat."""
    return story(
        rng,
        rng.choice(words.ANIMALS),
        rng.choice(words.NAMES),
        rng.choice(words.PLACES),
        rng.choice(words.OBJECTS),
        rng.randint(3, 8),
    )


POEMS = (
    "The {a} is {b}, the sky is blue,\nand every {c} will smile at you.\nThe {d} is {e}, the night is near,\nand all my friends are with me here.",
    "I saw {a1} beside the sea,\nit was as {b} as it could be.\nIt had {d1} upon its head,\nand then it went to sleep in bed.",
    "A {b} {c} sat in a tree\nand sang a little song for me.\nIt sang of {a} and of {d},\nand it was {e}, and so was she.",
)


def poem(rng: random.Random) -> tuple[str, str]:
    """A wish for a poem and four lines."""
    a, d = rng.sample([*words.OBJECTS, *words.FOODS, *words.PLACES], 2)
    b, e = rng.sample(words.ADJECTIVES, 2)
    text = rng.choice(POEMS).format(
        a=a, a1=words.article(a), b=b, c=rng.choice(words.ANIMALS), d=d, d1=words.article(d), e=e
    )
    ask = rng.choice(
        [
            "Write a poem",
            "Write me a poem",
            "Tell me a poem",
            "Can you write a poem",
            "Write a short poem",
            "A poem, please",
            "Make a poem",
        ]
    )
    wish = (
        rng.choice(["", "", f" about the {a}", f" about {words.article(a)}"]) if a in text else ""
    )
    return ask + wish + ("?" if ask.startswith("Can") else "."), text
