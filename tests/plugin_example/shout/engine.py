"""An engine: it answers with the prompt in capitals, a letter a step."""

from __future__ import annotations

import math
from collections.abc import Callable

from smmf_core.adapters import find_adapter
from smmf_core.config import ModelConfig
from smmf_core.engines.base import EngineSpec, Output, Sequence
from smmf_core.engines.prompt.template import ChatTemplate


class ByteTokenizer:
    """A token is a byte."""

    vocab_size = 256
    eos_ids: frozenset[int] = frozenset()

    def encode(self, text: str, add_special: bool) -> list[int]:
        return list(text.encode())

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])

    def is_special(self, token: int) -> bool:
        return False


class ShoutEngine:
    """A StepEngine (smmf_core/engines/base.py): requests join and leave between steps."""

    def __init__(self, config: ModelConfig) -> None:
        model = config.model
        adapter = find_adapter(model.name, model.path, wanted=model.type)
        template = adapter.chat_template()
        self.spec = EngineSpec(
            context_length=4096,
            tokenizer=ByteTokenizer(),
            chat_template=ChatTemplate({"default": template}, {}) if template else None,
            capabilities=["chat", "completion", *adapter.capabilities()],
        )
        self._running: dict[int, Sequence] = {}

    def load(self, progress: Callable[[float], None]) -> None:
        progress(1.0)

    def add(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            sequence.state = len(sequence.prompt) - sequence.prompt_len  # may go on from elsewhere
            self._running[sequence.id] = sequence

    def remove(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            self._running.pop(sequence.id, None)

    def step(self) -> list[Output]:
        outputs = []
        for sequence in self._running.values():
            at = sequence.state
            letter = bytes([sequence.prompt[at]]).upper()[0]
            sequence.state = at + 1
            outputs.append(Output(sequence, letter, ended=at + 1 >= sequence.prompt_len))
        return outputs

    def ready_at(self, now: float) -> float:
        return now if self._running else math.inf

    def close(self) -> None:
        self._running.clear()


def create(config: ModelConfig) -> ShoutEngine:
    return ShoutEngine(config)
