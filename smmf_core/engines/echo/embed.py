"""The echo engine of embedding and rerank models: vectors and scores from the words of a text.

It tests and measures the framework without a model. A word is a direction drawn from its hash; a
text is the sum of its words, so texts that share words are near. Must not depend on anything else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

import msgspec
import numpy as np
from numpy.typing import NDArray

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import EchoEmbedOptions
from smmf_core.engines.base import EmbedSpec, Text, Tokenizer

Vector = NDArray[np.float32]


class EchoEmbedEngine:
    """An EmbedEngine without a model. A step takes `step_ms`."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer) -> None:
        settings = msgspec.convert(config.engine, EchoEmbedOptions)
        is_rerank = config.model.task == "rerank"
        self.spec = EmbedSpec(
            context_length=settings.max_model_len,
            vocab_size=tokenizer.vocab_size,
            dimensions=1 if is_rerank else settings.dimensions,
            is_matryoshka=settings.matryoshka and not is_rerank,
            capabilities=[config.model.task],
            warms_up=False,
            tokenizer=tokenizer,
        )
        self._settings = settings
        self._tokenizer = tokenizer

    def load(self, progress: Callable[[float], None]) -> None:
        progress(0.0)
        time.sleep(self._settings.load_s)

    def tokenize(
        self, texts: list[str | list[int]], query: str | None, max_tokens: int
    ) -> list[Text]:
        encode = self._tokenizer.encode
        before = encode(query, True) if query is not None else []
        room = max(0, self.spec.context_length - len(before))
        end = min(max_tokens, room) if max_tokens else None
        found = [encode(text, True) if isinstance(text, str) else text for text in texts]
        return [Text(before + ids[:end], len(before)) for ids in found]

    def encode(self, texts: list[Text]) -> Vector:
        time.sleep(self._settings.step_ms / 1000)
        if self.spec.capabilities == ["rerank"]:
            return np.array([[self._score(text)] for text in texts], np.float32)
        return np.stack([self._vector(text.ids) for text in texts])

    def close(self) -> None:
        """Nothing is held."""

    def _score(self, text: Text) -> float:
        """The cosine of query and document, from 0 to 1."""
        at = text.second_at
        return float((1 + self._vector(text.ids[:at]) @ self._vector(text.ids[at:])) / 2)

    def _vector(self, ids: list[int]) -> Vector:
        text = b"".join(map(self._tokenizer.token_bytes, ids)).decode("utf-8", "replace")
        words = text.lower().split() or [""]
        total = np.sum([_direction(word, self._settings.dimensions) for word in words], axis=0)
        return np.asarray(total / np.linalg.norm(total), np.float32)


@lru_cache(maxsize=4096)
def _direction(word: str, dimensions: int) -> Vector:
    seed = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
    return np.random.default_rng(seed).standard_normal(dimensions, np.float32)
