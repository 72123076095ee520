"""transformers: what batching over the library's own forward pass is worth, in the same run.

Opponents on the same weights: the bare step loop (a pass and an arg max, nothing else), `generate`
on a batch of that size, `generate` on batches of mixed lengths that each run to their longest
(static batching), and `transformers serve`. Rounds are taken in turn; the best of each counts.
Weights are the demo model's, in float32.
"""

from __future__ import annotations

import random
import sys
import time
from bisect import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import transformers

from bench.engines import harness
from bench.serve.contestants import Contestant, get
from smmf_core.config import Model, ModelConfig, bundled
from smmf_core.config.schema import Optimization
from smmf_core.engines.base import Sequence
from smmf_core.engines.transformers.engine import TransformersEngine, create
from smmf_core.loadgen.exchange import request_bytes
from smmf_core.loadgen.local import free_port
from smmf_core.messages import Sampling, Submit

TOKENS = 128  # of an answer
WORDS = 16  # of a prompt
MIXED = 64  # requests of random lengths
SHORTEST, LONGEST = 16, 512
ARRIVAL_S = 3.0  # in which they come: faster than they can be served, so that both are busy
ROWS = 32  # of a static batch, and that the engine may run at once
_START_S = 120.0


def run() -> dict[str, Any]:
    """Tokens per second at 1, 8 and 32 requests, and the engine's ratio to each opponent."""
    folder = bundled("demo")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # answers have the length that was asked for
    engine = _engine(folder)
    encode = engine.spec.tokenizer.encode
    figures: dict[str, Any] = {"transformers": transformers.__version__, "tokens": TOKENS}
    with harness.served("transformers", _toml(folder)) as ours, _library_server(folder) as theirs:
        figures["ready_s"] = round(ours.ready_s, 2)
        for count in harness.CLIENTS:
            best: dict[str, float] = {}
            for number in range(harness.ROUNDS):
                texts = harness.prompts(count, WORDS, seed=100 * count + number)
                ids = [encode(text, True) for text in texts[:count]]
                width = min(len(prompt) for prompt in ids)
                equal = [prompt[:width] for prompt in ids]
                for _ in range(harness.turns(count)):
                    rates = {
                        "bare_loop": _bare(model, equal),
                        "engine_steps": _stepped(engine, equal, skip_prefill=True),
                        "generate": _generate(model, equal, [TOKENS] * count),
                        "engine": _stepped(engine, equal),
                    }
                    harness.keep_best(best, rates)
                rates = {
                    "served": _served(ours.url, texts, count),
                    "transformers_serve": _served_by_library(theirs, str(folder), texts, count),
                }
                harness.keep_best(best, rates)
            figures[str(count)] = {
                **{name: round(rate) for name, rate in best.items()},
                "to_bare_loop": round(best["engine_steps"] / best["bare_loop"], 3),
                "to_generate": round(best["engine"] / best["generate"], 3),
                "served_to_transformers_serve": round(
                    best["served"] / best["transformers_serve"], 3
                ),
            }
    figures["mixed"] = _mixed(model, engine)
    engine.close()
    return figures


def _mixed(model: Any, engine: TransformersEngine) -> dict[str, Any]:
    """Prompts and answers of random lengths that come at random: the engine's rows join and leave,
    a static batch takes whoever has come when the last one ends, and waits for its longest."""
    draw = random.Random(5)
    vocabulary = engine.spec.tokenizer.vocab_size
    lengths = [draw.randint(SHORTEST, LONGEST) for _ in range(MIXED)]
    asked = [
        [draw.randrange(vocabulary) for _ in range(draw.randint(SHORTEST, LONGEST))]
        for _ in range(MIXED)
    ]
    arrivals = list(accumulate(draw.expovariate(MIXED / ARRIVAL_S) for _ in range(MIXED)))
    static = _static_batches(model, asked, lengths, arrivals)
    ours = _stepped(engine, asked, lengths, arrivals=arrivals)
    return {
        "static_batches": round(static),
        "engine": round(ours),
        "to_static": round(ours / static, 3),
    }


def _static_batches(
    model: Any, asked: list[list[int]], lengths: list[int], arrivals: list[float]
) -> float:
    began, first = time.perf_counter(), 0
    while first < len(asked):
        now = time.perf_counter() - began
        time.sleep(max(0.0, arrivals[first] - now))
        here = bisect(arrivals, time.perf_counter() - began)
        span = slice(first, min(here, first + ROWS))
        _generate(model, asked[span], lengths[span])
        first = span.stop
    return sum(lengths) / (time.perf_counter() - began)


def _bare(model: Any, asked: list[list[int]]) -> float:
    cache = transformers.DynamicCache(config=model.config)
    with torch.inference_mode():
        ids = torch.tensor(asked)
        logits = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1]
        began = time.perf_counter()
        for _ in range(TOKENS):
            ids = logits.argmax(-1, keepdim=True)
            logits = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[:, -1]
        return len(asked) * TOKENS / (time.perf_counter() - began)


def _generate(model: Any, asked: list[list[int]], lengths: list[int]) -> float:
    width, most = max(map(len, asked)), max(lengths)
    padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in asked])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in asked])
    began = time.perf_counter()
    with torch.inference_mode():
        made = model.generate(
            padded,
            attention_mask=mask,
            max_new_tokens=most,
            min_new_tokens=most,
            do_sample=False,
            pad_token_id=0,
        )
    assert made.shape[1] == width + most
    return sum(lengths) / (time.perf_counter() - began)


def _stepped(
    engine: TransformersEngine,
    asked: list[list[int]],
    lengths: list[int] | None = None,
    skip_prefill: bool = False,
    arrivals: list[float] | None = None,
) -> float:
    """The engine alone, driven as a Worker's loop does: at most ROWS at once, none before its
    time (seconds from the start)."""
    lengths = lengths or [TOKENS] * len(asked)
    due = (arrivals or [0.0] * len(asked))[::-1]
    waiting = [_sequence(*item) for item in enumerate(zip(asked, lengths, strict=True))][::-1]
    left: dict[int, int] = {}
    began, made = time.perf_counter(), 0
    while waiting or left:
        joining = []
        while waiting and len(left) + len(joining) < ROWS:
            if time.perf_counter() - began < due[-1]:
                break
            due.pop()
            joining.append(waiting.pop())
        if joining:
            left |= {sequence.id: sequence.max_new_tokens for sequence in joining}
            engine.add(joining)
        if not left:
            time.sleep(0.001)  # nobody has come yet
            continue
        outputs = engine.step()
        made += len(outputs)
        if skip_prefill:
            began, made, skip_prefill = time.perf_counter(), 0, False
        ended = []
        for output in outputs:
            assert output.error is None, output.error
            number = output.sequence.id
            left[number] -= 1
            if not left[number]:
                ended.append(output.sequence)
                del left[number]
        if ended:
            engine.remove(ended)
    return made / (time.perf_counter() - began)


def _sequence(number: int, item: tuple[list[int], int]) -> Sequence:
    prompt, tokens = item
    params = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    submit = Submit(number, 0, "", "demo", True, 1, None, [prompt], params)
    return Sequence(number, prompt, len(prompt), params, tokens, submit)


def _engine(folder: Path) -> TransformersEngine:
    engine = create(
        ModelConfig(
            model=Model(name="demo", backend="transformers", path=str(folder)),
            optimization=Optimization(dtype="float32"),
            engine={"prefix_cache_tokens": 0},  # every round computes its prompts
        )
    )
    assert isinstance(engine, TransformersEngine)
    engine.load(lambda done: None)
    return engine


def _served(url: str, texts: list[str], clients: int) -> float:
    return harness.generation_rate(url, harness.bodies(url, "demo", texts, TOKENS), clients)


def _served_by_library(url: str, model: str, texts: list[str], clients: int) -> float:
    """It knows no `ignore_eos`: tokens count as they come. Answers are whole, as its streams do
    not say how many tokens they had."""
    host = url.removeprefix("http://")
    body = {"model": model, "max_tokens": TOKENS, "temperature": 0}
    requests = [
        request_bytes(host, harness.COMPLETIONS, {**body, "prompt": text}) for text in texts
    ]
    return harness.rate_of_groups(url, requests, clients, is_stream=False)


def _toml(folder: Path) -> str:
    return (
        f'[model]\nname = "demo"\nbackend = "transformers"\npath = "{folder}"\n'
        f"[deployment]\nmax_concurrency = {ROWS}\n"
        '[optimization]\ndtype = "float32"\n'
    )


@contextmanager
def _library_server(folder: Path) -> Iterator[str]:
    """`transformers serve` with its defaults; raises RuntimeError when it does not come up."""
    port = free_port()
    program = str(Path(sys.executable).with_name("transformers"))
    flags = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    command = [program, "serve", str(folder), *flags]
    server = Contestant(command, port, {"HF_HUB_OFFLINE": "1"})
    try:
        server.wait(lambda: get(server.url, "/health")[0] == 200, _START_S)
        yield server.url
    finally:
        server.stop()


if __name__ == "__main__":
    print(run())
