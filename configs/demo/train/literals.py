"""Random literals: names, numbers, identifiers and made-up strings for the model to copy, never to know."""

import random
import string

import words

CONSONANTS = "bcdfghjklmnprstvwxyz"
VOWELS = "aeiou"
# Ranges of letters that people write in besides ASCII; they teach the byte tokens.
SCRIPTS = (
    (0xC0, 0x17F),
    (0x391, 0x3C9),
    (0x410, 0x44F),
    (0x4E00, 0x4FFF),
    (0x3041, 0x3096),
    (0x1F600, 0x1F640),
)


def made_up(rng: random.Random) -> str:
    """A pronounceable word that most likely nobody has seen."""
    parts = [
        rng.choice(CONSONANTS) + rng.choice(VOWELS) + rng.choice(["", "", rng.choice(CONSONANTS)])
        for _ in range(rng.randint(1, 3))
    ]
    return "".join(parts) if len(parts) > 1 else parts[0] + rng.choice(CONSONANTS)


def number(rng: random.Random, digits: int = 6) -> str:
    """A whole number with up to `digits` digits."""
    n = rng.randint(1, digits)
    return str(rng.randrange(10 ** (n - 1) if n > 1 else 0, 10**n))


def characters(rng: random.Random, low: int = 3, high: int = 12) -> str:
    """Random characters of one of several alphabets."""
    alphabet = rng.choice(
        [
            string.ascii_lowercase,
            string.ascii_uppercase,
            string.ascii_letters + string.digits,
            string.hexdigits.lower()[:16],
            string.digits,
            string.ascii_letters,
        ]
    )
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(low, high)))


def foreign(rng: random.Random) -> str:
    """A few characters outside ASCII."""
    low, high = rng.choice(SCRIPTS)
    return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 5)))


def word(rng: random.Random) -> str:
    """A real word or a made-up one."""
    real = rng.choice([words.PLAIN, words.OBJECTS, words.ANIMALS, words.FOODS, words.VERBS])
    return rng.choice(real) if rng.random() < 0.6 else made_up(rng)


def code(rng: random.Random) -> str:
    """A string such as an order number or a key: parts joined by a mark."""
    mark = rng.choice(["-", "-", "_", ".", "/", ":", ""])
    parts = [rng.choice([word, made_up, number, characters])(rng) for _ in range(rng.randint(1, 3))]
    parts.insert(rng.randint(0, len(parts)), rng.choice([number(rng), characters(rng, 2, 5)]))
    text = mark.join(parts)
    return rng.choice([text, text, text.upper(), text.capitalize()])


def identifier(rng: random.Random) -> str:
    """The name of a function, a parameter or a JSON key."""
    parts = [word(rng) for _ in range(rng.choice([1, 2, 2, 3]))]
    style = rng.random()
    if style < 0.7:
        return "_".join(parts)
    return parts[0] + "".join(p.capitalize() for p in parts[1:]) if style < 0.9 else "-".join(parts)


def name(rng: random.Random) -> str:
    """A person's name, sometimes one that does not exist."""
    return rng.choice(words.NAMES) if rng.random() < 0.6 else made_up(rng).capitalize()


def sentence(rng: random.Random) -> str:
    """Words in a row, mostly without sense, as a sentence."""
    parts = [rng.choice([word, word, word, name, number])(rng) for _ in range(rng.randint(2, 9))]
    text = " ".join(parts)
    return rng.choice([text, text[0].upper() + text[1:] + rng.choice([".", ".", "!", "?"])])


def literal(rng: random.Random) -> str:
    """Anything worth copying."""
    makers = [
        made_up,
        number,
        characters,
        code,
        code,
        code,
        name,
        word,
        word,
        identifier,
        sentence,
        sentence,
    ]
    text = rng.choice(makers)(rng)
    roll = rng.random()
    if roll < 0.04:
        return foreign(rng) if roll < 0.02 else f"{text} {foreign(rng)}"
    if roll < 0.08:
        return f"{text} {rng.choice(makers)(rng)}"
    if roll < 0.10:
        return text + rng.choice(["!", "?", "...", " (ok)", " = 1", ";", "%"])
    return text
