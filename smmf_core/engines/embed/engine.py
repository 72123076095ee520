"""The embedding and rerank engine on torch: encoders of transformers and sentence-transformers.

Owns the model and the order of a step: pad, compute, pool. Must not batch: its Worker does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import EmbedOptions
from smmf_core.engines.base import EmbedSpec, Text
from smmf_core.engines.embed.load import context_length, load_model, load_tokenizer
from smmf_core.engines.embed.pool import Head, activation
from smmf_core.engines.embed.recipe import Recipe, read_recipe
from smmf_core.engines.embed.text import TextReader
from smmf_core.engines.host_memory import is_out_of_memory
from smmf_core.engines.transformers.passes import raise_if_dead
from smmf_core.engines.transformers.place import choose_device

_CPU_BUCKET = 16  # tokens: a step's fixed cost there is that of few
_GPU_BUCKET = 128  # a GPU computes many at once: full steps are worth their padding


class EmbedModel:
    """An EmbedEngine. The task says what `encode` gives: vectors, or scores of pairs."""

    spec: EmbedSpec

    def __init__(self, config: ModelConfig, options: EmbedOptions) -> None:
        self._config = config
        self._options = options
        self._counts = dict.fromkeys(
            ("texts_total", "text_tokens_total", "padding_tokens_total"), 0
        )

    def load(self, progress: Callable[[float], None]) -> None:
        """Raises ValueError or OSError with what is wrong with the folder."""
        options, config = self._options, self._config
        if options.threads:
            torch.set_num_threads(options.threads)
        self._device = choose_device(config.deployment.device)
        recipe = self._recipe()
        progress(0.1)
        model = self._model = load_model(recipe.folder, config, options, self._device)
        progress(0.9)
        tokenizer = load_tokenizer(recipe.folder, options)
        self._takes_types = "token_type_ids" in tokenizer.model_input_names
        self._pad = tokenizer.pad_token_id or 0
        length = context_length(model, tokenizer, options.max_model_len, recipe.max_length)
        self._reader = TextReader(tokenizer, length, recipe.is_lower_case)
        self._finish = self._scores(model) if self._is_rerank else self._vectors(recipe)
        self.spec = EmbedSpec(
            context_length=length,
            vocab_size=model.get_input_embeddings().num_embeddings,
            dimensions=self._dimensions,
            bucket_tokens=_CPU_BUCKET if self._device.type == "cpu" else _GPU_BUCKET,
            prompts=recipe.prompts,
            default_prompt=recipe.default_prompt,
            device=str(self._device),
            capabilities=[config.model.task],
            tokenizer=self._reader,
        )
        self._set_matryoshka(model.config)
        self._warm_up()

    def tokenize(
        self, texts: list[str | list[int]], query: str | None, max_tokens: int
    ) -> list[Text]:
        return self._reader.read(texts, query, max_tokens)

    def encode(self, texts: list[Text]) -> NDArray[np.float32]:
        try:
            with torch.inference_mode():
                rows = self._finish(*self._forward(texts))
                return np.asarray(rows.to("cpu", torch.float32).numpy())
        except Exception as error:
            raise_if_dead(error)
            if is_out_of_memory(error) and self._device.type == "cuda":
                torch.cuda.empty_cache()
            raise

    def metrics(self) -> dict[str, float]:
        return {**self._counts}

    def close(self) -> None:
        """The process ends with it."""

    # --- inside ---

    @property
    def _is_rerank(self) -> bool:
        return self._config.model.task == "rerank"

    def _recipe(self) -> Recipe:
        options, folder = self._options, Path(self._config.model.path)
        recipe = Recipe(folder) if self._is_rerank else read_recipe(folder)
        if options.pooling:
            recipe.pooling = [options.pooling]
        if options.normalize is not None:
            recipe.normalize = options.normalize
        return recipe

    def _vectors(self, recipe: Recipe) -> Callable[[Any, torch.Tensor], torch.Tensor]:
        head = Head(recipe, self._device, self._model.dtype)
        self._dimensions = head.dimensions(self._model.config.hidden_size)
        return lambda output, mask: head(output.last_hidden_state, mask)

    def _scores(self, model: Any) -> Callable[[Any, torch.Tensor], torch.Tensor]:
        """The activation that the checkpoint names for sentence-transformers, else the sigmoid."""
        config = model.config
        if config.num_labels != 1:
            raise ValueError(f"this model gives {config.num_labels} labels; a reranker gives one")
        said = getattr(config, "sentence_transformers", None) or {}
        name = said.get("activation_fn")
        name = name or getattr(config, "sbert_ce_default_activation_function", None)
        squash = activation(name or "torch.nn.modules.activation.Sigmoid")
        self._dimensions = 1
        return lambda output, mask: squash(output.logits.float())

    def _set_matryoshka(self, config: Any) -> None:
        """transformers configs carry both keys, as vLLM reads them."""
        lengths = self._options.matryoshka_dimensions
        lengths = lengths or getattr(config, "matryoshka_dimensions", None) or []
        self.spec.matryoshka = [*lengths]
        self.spec.is_matryoshka = bool(lengths) or bool(getattr(config, "is_matryoshka", False))

    def _forward(self, texts: list[Text]) -> tuple[Any, torch.Tensor]:
        lengths = np.array([len(text.ids) for text in texts])
        longest = int(lengths.max())
        ids = np.full((len(texts), longest), self._pad, np.int64)
        types = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text.ids)] = text.ids
            if text.second_at:
                types[row, text.second_at : len(text.ids)] = 1
        self._counts["texts_total"] += len(texts)
        self._counts["text_tokens_total"] += int(lengths.sum())
        self._counts["padding_tokens_total"] += ids.size - int(lengths.sum())
        mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
        given = {"input_ids": ids, "attention_mask": mask}
        if self._takes_types:
            given["token_type_ids"] = types
        tensors = {k: torch.from_numpy(v).to(self._device) for k, v in given.items()}
        return self._model(**tensors), tensors["attention_mask"]

    def _warm_up(self) -> None:
        """The first pass is slow, and shows what a broken checkpoint would do to requests."""
        rows = self.encode(self.tokenize(["warm up"], "query" if self._is_rerank else None, 0))
        if not np.isfinite(rows).all():
            raise ValueError("the model computes what is not a number")


def create(config: ModelConfig) -> EmbedModel:
    """Raises ValueError for an unknown key in `[engine]`."""
    try:
        options = msgspec.convert(config.engine, EmbedOptions)
    except msgspec.ValidationError as error:
        raise ValueError(f"[engine]: {error}") from None
    return EmbedModel(config, options)
