"""The llama.cpp engine of embedding and rerank models: one llama_decode for many texts.

Owns which texts share a decode and what becomes of the result; must not batch requests: its Worker
does. llama.cpp pools as the file's metadata say, and knows no token types: the second part of a
pair is told from the first by its separators only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import LlamaCppOptions
from smmf_core.engines.base import EmbedSpec, Text
from smmf_core.engines.llama_cpp import api
from smmf_core.engines.llama_cpp.gguf_text import GgufEncoder
from smmf_core.engines.llama_cpp.load import (
    GPU,
    check_file,
    model_settings,
    thread_settings,
    uses_gpu,
)
from smmf_core.errors import ApiError

_SOFT_MAX = ("qwen3", "qwen3moe", "qwen3vl")  # their rerankers give a probability, no logit


class LlamaCppEmbedEngine:
    """An EmbedEngine on a GGUF file. The task says what `encode` gives: vectors or scores."""

    spec: EmbedSpec

    def __init__(self, config: ModelConfig, options: LlamaCppOptions) -> None:
        self._config = config
        self._options = options
        self._model: api.Model
        self._context: api.Context

    def load(self, progress: Callable[[float], None]) -> None:
        """Raises OSError or ValueError, in one sentence."""
        config, options = self._config, self._options
        file = check_file(config)
        on_gpu = uses_gpu(config, options)
        model = self._model = api.Model(
            file.path, model_settings(config, options, on_gpu), progress
        )
        length = min(options.n_ctx or model.trained_context, model.trained_context)
        size = max(options.n_batch, length)
        self._most_texts = min(config.optimization.max_batch_size, api.max_sequences())
        self._context = api.Context(
            model,
            {
                "n_ctx": size,
                "n_seq_max": self._most_texts,
                "n_batch": size,
                "n_ubatch": size,  # pooling sees one physical batch at a time
                **thread_settings(config, options, file),
                "flash_attn_type": api.FLASH_ATTENTION[options.flash_attn],
                "kv_unified": True,
                "embeddings": True,
            },
        )
        self._check_pooling(file.path.name)
        self._gives_logits = file.architecture not in _SOFT_MAX
        self._template = model.chat_template("rerank")
        self.spec = EmbedSpec(
            context_length=length,
            vocab_size=model.vocab_size,
            dimensions=1 if self._is_rerank else model.output_width,
            device=GPU if on_gpu else "cpu",
            capabilities=[config.model.task],
            tokenizer=GgufEncoder(model),
        )

    def tokenize(
        self, texts: list[str | list[int]], query: str | None, max_tokens: int
    ) -> list[Text]:
        """See EmbedEngine."""
        length = self.spec.context_length
        if query is not None:
            return [self._pair(query, text, max_tokens) for text in texts]
        limit = min(max_tokens, length)
        return [self._single(text, limit) for text in texts]

    def encode(self, texts: list[Text]) -> NDArray[np.float32]:
        """Raises ValueError for texts that llama.cpp cannot compute."""
        rows = [row for group in self._groups(texts) for row in self._compute(group)]
        found = np.stack(rows)
        if not np.isfinite(found).all():
            raise ValueError("the model computed values that are not finite numbers")
        if self._is_rerank:
            if self._gives_logits:
                found = np.asarray(1 / (1 + np.exp(-found)), np.float32)
            return found
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.maximum(norms, np.finfo(np.float32).tiny), np.float32)

    def close(self) -> None:
        self._context.close()
        self._model.close()

    # --- inside ---

    @property
    def _is_rerank(self) -> bool:
        return self._config.model.task == "rerank"

    def _check_pooling(self, name: str) -> None:
        pooling = self._context.pooling
        if self._is_rerank and pooling != api.RANK:
            raise ValueError(f"{name} is no reranker: its pooling type is not 'rank'.")
        if not self._is_rerank and pooling == api.RANK:
            raise ValueError(f"{name} is a reranker: give it task = 'rerank'.")
        if pooling == api.UNPOOLED:
            raise ValueError(f"{name} does not say how its tokens' vectors are pooled.")

    def _single(self, text: str | list[int], limit: int) -> Text:
        """A text that is cut keeps its last token when that is a special one."""
        if not isinstance(text, str):
            return Text(text[:limit] if limit else text)
        ids = self._model.tokenize(text, add_special=True)
        if limit and len(ids) > limit:
            tail = ids[-1:] if self._model.is_control(ids[-1]) else []
            ids = [*ids[: limit - len(tail)], *tail]
        return Text(ids)

    def _pair(self, query: str, text: str | list[int], max_tokens: int) -> Text:
        """The file's own words around a pair, or its special tokens, as llama-server puts them."""
        model = self._model
        if self._template is not None:
            before, _, after = self._template.replace("{query}", query).partition("{document}")
            head, tail = model.tokenize(before, False), model.tokenize(after, False)
        else:
            head, tail = self._separators(model.tokenize(query, False))
        body = model.tokenize(text, False) if isinstance(text, str) else text
        if max_tokens:
            room = self.spec.context_length - len(head) - len(tail)
            if room <= 0:
                words = f"This model's maximum context length is {self.spec.context_length} tokens,"
                text = f"{words} which the query leaves no room in."
                raise ApiError("context_length_exceeded", text, "query")
            body = body[: min(max_tokens, room)]
        return Text([*head, *body, *tail], len(head))

    def _separators(self, query: list[int]) -> tuple[list[int], list[int]]:
        model = self._model
        separator = model.special_token("sep")
        end = model.special_token("eos")
        end = separator if end < 0 else end
        head = [model.special_token("bos")] if model.adds("bos") else []
        ends = [end] if model.adds("eos") else []
        between = [separator] if model.adds("sep") else []
        return [*head, *query, *ends, *between], ends or between

    def _groups(self, texts: list[Text]) -> Iterator[list[Text]]:
        """Texts that fit into one decode."""
        group: list[Text] = []
        tokens = 0
        for text in texts:
            size = len(text.ids)
            if group and (
                tokens + size > self._context.batch_tokens or len(group) == self._most_texts
            ):
                yield group
                group, tokens = [], 0
            group.append(text)
            tokens += size
        if group:
            yield group

    def _compute(self, texts: list[Text]) -> list[NDArray[np.float32]]:
        context = self._context
        context.clear()
        ids = [token for text in texts for token in text.ids]
        if not all(0 < len(text.ids) <= self.spec.context_length for text in texts):
            raise ValueError("a text is empty or longer than the model's context")
        lengths = [len(text.ids) for text in texts]
        count = len(ids)
        context.token[:count] = ids
        context.position[:count] = np.concatenate([np.arange(length) for length in lengths])
        context.slot[:count] = np.repeat(np.arange(len(texts)), lengths)
        context.wanted[:count] = 1
        if code := context.decode(count):
            raise ValueError(f"llama.cpp failed to compute these texts (code {code})")
        width = self.spec.dimensions
        return [context.sequence_vector(number, width) for number in range(len(texts))]
