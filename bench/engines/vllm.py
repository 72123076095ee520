"""vLLM: the engine and the server around it against `LLM.generate` in one process, and against
vLLM's own API server.

Rounds are taken in turn, so that a change of the machine's load meets all alike; the best round
counts. One OpenMP thread each. vLLM's interpreter is SMMF_BENCH_VLLM_PYTHON, else the managed
environment of `smmf engines install vllm`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.engines import harness
from bench.serve.contestants import Contestant, get
from smmf_core.config import bundled
from smmf_core.engines.prompt.text import load_tokenizer
from smmf_core.environments import managed
from smmf_core.loadgen.local import free_port

TOKENS = 128  # of an answer
WORDS = 16  # of a prompt
START_S = 180.0
OPTIONS = {
    "max_model_len": 512,
    "max_num_seqs": 32,
    "enforce_eager": True,
    "kv_cache_memory_bytes": 1 << 30,
}
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def run() -> dict[str, Any]:
    """Tokens per second at 1, 8 and 32 requests, and the ratios of the table of figures."""
    os.environ.update(ENVIRONMENT)  # for all that is started from here
    folder, python = bundled("demo"), find_python()
    tokenizer = load_tokenizer(folder)
    with ExitStack() as stack:
        loops = {kind: Loop(python, kind, folder) for kind in ("generate", "stepped")}
        for loop in loops.values():
            stack.callback(loop.stop)
        ours = stack.enter_context(harness.served("vllm", _toml(python, folder)))
        url, start_s = stack.enter_context(_api_server(python, folder))
        figures: dict[str, Any] = {
            "tokens": TOKENS,
            "ready_s": round(ours.ready_s, 2),
            "api_server_ready_s": round(start_s, 2),
            "load_s": round(loops["stepped"].load_s, 2),
            "generate_load_s": round(loops["generate"].load_s, 2),
            "requests": {},
        }
        for count in harness.CLIENTS:
            best: dict[str, float] = {}
            for number in range(harness.ROUNDS):
                texts = harness.prompts(count, WORDS, seed=100 * count + number)
                ids = [tokenizer.encode(text, True) for text in texts[:count]]
                for _ in range(harness.turns(count)):
                    harness.keep_best(best, {kind: loop.rate(ids) for kind, loop in loops.items()})
                for name, server in (("served", ours.url), ("api_server", url)):
                    asked = harness.bodies(server, "demo", texts, TOKENS)
                    harness.keep_best(best, {name: harness.generation_rate(server, asked, count)})
            figures["requests"][str(count)] = {
                **{name: round(rate) for name, rate in best.items()},
                "engine_ratio": round(best["stepped"] / best["generate"], 3),
                "served_to_generate": round(best["served"] / best["generate"], 3),
                "served_to_api_server": round(best["served"] / best["api_server"], 3),
            }
    return figures


def find_python() -> str:
    """Raises FileNotFoundError when there is no vLLM."""
    given = os.environ.get("SMMF_BENCH_VLLM_PYTHON")
    if given:
        return given
    found = managed.find("vllm")
    if found is None:
        raise FileNotFoundError("vLLM is not installed: smmf engines install vllm")
    return found.python


class Loop:
    """A process that runs one of vllm_loops' loops on demand."""

    def __init__(self, python: str, kind: str, folder: Path) -> None:
        command = [python, "-m", "bench.engines.vllm_loops", kind, str(folder), str(TOKENS)]
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(
            [*command, json.dumps(OPTIONS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        self.load_s = self._read()

    def rate(self, prompts: list[list[int]]) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(prompts) + "\n")
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        self._process.communicate(timeout=60)

    def _read(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended")
        return float(line)


def _toml(python: str, folder: Path) -> str:
    engine = "\n".join(f"{name} = {json.dumps(value)}" for name, value in OPTIONS.items())
    return f"""[model]
name = "demo"
backend = "vllm"
path = "{folder}"
[deployment]
python = "{python}"
max_concurrency = 64
[optimization]
dtype = "float32"
[engine]
{engine}
"""


@contextmanager
def _api_server(python: str, folder: Path) -> Iterator[tuple[str, float]]:
    """vLLM's own server, its core and its worker in processes of their own, as it starts itself."""
    port = free_port()
    flags = [
        *("--model", str(folder), "--served-model-name", "demo", "--dtype", "float32"),
        *("--host", "127.0.0.1", "--port", str(port), "--enforce-eager"),
        *("--max-model-len", str(OPTIONS["max_model_len"])),
        *("--max-num-seqs", str(OPTIONS["max_num_seqs"])),
        *("--kv-cache-memory-bytes", str(OPTIONS["kv_cache_memory_bytes"])),
        "--disable-uvicorn-access-log",
    ]
    began = time.monotonic()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", *flags]
    server = Contestant(command, port, {})
    try:
        server.wait(lambda: get(server.url, "/health")[0] == 200, START_S)
        yield server.url, time.monotonic() - began
    finally:
        server.stop()


if __name__ == "__main__":
    print(json.dumps(run(), indent=1), file=sys.stdout)
