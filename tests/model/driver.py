"""Runs the reference engine by hand: sequences in, tokens out, as a Worker's loop would."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from smmf_core.config import Model, ModelConfig
from smmf_core.config.engine_options import ReferenceOptions
from smmf_core.engines.base import Output, Sequence
from smmf_core.engines.reference.engine import ReferenceEngine
from smmf_core.messages import Sampling, Submit


def open_engine(folder: Path, max_model_len: int = 0) -> ReferenceEngine:
    model = Model(name="m", backend="reference", path=str(folder))
    engine = ReferenceEngine(ModelConfig(model), ReferenceOptions(max_model_len))
    engine.load(lambda done: None)
    return engine


def make_sequence(
    number: int, prompt: list[int], tokens: int = 16, emitted: Iterable[int] = (), **params: Any
) -> Sequence:
    """Sequence `number`, which shall end up with `tokens` tokens, `emitted` ones included."""
    emitted = list(emitted)
    logprobs = params.pop("prompt_logprobs", None)
    sampling = Sampling(**params)
    submit = Submit(number, 0, "r", "m", True, 1, None, [prompt], sampling)
    return Sequence(
        id=number,
        prompt=prompt + emitted,
        prompt_len=len(prompt),
        params=sampling,
        max_new_tokens=tokens - len(emitted),
        submit=submit,
        prompt_logprobs=logprobs,
    )


class Run:
    """Drives an engine; sequences may join before any step."""

    def __init__(self, engine: ReferenceEngine) -> None:
        self.engine = engine
        self.outputs: dict[int, list[Output]] = {}
        self._open: dict[int, Sequence] = {}

    def join(self, *sequences: Sequence) -> None:
        for sequence in sequences:
            self._open[sequence.id] = sequence
            self.outputs[sequence.id] = []
        self.engine.add(list(sequences))

    def step(self) -> None:
        for output in self.engine.step():
            sequence = output.sequence
            self.outputs[sequence.id].append(output)
            ended = len(self.outputs[sequence.id]) == sequence.max_new_tokens
            if ended or output.error is not None:
                self.leave(sequence.id)

    def leave(self, number: int) -> None:
        self.engine.remove([self._open.pop(number)])

    def finish(self) -> None:
        while self._open:
            self.step()

    def tokens(self, number: int) -> list[int]:
        return [output.token for output in self.outputs[number]]
