"""Requests that are answered by copying: repeat, join, pick, look up, write as JSON."""

import json
import random

import literals
import words

REPEAT = (
    "Repeat: {}",
    "Repeat: {}",
    "Repeat after me: {}",
    "Say: {}",
    "Say exactly: {}",
    "Echo: {}",
    "Copy: {}",
    "Repeat this: {}",
    "Say {}",
    "Please repeat: {}",
    "Reply with exactly: {}",
    "Answer with exactly this: {}",
    "Write: {}",
    "Print {}",
    "Repeat the following: {}",
    'Say "{}".',
    'Repeat "{}" exactly.',
    'Say exactly "{}"',
    "Reply with {} and nothing else.",
    "Output only: {}",
    "Type this: {}",
    "Say the word {}.",
    "Can you say {}?",
    "Repeat the text between the quotes: '{}'",
    "Copy this line:\n{}",
    "Repeat exactly:\n\n{}",
    "Reply only with: {}",
    'Respond with "{}"',
    "Spell exactly: {}",
    "Repeat {}",
)


def repeat(rng: random.Random) -> tuple[str, str]:
    text = literals.literal(rng)
    if rng.random() < 0.1:
        text = rng.choice(["\n", " ", ", "]).join(
            literals.literal(rng) for _ in range(rng.randint(2, 5))
        )
    ask = rng.choice(REPEAT)
    if ("'" in text and "'" in ask) or ('"' in text and '"' in ask):
        ask = "Repeat: {}"
    return ask.format(text), text


def several(rng: random.Random) -> tuple[str, str]:
    """The same word some times."""
    text, count = (
        rng.choice([literals.word, literals.made_up, literals.name])(rng),
        rng.randint(2, 6),
    )
    spelt = rng.choice([str(count), words.NUMBER_WORDS[count]])
    ask = rng.choice(
        [
            f"Say {text} {spelt} times.",
            f"Repeat the word {text} {spelt} times.",
            f"Write {text} {spelt} times.",
        ]
    )
    return ask, " ".join([text] * count)


def pick(rng: random.Random) -> tuple[str, str]:
    """One part of a short list, by position."""
    items = [literals.word(rng) for _ in range(rng.randint(2, 6))]
    if rng.random() < 0.3:
        items = [literals.code(rng) for _ in items]
    line = rng.choice([", ", " "]).join(items)
    which, item = rng.choice([("first", items[0]), ("last", items[-1]), ("second", items[1])])
    noun = rng.choice(["word", "item"])
    return rng.choice(
        [f"What is the {which} {noun} of: {line}", f"Give me the {which} {noun}: {line}"]
    ), item


def join(rng: random.Random) -> tuple[str, str]:
    """Two literals joined by a mark or put between marks."""
    a, b = literals.word(rng), literals.word(rng)
    roll = rng.randrange(5)
    if roll == 0:
        label, mark = rng.choice(
            [
                ("a dash", "-"),
                ("a plus", "+"),
                ("a comma", ", "),
                ("an underscore", "_"),
                ("and", " and "),
            ]
        )
        return f"Join {a} and {b} with {label}.", a + mark + b
    if roll == 1:
        return f"Put {a} in brackets.", f"({a})"
    if roll == 2:
        return f"Put {a} in quotes.", f'"{a}"'
    if roll == 3:
        return f"Swap the two words: {a} {b}", f"{b} {a}"
    items = [literals.word(rng) for _ in range(rng.randint(2, 6))]
    return f"Write these as a list: {', '.join(items)}", "\n".join(f"- {item}" for item in items)


def spell(rng: random.Random) -> tuple[str, str]:
    text = rng.choice([*words.ANIMALS, *words.FOODS, *words.OBJECTS, *words.NAMES])
    return rng.choice(
        [f"Spell {text}.", f"Spell the word {text}.", f"How do you spell {text}?"]
    ), "-".join(text)


def count(rng: random.Random) -> tuple[str, str]:
    low, size = rng.choice([1, 1, rng.randint(0, 80)]), rng.randint(2, 20)
    if rng.random() < 0.06:
        low, size = 1, rng.randint(20, 110)
    high = low + size
    if rng.random() < 0.15 and size < 21:
        return f"Count down from {high} to {low}.", ", ".join(
            str(n) for n in range(high, low - 1, -1)
        )
    asks = [
        f"Count from {low} to {high}.",
        f"Count from {low} to {high}, please.",
        f"Please count from {low} to {high}.",
    ]
    if low == 1:
        asks += [f"Count to {high}.", f"Count up to {high}", f"Can you count to {high}?"]
    return rng.choice(asks), ", ".join(str(n) for n in range(low, high + 1))


VALUE_KEYS = {
    "name": literals.name,
    "age": lambda r: r.randint(1, 99),
    "city": lambda r: r.choice(words.CITIES),
    "job": lambda r: r.choice(words.JOBS),
    "color": lambda r: r.choice(words.COLOURS),
    "animal": lambda r: r.choice(words.ANIMALS),
    "hobby": lambda r: r.choice(words.HOBBIES),
    "country": lambda r: r.choice(words.COUNTRIES),
    "code": literals.code,
    "price": lambda r: round(r.uniform(0, 100), 2),
    "count": lambda r: r.randint(0, 999),
}


def as_json(rng: random.Random) -> tuple[str, str]:
    """Values from a sentence written as a JSON object."""
    if rng.random() < 0.25:
        name, age, city = literals.name(rng), rng.randint(1, 99), rng.choice(words.CITIES)
        ask, data = rng.choice(
            [
                (
                    f"Answer as JSON with keys name and age: {name} is {age}",
                    {"name": name, "age": age},
                ),
                (
                    f"Answer as JSON with keys name and age: {name} is {age} years old.",
                    {"name": name, "age": age},
                ),
                (
                    f"Answer as JSON with keys name and city: {name} lives in {city}.",
                    {"name": name, "city": city},
                ),
                (
                    f"Answer as JSON with keys name, age and city: {name} is {age} and lives in {city}.",
                    {"name": name, "age": age, "city": city},
                ),
            ]
        )
        return ask, json.dumps(data, ensure_ascii=False)
    keys = rng.sample(list(VALUE_KEYS), rng.randint(1, 4))
    values = {key: VALUE_KEYS[key](rng) for key in keys}
    if rng.random() < 0.3:
        values = {
            literals.identifier(rng): rng.choice(
                [literals.word, literals.code, lambda r: r.randint(0, 9999)]
            )(rng)
            for _ in keys
        }
    listed = list(values)
    spoken = listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
    given = ", ".join(
        f"{key}{rng.choice([' is', ':', ' =', ''])} {value}" for key, value in values.items()
    )
    noun = "key" if len(listed) == 1 else "keys"
    ask = rng.choice(
        [
            f"Answer as JSON with {noun} {spoken}: {given}",
            f"Write this as JSON with the {noun} {spoken}: {given}",
            f"Turn this into JSON: {given}",
            f"Give me a JSON object with {noun} {spoken}: {given}",
            f"As JSON: {given}",
        ]
    )
    return ask, json.dumps(values, ensure_ascii=False)


def extract(rng: random.Random) -> tuple[str, str]:
    """One value of a few sentences, asked for by its name."""
    things = rng.sample(words.OBJECTS, rng.randint(2, 5))
    label = rng.choice(["code", "number", "price", "colour", "owner", "key", "label", "place"])
    maker = {
        "colour": lambda r: r.choice(words.COLOURS),
        "owner": literals.name,
        "place": lambda r: r.choice(words.CITIES),
        "number": literals.number,
        "price": lambda r: f"{r.randint(1, 99)} euros",
    }.get(label, literals.code)
    values = {thing: maker(rng) for thing in things}
    text = " ".join(f"The {label} of the {thing} is {value}." for thing, value in values.items())
    thing = rng.choice(things)
    ask = rng.choice(
        [
            f"{text} What is the {label} of the {thing}?",
            f"{text}\n\nWhat is the {label} of the {thing}?",
            f"Read this: {text} Now tell me the {label} of the {thing}.",
            f"Text: {text}\nQuestion: What is the {label} of the {thing}?",
        ]
    )
    return ask, f"The {label} of the {thing} is {values[thing]}."


MAKERS = (
    [repeat] * 8
    + [several, pick, pick, pick, join, spell, count, count]
    + [as_json] * 5
    + [extract] * 3
)


def request(rng: random.Random) -> tuple[str, str]:
    """A request of any kind and its answer."""
    return rng.choice(MAKERS)(rng)
