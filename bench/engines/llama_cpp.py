"""llama.cpp: the engine and the server around it against a bare `llama_decode` loop, against
`python -m llama_cpp.server` and against the C++ `llama-server`.

Rounds are taken in turn, so that a change of the machine's load meets all alike; the best round
counts. One thread each: the weights are the demo model's. Two opponents must be told where they
are, and are named when they are not: SMMF_BENCH_LLAMA_CPP_PYTHON, an interpreter that has
`llama-cpp-python[server]`, and SMMF_BENCH_LLAMA_SERVER, built by build_llama_server.sh.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from bench.engines import harness
from bench.serve.contestants import Contestant, get
from configs.demo.export.to_gguf import export
from smmf_core.config import Model, ModelConfig, bundled
from smmf_core.config.schema import Optimization
from smmf_core.engines.llama_cpp.engine import LlamaCppEngine, create
from smmf_core.loadgen.exchange import request_bytes
from smmf_core.loadgen.local import free_port

TOKENS = 128  # of an answer
WORDS = 16  # of a prompt
CONTEXT = 512
BATCH_TOKENS = 2048  # all prompts in one step, as the bare loop has them
KIND = "f16"
PYTHON = os.environ.get("SMMF_BENCH_LLAMA_CPP_PYTHON", "")
SERVER = os.environ.get("SMMF_BENCH_LLAMA_SERVER", "")


def run() -> dict[str, Any]:
    """Tokens per second at 1, 8 and 32 requests, and the ratios of the table of figures."""
    with tempfile.TemporaryDirectory() as folder:
        path = export(bundled("demo"), Path(folder) / "demo.gguf", KIND)
        figures: dict[str, Any] = {"llama_cpp_python": llama_cpp.__version__, "tokens": TOKENS}
        figures["weights"] = KIND
        figures["requests"] = {
            str(count): _compare(path, count, figures) for count in harness.CLIENTS
        }
    return figures


def _compare(path: Path, count: int, figures: dict[str, Any]) -> dict[str, Any]:
    config = ModelConfig(
        model=Model(name="demo", backend="llama_cpp", path=str(path)),
        optimization=Optimization(max_batch_size=count),
        engine={"n_ctx": CONTEXT, "n_batch": BATCH_TOKENS},
    )
    engine = create(config)
    assert isinstance(engine, LlamaCppEngine)
    engine.load(lambda done: None)
    bare = BareLoop(path, count)
    toml = (
        f'[model]\nname = "demo"\nbackend = "llama_cpp"\npath = "{path}"\n'
        f"[deployment]\nmax_concurrency = 64\n[optimization]\nmax_batch_size = {count}\n"
        f"[engine]\nn_ctx = {CONTEXT}\nn_batch = {BATCH_TOKENS}\n"
    )
    best: dict[str, float] = {}
    with harness.served("llama", toml) as server, opponents(path, count) as rates:
        figures["ready_s"] = round(server.ready_s, 2)
        for number in range(harness.ROUNDS):
            texts = harness.prompts(count, WORDS, seed=100 * count + number)
            ids = [engine.spec.tokenizer.encode(text, True) for text in texts[:count]]
            asked = harness.bodies(server.url, "demo", texts, TOKENS)
            for _ in range(harness.turns(count)):
                found = {
                    "bare_loop": bare.rate(ids),
                    "engine": harness.stepped_rate(engine, ids, TOKENS),
                }
                harness.keep_best(best, found)
            found = {
                "served": harness.generation_rate(server.url, asked, count),
                **{name: rate(texts) for name, rate in rates.items()},
            }
            harness.keep_best(best, found)
    engine.close()
    bare.close()
    ratios = {
        "engine_to_bare": best["engine"] / best["bare_loop"],
        **{f"served_to_{name}": best["served"] / best[name] for name in rates},
    }
    return {
        **{name: round(rate) for name, rate in best.items()},
        **{name: round(ratio, 3) for name, ratio in ratios.items()},
    }


class BareLoop:
    """What llama.cpp can do: all prompts in one decode, then one decode a step, the best token."""

    def __init__(self, path: Path, count: int) -> None:
        model = llama_cpp.llama_model_default_params()
        model.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), model)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_seq_max = CONTEXT * count, count
        params.n_batch, params.n_ubatch = BATCH_TOKENS, 512
        params.n_threads = params.n_threads_batch = 1
        params.kv_unified, params.no_perf = False, True
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        self._width = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(2048, 0, 1)

    def rate(self, prompts: list[list[int]]) -> float:
        memory = llama_cpp.llama_get_memory(self._context)
        llama_cpp.llama_memory_clear(memory, True)
        began = time.perf_counter()
        rows = [
            (token, place, number, place == len(prompt) - 1)
            for number, prompt in enumerate(prompts)
            for place, token in enumerate(prompt)
        ]
        best = self._decode(rows, len(prompts))
        for step in range(TOKENS - 1):
            best = self._decode(
                [
                    (int(token), len(prompts[number]) + step, number, True)
                    for number, token in enumerate(best)
                ],
                len(prompts),
            )
        return len(prompts) * TOKENS / (time.perf_counter() - began)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def _decode(self, rows: list[tuple[int, int, int, bool]], wanted: int) -> Any:
        batch = self._batch
        batch.n_tokens = len(rows)
        for row, (token, position, number, is_wanted) in enumerate(rows):
            batch.token[row], batch.pos[row], batch.logits[row] = token, position, is_wanted
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, number
        assert llama_cpp.llama_decode(self._context, batch) == 0
        logits = llama_cpp.llama_get_logits(self._context)
        shape = (wanted, self._width)
        return np.ctypeslib.as_array(
            ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), shape
        ).argmax(1)


@contextmanager
def opponents(path: Path, count: int) -> Iterator[dict[str, Callable[[list[str]], float]]]:
    """The other servers that are here, each with how its rate is taken."""
    started: list[Contestant] = []
    rates: dict[str, Callable[[list[str]], float]] = {}
    try:
        if PYTHON:
            python_server = _python_server(path)
            started.append(python_server)
            rates["llama_cpp_server"] = lambda texts: _whole(python_server.url, texts, count)
        if SERVER:
            cpp_server = _cpp_server(path, count)
            started.append(cpp_server)
            rates["llama_server"] = lambda texts: harness.generation_rate(
                cpp_server.url, harness.bodies(cpp_server.url, "demo", texts, TOKENS), count
            )
        for name, where in (("llama_cpp.server", PYTHON), ("llama-server", SERVER)):
            if not where:
                print(f"  not measured: {name} is not here", file=sys.stderr)
        yield rates
    finally:
        for server in started:
            with suppress(OSError):
                server.stop()


def _python_server(path: Path) -> Contestant:
    port = free_port()
    flags = ["--model", str(path), "--port", str(port), "--n_threads", "1", "--n_ctx", "2048"]
    server = Contestant([PYTHON, "-m", "llama_cpp.server", *flags], port, {})
    server.wait(lambda: get(server.url, "/v1/models")[0] == 200)
    return server


def _cpp_server(path: Path, count: int) -> Contestant:
    port = free_port()
    flags = ["-m", str(path), "--port", str(port), "-t", "1", "-np", str(count)]
    flags += ["-c", str(CONTEXT * count), "--no-kv-unified"]
    server = Contestant([SERVER, *flags], port, {})
    server.wait(lambda: get(server.url, "/health")[0] == 200)
    return server


def _whole(url: str, texts: list[str], clients: int) -> float:
    """Answers that are not streamed: a stream of this server does not say how many tokens it has.
    It knows no `ignore_eos`: tokens count as they come."""
    host = url.removeprefix("http://")
    requests = [
        request_bytes(
            host, harness.COMPLETIONS, {"prompt": text, "max_tokens": TOKENS, "temperature": 0}
        )
        for text in texts
    ]
    return harness.rate_of_groups(url, requests, clients, is_stream=False)


if __name__ == "__main__":
    print(run())
