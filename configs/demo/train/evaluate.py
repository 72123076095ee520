"""Measures an exported model folder: held-out loss, exact answers per skill, ends, far copies; prints samples.

    python configs/demo/train/evaluate.py configs/demo

It only reads the folder. Every literal in the questions is drawn from a seed that training does not use.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import batches as data
import chat
import copying
import corpus
import knowledge
import literals
import memory
import styles
import tools
import torch
from samples import ROLES, SAMPLES
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import AutoModelForCausalLM

SEED = 3
HELD_OUT_SEED = 2
HELD_OUT_BATCHES = 60
NEW_TOKENS = 200
TOGETHER = 25  # prompts generated at once
CHARS_PER_TOKEN = 2.7  # of the filler, which is full of random words


class Case(NamedTuple):
    """A prompt and the one answer that counts."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    answer: str


class Model:
    """The folder's model in float32 with its tokenizer; greedy unless a temperature is given."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.encoder = data.Encoder(self.tokenizer)
        self.end = self.tokenizer.token_to_id("<|end|>")

    def answer(self, texts: list[str], temperature: float = 0.0) -> list[tuple[str, bool]]:
        """The continuation of each rendered text, and whether the model ended it by itself."""
        rows = [self.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([[self.encoder.pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        chosen = (
            {"do_sample": True, "temperature": temperature, "top_k": 0}
            if temperature
            else {"do_sample": False}
        )
        with torch.inference_mode():
            out = self.network.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, **chosen
            )
        answers = []
        for row in out[:, width:].tolist():
            ended = self.end in row
            answers.append(
                (self.tokenizer.decode(row[: row.index(self.end)] if ended else row), ended)
            )
        return answers

    def loss(self) -> float:
        """Mean cross-entropy of what the assistant says in documents that training never saw."""
        total, count = 0.0, 0
        stream = data.batches(self.encoder, HELD_OUT_SEED)
        for _ in range(HELD_OUT_BATCHES):
            (ids, learnt), _ = next(stream)
            with torch.inference_mode():
                logits = self.network(input_ids=ids).logits[learnt]
            total += functional.cross_entropy(
                logits, ids.roll(-1, dims=1)[learnt], reduction="sum"
            ).item()
            count += int(learnt.sum())
        return total / count


def _asked(*turns: str, system: str = "", specs: list[dict[str, Any]] | None = None) -> Case:
    """User and assistant in turn; the last of the turns is the expected answer."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [
        {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns[:-1])
    ]
    return Case(messages, specs, turns[-1])


def _fact(maker: Callable[[random.Random], knowledge.Fact]) -> Callable[[random.Random], Case]:
    def case(rng: random.Random) -> Case:
        fact = maker(rng)
        return _asked(fact.question, fact.answer)

    return case


def _remembered(rng: random.Random) -> Case:
    asked, (user, said) = memory.memory(rng), chat.small_talk(rng)
    return _asked(asked.said, asked.received, user, said, asked.question, asked.answer)


def _noted(rng: random.Random) -> Case:
    asked = memory.memory(rng)
    return _asked(
        asked.question, asked.answer, system=f"You are a helpful assistant. {asked.noted}"
    )


def _one_word(rng: random.Random) -> Case:
    fact = knowledge.capital(rng)
    return _asked(fact.question, fact.short, system=rng.choice(styles.GUIDES))


def _persona(rng: random.Random) -> Case:
    name = literals.made_up(rng).capitalize()
    return _asked("What is your name?", f"My name is {name}.", system=f"Your name is {name}.")


def _tool_call(maker: Callable[[random.Random], tools.Tool]) -> Callable[[random.Random], Case]:
    def case(rng: random.Random) -> Case:
        one = maker(rng)
        use = one.use(rng)
        others = [tools.tool(rng).spec for _ in range(rng.randint(0, 2))]
        specs = rng.sample([one.spec, *others], 1 + len(others))
        call = corpus.render(
            [{"role": "assistant", "content": None, "tool_calls": [tools.call(0, use)]}]
        )
        answer = call.removeprefix("<|bos|><|assistant|>").removesuffix("<|end|>")
        return _asked(use.ask, answer, specs=specs)

    return case


def _tool_result(rng: random.Random) -> Case:
    one = tools.tool(rng)
    *messages, last = tools.turn([one.use(rng)])
    return Case(messages, [one.spec], last["content"])


def _far(tokens: int) -> Callable[[random.Random], Case]:
    """A code at the very start of a long text, asked for at its end; `tokens` is what lies between, roughly."""

    def case(rng: random.Random) -> Case:
        code, lines = literals.code(rng), [""]
        while sum(map(len, lines)) < tokens * CHARS_PER_TOKEN:
            lines.append(corpus.filler(rng))
        return _asked(
            f"The code is {code}. {' '.join(lines)} What is the code?", f"The code is {code}."
        )

    return case


def _pair(maker: Callable[[random.Random], tuple[str, str]]) -> Callable[[random.Random], Case]:
    return lambda rng: _asked(*maker(rng))


SKILLS: dict[str, tuple[Callable[[random.Random], Case], int]] = {
    "repeat a literal": (_pair(copying.repeat), 60),
    "repeat a code": (
        lambda rng: _asked(*(lambda c: (f"Repeat: {c}", c))(literals.code(rng))),
        100,
    ),
    "pick from a list": (_pair(copying.pick), 60),
    "look up in a text": (_pair(copying.extract), 60),
    "JSON from values": (_pair(copying.as_json), 60),
    "spell a word": (_pair(copying.spell), 50),
    "count": (_pair(copying.count), 50),
    "remember from earlier": (_remembered, 60),
    "remember from the system prompt": (_noted, 60),
    "answer in one word": (_one_word, 50),
    "persona name": (_persona, 50),
    "tool call, usual tools": (_tool_call(tools.ready), 60),
    "tool call, made-up tools": (_tool_call(tools.made_up), 60),
    "tell a tool result": (_tool_result, 60),
    "capitals": (_fact(knowledge.capital), 60),
    "other short facts": (_fact(lambda rng: knowledge.fact(rng, short=True)), 60),
    "serving terms": (_fact(knowledge.term), 50),
    "arithmetic up to 12": (_fact(knowledge.arithmetic), 60),
    "far copy, about 250 tokens": (_far(250), 40),
    "far copy, about 500 tokens": (_far(500), 40),
    "far copy, about 950 tokens": (_far(950), 40),
    "far copy, about 1700 tokens": (_far(1700), 20),
}


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    for i in range(0, len(items), TOGETHER):
        yield items[i : i + TOGETHER]


def measure(
    model: Model, make: Callable[[random.Random], Case], count: int, show: int
) -> tuple[float, float, int, list[str]]:
    """Exact share, ended share, median prompt tokens, and the first wrong answers."""
    rng = random.Random(SEED)
    cases = [make(rng) for _ in range(count)]
    texts = [corpus.render(case.messages, case.tools, prompt=True) for case in cases]
    answers = [answer for chunk in _chunks(texts) for answer in model.answer(chunk)]
    right = [said == case.answer for case, (said, _) in zip(cases, answers, strict=True)]
    wrong = [
        f"{case.messages[-1]['content'][-90:]!r} -> {said!r}, not {case.answer!r}"
        for case, (said, _), ok in zip(cases, answers, right, strict=True)
        if not ok
    ]
    lengths = sorted(len(model.tokenizer.encode(text).ids) for text in texts)
    return (
        sum(right) / count,
        sum(ended for _, ended in answers) / count,
        lengths[count // 2],
        wrong[:show],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wrong", type=int, default=0, help="wrong answers to show per skill")
    parser.add_argument("--only", default="", help="part of a skill's name")
    args = parser.parse_args()
    torch.manual_seed(SEED)
    model = Model(args.folder)
    if not args.only:
        print(f"held-out loss {model.loss():.4f}")
    print("| skill | exact | ended | prompt tokens (median) | cases |\n|---|---|---|---|---|")
    for name, (make, count) in SKILLS.items():
        if args.only in name:
            exact, ended, length, wrong = measure(model, make, count, args.wrong)
            print(f"| {name} | {exact:.0%} | {ended:.0%} | {length} | {count} |", flush=True)
            print("".join(f"    {line}\n" for line in wrong), end="")
    prompts = [
        corpus.render([{"role": "user", "content": sample[-1]}], prompt=True) for sample in SAMPLES
    ] * 2
    ended = [done for chunk in _chunks(prompts) for _, done in model.answer(chunk, temperature=1.0)]
    print(
        f"ended within {NEW_TOKENS} tokens at temperature 1: {sum(ended) / len(ended):.1%} of {len(ended)}\n"
    )
    for sample in SAMPLES:
        talk(model, sample)


def talk(model: Model, turns: list[str]) -> None:
    """Prints a conversation whose turns are the user's; samples.py says what other turns there are."""
    messages: list[dict[str, Any]] = []
    specs: list[dict[str, Any]] = []
    for turn in turns:
        role, text = next(
            ((r, turn[len(r) + 2 :]) for r in ROLES if turn.startswith(r + ": ")), ("user", turn)
        )
        print(f"- {role}: {text}")
        if role == "has tool":
            specs.append({"type": "function", "function": json.loads(text)})
            continue
        messages.append({"role": role, "content": text})
        if role != "system":
            said = model.answer([corpus.render(messages, specs, prompt=True)])[0][0]
            messages.append({"role": "assistant", "content": said})
            print("  model: " + said.replace("\n", "\n    "))


if __name__ == "__main__":
    main()
