"""What config.json says of a Llama-family model, checked, and its rotary frequencies.

Pure. Owns the mapping from Hugging Face's names; must not read weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")
_DEFAULT_THETA = 10_000.0


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """Sizes of a model. `inverse_frequencies` [head_size / 2] holds RoPE with its scaling."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    inner_width: int
    vocab_size: int
    norm_epsilon: float
    context_length: int
    is_tied: bool
    inverse_frequencies: NDArray[np.float64]

    @property
    def group(self) -> int:
        """Query heads that share one key/value head."""
        return self.heads // self.kv_heads


def parse_config(config: dict[str, Any]) -> LlamaConfig:
    """Raises ValueError, in one sentence, for what this engine cannot run or what is missing."""
    architecture = (config.get("architectures") or ["none"])[0]
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(
            f"The reference engine does not know architecture {architecture}; it runs {known}."
        )
    if config.get("hidden_act", "silu") != "silu":
        raise ValueError(f"The reference engine does not know hidden_act {config['hidden_act']}.")
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        raise ValueError("The reference engine does not know sliding-window attention.")
    try:
        return _parse_sizes(config)
    except KeyError as error:
        raise ValueError(f"config.json has no {error.args[0]}.") from None


def _parse_sizes(config: dict[str, Any]) -> LlamaConfig:
    heads, width = config["num_attention_heads"], config["hidden_size"]
    kv_heads = config.get("num_key_value_heads") or heads
    if heads % kv_heads:
        raise ValueError(f"{heads} attention heads cannot share {kv_heads} key/value heads.")
    head_size = config.get("head_dim") or width // heads
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    theta = rope.get("rope_theta") or config.get("rope_theta") or _DEFAULT_THETA
    context_length = config["max_position_embeddings"]
    if kind == "linear":  # max_position_embeddings is what the model had before it was stretched
        context_length = int(context_length * rope["factor"])
    return LlamaConfig(
        layers=config["num_hidden_layers"],
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        inner_width=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        norm_epsilon=config.get("rms_norm_eps", 1e-6),
        context_length=context_length,
        is_tied=bool(config.get("tie_word_embeddings", False)),
        inverse_frequencies=_scale(kind, rope, _frequencies(theta, head_size)),
    )


def _frequencies(theta: float, head_size: int) -> NDArray[np.float64]:
    """RoPE (Su et al. 2021): theta^(-2i/d)."""
    exponents = np.arange(0, head_size, 2, dtype=np.float64) / head_size
    return np.power(theta, -exponents)


def _scale(
    kind: str, rope: dict[str, Any], frequencies: NDArray[np.float64]
) -> NDArray[np.float64]:
    if kind == "default":
        return frequencies
    if kind == "linear":
        return frequencies / float(rope["factor"])
    if kind == "llama3":
        return _scale_llama3(rope, frequencies)
    raise ValueError(f"The reference engine does not know rope_type {kind}.")


def _scale_llama3(rope: dict[str, Any], frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Llama 3.1's stretch: waves longer than the old context are slowed by `factor`, short ones
    stay, those between are blended."""
    old_context = float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = old_context * frequencies / (2 * math.pi)  # how often a wave fits the old context
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (kept + (1 - kept) / float(rope["factor"]))
