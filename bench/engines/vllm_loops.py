"""Run by an interpreter that has vLLM: `LLM.generate`, or SMMF's engine stepped by hand.

Reads one JSON list of prompts (token ids) a line, answers with tokens per second; the first line
that it writes is how long the load took. Owns the two loops; must not measure through HTTP.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from smmf_core.config import Model, ModelConfig
from smmf_core.config.schema import Optimization
from smmf_core.engines.base import Sequence
from smmf_core.engines.vllm.engine import create
from smmf_core.messages import Sampling, Submit

Rate = Callable[[list[list[int]]], float]


def open_generate(folder: Path, tokens: int, options: dict[str, object]) -> Rate:
    """vLLM's own offline interface, its core in this process too."""
    import os

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM, SamplingParams

    llm = LLM(model=str(folder), dtype="float32", **options)
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)

    def rate(prompts: list[list[int]]) -> float:
        asked = [{"prompt_token_ids": ids} for ids in prompts]
        began = time.perf_counter()
        answers = llm.generate(asked, params, use_tqdm=False)
        elapsed_s = time.perf_counter() - began
        return sum(len(answer.outputs[0].token_ids) for answer in answers) / elapsed_s

    return rate


def open_stepped(folder: Path, tokens: int, options: dict[str, object]) -> Rate:
    """The engine as a Worker's loop drives it, without the Worker."""
    model = Model(name="demo", backend="vllm", path=str(folder))
    engine = create(ModelConfig(model, optimization=Optimization(dtype="float32"), engine=options))
    engine.load(lambda done: None)

    def rate(prompts: list[list[int]]) -> float:
        began = time.perf_counter()
        rest = dict.fromkeys(range(len(prompts)), tokens)
        engine.add([_sequence(n, ids, tokens) for n, ids in enumerate(prompts)])
        while rest:
            for output in engine.step():
                assert output.error is None, output.error
                rest[output.sequence.id] -= 1
                if not rest[output.sequence.id]:
                    del rest[output.sequence.id]
                    engine.remove([output.sequence])
        return len(prompts) * tokens / (time.perf_counter() - began)

    return rate


def _sequence(number: int, prompt: list[int], tokens: int) -> Sequence:
    params = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    submit = Submit(number, 0, "", "demo", True, 1, None, [prompt], params)
    return Sequence(number, prompt, len(prompt), params, tokens, submit)


def main() -> None:
    kind, folder, tokens, options = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # vLLM writes to both
    began = time.perf_counter()
    opened = {"generate": open_generate, "stepped": open_stepped}[kind]
    rate = opened(Path(folder), int(tokens), json.loads(options))
    print(time.perf_counter() - began, file=answers, flush=True)
    for line in sys.stdin:
        print(rate(json.loads(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
