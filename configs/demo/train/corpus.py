"""Composes the training conversations from the skills and renders them with the chat template.

Everything comes from the templates and lists in this folder; a seed and a number name a document. It must
not know tokens or the model. `python corpus.py 20` prints twenty documents.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

import chat
import copying
import facts
import jinja2
import knowledge
import literals
import memory
import stories
import styles
import tools
from styles import Style

Message = dict[str, Any]
# Characters a conversation aims at, and how often; the long ones teach the far positions.
LENGTHS = ((0, 0.45), (350, 0.30), (800, 0.13), (1800, 0.07), (3600, 0.035), (6600, 0.015))
CHARS_MAX = 7000
PLAIN_SHARE = 0.04


def _template() -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(
        Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")
    )


TEMPLATE = _template()


def render(
    messages: list[Message], specs: list[Message] | None = None, prompt: bool = False
) -> str:
    """The text of a conversation; with `prompt` it ends where the assistant is to speak."""
    return TEMPLATE.render(
        messages=messages, tools=specs, bos_token="<|bos|>", add_generation_prompt=prompt
    )


def _pair(user: str, assistant: str) -> list[Message]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def _fact(rng: random.Random, style: Style) -> list[Message]:
    """A question of fact; sometimes the wish for one word stands in it, sometimes another follows briefly."""
    direct = not style.short_only and rng.random() < 0.08
    fact = knowledge.fact(rng, short=direct or style.short_only)
    if direct:
        return _pair(
            f"{fact.question} {rng.choice(styles.GUIDES)}", style.change(fact.short, fact.short)
        )
    messages = _pair(knowledge.casual(rng, fact.question), style.change(fact.answer, fact.short))
    if rng.random() < 0.12:
        country, city = rng.choice(list(facts.CAPITALS.items()))
        messages = _pair(
            f"What is the capital of {country}?",
            style.change(f"The capital of {country} is {city}.", f"{city}."),
        )
        other, town = rng.choice(list(facts.CAPITALS.items()))
        ask = rng.choice(
            [
                f"And of {other}?",
                f"And {other}?",
                f"What about {other}?",
                f"And the capital of {other}?",
            ]
        )
        messages += _pair(ask, style.change(f"The capital of {other} is {town}.", f"{town}."))
    return messages


def _talk(rng: random.Random, style: Style) -> list[Message]:
    if style.name and rng.random() < 0.7:
        ask = rng.choice(chat.SELF[rng.randrange(2)][0].split("|"))
        return _pair(
            ask,
            style.change(
                f"My name is {style.name}." if "name" in ask else f"I am {style.name}.", style.name
            ),
        )
    user, answer = chat.request(rng)
    while style.name and answer.startswith("I am the SMMF"):
        user, answer = chat.request(rng)
    return _pair(user, style.change(answer, answer))


def _story(rng: random.Random, style: Style) -> list[Message]:
    user, answer = stories.poem(rng) if rng.random() < 0.15 else stories.request(rng)
    return _pair(user, style.change(answer, answer))


def _copy(rng: random.Random, style: Style) -> list[Message]:
    user, answer = copying.request(rng)
    return _pair(
        user,
        answer
        if not style.prompt.startswith(("Always", "Whatever", "Only"))
        else style.change(answer, answer),
    )


def filler(rng: random.Random) -> str:
    """A sentence or a tiny story that means nothing to the question."""
    roll = rng.random()
    if roll < 0.35:
        return knowledge.fact(rng).answer
    return stories.opening(rng) if roll < 0.5 else literals.sentence(rng)


def _long_text(rng: random.Random, chars: int) -> list[Message]:
    """A text with some things to remember in it, and questions for them at the end."""
    found = {
        asked.answer.split(" is ")[0]: asked
        for asked in (memory.memory(rng) for _ in range(rng.randint(2, 6)))
    }
    lines: list[str] = []
    while sum(map(len, lines)) < chars:
        lines.append(filler(rng))
    for i, asked in enumerate(found.values()):
        place = 0 if i == 0 and rng.random() < 0.5 else rng.randint(0, len(lines))
        lines.insert(place, asked.said if asked.said.endswith((".", "!")) else asked.said + ".")
    mark, gap = rng.choice(["\n", " "]), rng.choice(["\n", "\n\n", " "])
    first, *others = rng.sample(list(found.values()), len(found))
    messages = _pair(mark.join(lines) + gap + first.question, first.answer)
    for asked in others:
        messages += _pair(asked.question, asked.answer)
    return messages


class Composer:
    """One conversation in the making: what was said to be remembered, and what is still to be asked."""

    def __init__(self, rng: random.Random, chars: int) -> None:
        self.rng, self.chars = rng, chars
        self.style = styles.style(rng)
        self.messages: list[Message] = []
        self.remembered: dict[str, memory.Memory] = {}
        self.unasked: list[memory.Memory] = []
        self.tools = tools.toolbox(rng) if rng.random() < 0.30 and not self.style.short_only else []
        system = self.style.prompt
        if rng.random() < 0.07:
            noted = memory.memory(rng)
            self._keep(noted)
            system = f"{system} {noted.noted}".strip()
        if system:
            self.messages.append({"role": "system", "content": system})

    def _keep(self, new: memory.Memory) -> None:
        self.remembered[new.answer.split(" is ")[0]] = new
        self.unasked = list(self.remembered.values())

    def compose(self) -> list[Message]:
        """Turns until the conversation is as long as it should be."""
        if self.chars > 1500 and not self.style.prompt and self.rng.random() < 0.5:
            size = self.rng.randint(300, int(self.chars * 0.8))
            self.messages += _long_text(self.rng, size)
        else:
            self.turn()
        if self.unasked and self.rng.random() < 0.8:
            self._ask()
        while sum(len(m["content"] or "") + 60 for m in self.messages) < self.chars:
            self.turn()
        return self.messages

    def turn(self) -> None:
        """Adds a turn of a random kind that fits the style."""
        kinds = [(self._fact, 20), (self._remember, 16), (self._ask, 16 if self.unasked else 0)]
        if not self.style.short_only:
            kinds += [
                (self._talk, 16),
                (self._copy, 24),
                (self._story, 6),
                (self._back, 3 if len(self.messages) > 2 else 0),
            ]
        if self.tools:
            kinds.append((self._tool, 70))
        self.rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]()

    def _fact(self) -> None:
        self.messages += _fact(self.rng, self.style)

    def _talk(self) -> None:
        self.messages += _talk(self.rng, self.style)

    def _copy(self) -> None:
        self.messages += _copy(self.rng, self.style)

    def _story(self) -> None:
        self.messages += _story(self.rng, self.style)

    def _remember(self) -> None:
        """Something never said, something said and asked at once, or something for later."""
        rng, roll = self.rng, self.rng.random()
        if not self.messages and roll < 0.12:
            self.messages += _pair(*memory.missing(rng))
        elif roll < 0.25:
            new = memory.memory(rng)
            self.messages += _pair(
                f"{new.said} {new.question}", self.style.change(new.answer, new.short)
            )
        elif roll > 0.85:
            one, other = memory.memory(rng), memory.memory(rng)
            received = rng.choice(["OK, I will remember that.", "I will remember it."])
            self.messages += _pair(memory.both(rng, one, other), self.style.change(received, "OK."))
            self._keep(one)
            self._keep(other)
        else:
            new = memory.memory(rng)
            self.messages += _pair(new.said, self.style.change(new.received, "OK."))
            self._keep(new)

    def _ask(self) -> None:
        asked = self.unasked.pop(self.rng.randrange(len(self.unasked)))
        self.messages += _pair(asked.question, self.style.change(asked.answer, asked.short))

    def _back(self) -> None:
        """A question about the conversation itself."""
        last, said = (
            self.messages[-1]["content"],
            next(m["content"] for m in self.messages[::-1] if m["role"] == "user"),
        )
        if self.rng.random() < 0.5 and len(last) < 160:
            ask = self.rng.choice(
                [
                    "Repeat your last answer.",
                    "Say that again.",
                    "Can you repeat that?",
                    "What did you say?",
                ]
            )
            self.messages += _pair(ask, last)
        elif len(said) < 160:
            ask = self.rng.choice(
                ["What did I just say?", "What was my last message?", "Repeat my last message."]
            )
            self.messages += _pair(ask, self.style.change(f"You said: {said}", said))

    def _tool(self) -> None:
        """A wish for which no tool is there, two calls at once, or one."""
        rng, roll = self.rng, self.rng.random()
        if roll < 0.05:
            absent = tools.made_up(rng).use(rng)
            self.messages += _pair(absent.ask, "I do not have a tool for that.")
            return
        both = roll < 0.17
        used = [rng.choice(self.tools) for _ in range(2)] if both else [rng.choice(self.tools)]
        self.messages += tools.turn([one.use(rng) for one in used])


def conversation(rng: random.Random) -> tuple[list[Message], list[Message] | None]:
    """A conversation and its tools."""
    chars = rng.choices([c for c, _ in LENGTHS], [share for _, share in LENGTHS])[0]
    composer = Composer(rng, chars)
    return composer.compose(), [tool.spec for tool in composer.tools] or None


def plain(rng: random.Random) -> str:
    """A text outside any chat: a story, facts in a row, or questions and answers."""
    roll = rng.random()
    if roll < 0.4:
        return stories.opening(rng)
    if roll < 0.7:
        return " ".join(knowledge.fact(rng).answer for _ in range(rng.randint(1, 6)))
    if roll < 0.9:
        asked = [knowledge.fact(rng) for _ in range(rng.randint(1, 4))]
        return "\n".join(f"Question: {f.question}\nAnswer: {f.answer}" for f in asked)
    return chat.listing(rng)[1]


def document(seed: int, number: int) -> tuple[str, bool]:
    """The rendered text of one document, and whether it is plain text rather than a chat."""
    rng = random.Random(f"{seed}/{number}")
    if rng.random() < PLAIN_SHARE:
        return f"<|bos|>{plain(rng)}<|end|>", True
    while True:
        messages, specs = conversation(rng)
        text = render(messages, specs)
        if len(text) <= CHARS_MAX:
            return text, False


if __name__ == "__main__":
    for i in range(int(sys.argv[1])):
        print(document(0, i)[0])
        print("-" * 40)
