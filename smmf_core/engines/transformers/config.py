"""What a model folder's config.json says: which class loads it, and how long a text may be.

Owns what is refused before any weights are read; must not read them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from smmf_core.engines.transformers.legacy import legacy_model

_AUTO_CLASS = "AutoModelForCausalLM"
_CONTEXT_KEYS = (
    "max_position_embeddings", "seq_length", "n_positions", "max_seq_len", "n_ctx",
    "model_max_length",
)  # fmt: skip
_MAX_MESSAGE = 300  # characters
_UNKNOWN_CONTEXT = 2048  # tokens, where config.json does not say


def model_class(folder: Path, raw: dict[str, Any], trusts: bool) -> tuple[Any, Any]:
    """The class that loads a model, by its config.json (`raw`), and its configuration. Raises
    ValueError for a model that generates no text, and for code that is not trusted."""
    legacy = legacy_model(raw)
    if legacy is not None:
        return legacy.model, legacy.config
    return transformers.AutoModelForCausalLM, _read_config(folder, raw, trusts)


def context_length(config: Any) -> int:
    for name in _CONTEXT_KEYS:
        length = getattr(config, name, None)
        if isinstance(length, int) and length > 0:
            return length
    return _UNKNOWN_CONTEXT


def _read_config(folder: Path, raw: dict[str, Any], trusts: bool) -> Any:
    model_type, classes = str(raw.get("model_type")), raw.get("architectures") or []
    own_code = raw.get("auto_map") or {}
    is_known = model_type in transformers.CONFIG_MAPPING
    is_causal = model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if own_code and not trusts and not (is_known and is_causal):
        raise ValueError(
            f"The architecture {classes[0] if classes else model_type} is code in the model's "
            "folder: to run it, set `trust_remote_code = true` in [engine] if you trust it."
        )
    if not is_known and not own_code:
        raise ValueError(
            f"transformers {transformers.__version__} does not know the model type {model_type!r}."
        )
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=trusts, local_files_only=True
        )
    except Exception as error:  # whatever a folder's values or code may raise
        path = folder / "config.json"
        raise ValueError(f"{path} cannot be used: {in_one_line(error)}") from error
    if not (trusts and _AUTO_CLASS in own_code):
        _check_is_causal(model_type, classes)
    return config


def _check_is_causal(model_type: str, classes: list[str]) -> None:
    mapped = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    if mapped is None:
        what = classes[0] if classes else model_type
        raise ValueError(f"{what} is no language model that generates text (no causal LM).")
    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    others = [name for name in classes if hasattr(transformers, name) and name not in causal]
    if others and len(others) == len(classes):
        raise ValueError(f"The weights are those of {others[0]}: {mapped} is needed to generate.")


def in_one_line(error: Exception) -> str:
    """A library's message, which may have many."""
    text = " ".join(str(error).split())
    return (text[:_MAX_MESSAGE] + " ..." if len(text) > _MAX_MESSAGE else text) or repr(error)
