"""A model behind a real `smmf serve`, or any other OpenAI endpoint, and its tokens per second.

Owns how an engine is loaded with requests; must not know a certain engine. All ratios of
bench.engines compare two figures that `generation_rate` or an engine's own loop took in one run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.serve.contestants import Smmf
from smmf_core.engines.base import Output, Sequence, StepEngine
from smmf_core.loadgen.exchange import Outcome, request_bytes
from smmf_core.loadgen.load import Load, Plan
from smmf_core.messages import Sampling, Submit

COMPLETIONS = "/v1/completions"
CLIENTS = (1, 8, 32)
ROUNDS = 6  # taken in turn, the best of each counts: a neighbour of the machine slows down some
REQUESTS = 16  # of a round, at least: one answer alone says more of the moment than of the server
_WORDS = "river house music dog king garden story winter market letter bridge candle".split()


def turns(clients: int) -> int:
    """Of an engine without a server, in a round: one answer alone is over in a moment."""
    return max(1, 4 // clients)


def keep_best(best: dict[str, float], rates: dict[str, float]) -> None:
    for name, rate in rates.items():
        best[name] = max(rate, best.get(name, 0.0))


@dataclass(frozen=True, slots=True)
class Served:
    url: str
    ready_s: float  # from the command to the first moment at which the model could answer


@contextmanager
def served(name: str, toml: str) -> Iterator[Served]:
    """`smmf serve` on one model file; raises RuntimeError when it does not come up."""
    began = time.monotonic()
    server = Smmf({name: toml}, start_s=300)
    try:
        yield Served(server.url, time.monotonic() - began)
    finally:
        server.stop()


def prompts(clients: int, words: int, seed: int = 0) -> list[str]:
    """Texts of one round that share no beginning: a prefix cache finds nothing."""
    draw = random.Random(seed)
    count = max(clients, REQUESTS)
    return [" ".join([f"{n}", *draw.choices(_WORDS, k=words)]) for n in range(count)]


def bodies(url: str, model: str, texts: list[str], max_tokens: int) -> list[bytes]:
    """One streaming greedy completion per text, each exactly as long as told."""
    host = url.removeprefix("http://")
    return [
        request_bytes(
            host,
            COMPLETIONS,
            {
                "model": model, "prompt": text, "max_tokens": max_tokens, "temperature": 0,
                "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
            },
        )
        for text in texts
    ]  # fmt: skip


def generation_rate(url: str, requests: list[bytes], clients: int) -> float:
    """Tokens per second of streams, as many at once as there are clients, each on a new connection:
    not every server keeps the one that a stream was on.

    Raises RuntimeError when one request fails: a rate of what remains would flatter.
    """
    return rate_of_groups(url, requests, clients, is_stream=True)


def rate_of_groups(url: str, requests: list[bytes], clients: int, is_stream: bool) -> float:
    """As `generation_rate`."""
    outcomes: list[Outcome] = []
    began = time.monotonic()
    for first in range(0, len(requests), clients):
        group = requests[first : first + clients]
        plan = Plan(url + COMPLETIONS, b"", is_stream, clients, len(group), requests=group)
        outcomes += Load(plan).run()
    elapsed_s = time.monotonic() - began
    failed = [outcome.error for outcome in outcomes if outcome.error]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(outcomes)} requests failed: {failed[0]}")
    return sum(outcome.tokens for outcome in outcomes) / elapsed_s


def stepped_rate(
    engine: StepEngine,
    asked: list[list[int]],
    tokens: int,
    note: Callable[[Output], None] = lambda output: None,
) -> float:
    """Tokens per second of the engine alone, driven as a Worker's loop does. Greedy answers; `note`
    is told of each token."""
    params = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    sequences = [
        Sequence(
            number,
            prompt,
            len(prompt),
            params,
            tokens,
            Submit(number, 0, "", "demo", True, 1, None, [prompt], params),
        )
        for number, prompt in enumerate(asked)
    ]
    began = time.perf_counter()
    rest = dict.fromkeys(range(len(asked)), tokens)
    engine.add(sequences)
    while rest:
        for output in engine.step():
            assert output.error is None, output.error
            note(output)
            rest[output.sequence.id] -= 1
            if not rest[output.sequence.id]:
                del rest[output.sequence.id]
                engine.remove([output.sequence])
    return len(asked) * tokens / (time.perf_counter() - began)
