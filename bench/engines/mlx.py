"""MLX: what the engine and the server around it leave of mlx-lm's own `batch_generate`.

Rounds are taken in turn, so that a change of the machine's load meets all three alike; the best
round counts. Weights are the demo model's, in the format of its checkpoint.
"""

from __future__ import annotations

import time
from typing import Any

from bench.engines import harness
from smmf_core.config import Model, ModelConfig, bundled
from smmf_core.engines.mlx.engine import (  # before mlx_lm: see engines/mlx/first_import.py
    create,
)

import mlx_lm  # isort: skip

TOKENS = 128  # of an answer
WORDS = 16  # of a prompt


def run() -> dict[str, Any]:
    """Tokens per second at 1, 8 and 32 requests, and each as a ratio to `batch_generate`."""
    folder = bundled("demo")
    model, tokenizer, *_ = mlx_lm.load(str(folder))
    tokenizer.eos_token_ids = []  # answers have the length that was asked for
    config = ModelConfig(model=Model(name="demo", backend="mlx", path=str(folder)))
    engine = create(config)
    engine.load(lambda done: None)
    toml = f'[model]\nname = "demo"\nbackend = "mlx"\npath = "{folder}"\n'
    toml += "[deployment]\nmax_concurrency = 64\n"
    figures: dict[str, Any] = {"mlx_lm": mlx_lm.__version__, "tokens": TOKENS, "requests": {}}
    with harness.served("mlx", toml) as server:
        figures["ready_s"] = round(server.ready_s, 2)
        for count in harness.CLIENTS:
            best: dict[str, float] = {}
            for number in range(harness.ROUNDS):
                texts = harness.prompts(count, WORDS, seed=100 * count + number)
                ids = [tokenizer.encode(text) for text in texts[:count]]
                asked = harness.bodies(server.url, "demo", texts, TOKENS)
                rates = {
                    "batch_generate": _batch_generate(model, tokenizer, ids),
                    "engine": harness.stepped_rate(engine, ids, TOKENS),
                    "served": harness.generation_rate(server.url, asked, count),
                }
                harness.keep_best(best, rates)
            figures["requests"][str(count)] = {
                **{name: round(rate) for name, rate in best.items()},
                "engine_ratio": round(best["engine"] / best["batch_generate"], 3),
                "served_ratio": round(best["served"] / best["batch_generate"], 3),
            }
    engine.close()
    return figures


def _batch_generate(model: Any, tokenizer: Any, prompts: list[list[int]]) -> float:
    began = time.perf_counter()
    answer = mlx_lm.batch_generate(
        model, tokenizer, prompts, max_tokens=TOKENS, return_token_ids=True
    )
    elapsed_s = time.perf_counter() - began
    assert [len(ids) for ids in answer.token_ids] == [TOKENS] * len(prompts)
    return len(prompts) * TOKENS / elapsed_s


if __name__ == "__main__":
    print(run())
