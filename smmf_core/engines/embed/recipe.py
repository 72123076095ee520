"""How a folder's model makes a vector of a text: what sentence-transformers' files say of it.

Owns those files' names and forms, and the defaults without them; must not load weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""In the order in which several are concatenated."""
_OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_LENGTH_FILES = "sentence_*_config.json"  # sentence_bert_config.json, and older names


@dataclass(slots=True)
class Dense:
    """A linear layer after the pooling; its weights lie in `folder`."""

    folder: Path
    inputs: int
    outputs: int
    has_bias: bool
    activation: str  # dotted name of a torch.nn class; "": none


@dataclass(slots=True)
class Recipe:
    folder: Path  # of the transformer itself
    max_length: int | None = None
    is_lower_case: bool = False
    pooling: list[str] = field(default_factory=lambda: ["mean"])
    dense: list[Dense] = field(default_factory=list)
    normalize: bool = True
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str = ""


def read_recipe(folder: Path) -> Recipe:
    """`modules.json` and what it names; without it the mean of the tokens, normalised.

    Raises ValueError for what cannot be followed.
    """
    recipe = Recipe(folder)
    modules = _read(folder / "modules.json", list)
    if modules:
        recipe.normalize = False
        for module in modules:
            _add(recipe, folder, str(module.get("type", "")), str(module.get("path", "")))
    _read_prompts(recipe, folder)
    return recipe


def _add(recipe: Recipe, folder: Path, kind: str, path: str) -> None:
    """One step of the pipeline, by the last part of its class's name."""
    name, place = kind.rpartition(".")[2], folder / path
    if name == "Transformer":
        recipe.folder = place
        _read_lengths(recipe, place)
    elif name == "Pooling":
        recipe.pooling = _pooling(_read(place / "config.json", dict))
    elif name == "Dense":
        recipe.dense.append(_dense(place, _read(place / "config.json", dict)))
    elif name == "Normalize":
        recipe.normalize = True
    elif name != "Dropout":  # that one trains only
        raise ValueError(f"modules.json names {kind}: this engine does not have it")


def _read_lengths(recipe: Recipe, folder: Path) -> None:
    for file in sorted(folder.glob(_LENGTH_FILES)):
        config = _read(file, dict)
        recipe.max_length = config.get("max_seq_length") or recipe.max_length
        recipe.is_lower_case = bool(config.get("do_lower_case", False))


def _pooling(config: dict[str, Any]) -> list[str]:
    if config.get("include_prompt") is False:
        raise ValueError("pooling without the prompt's tokens is not supported")
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _OLD_POOLINGS.items() if config.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    unknown = [mode for mode in modes if mode not in POOLINGS]
    if unknown:
        raise ValueError(f"unknown pooling {unknown[0]!r}; there are {', '.join(POOLINGS)}")
    return modes


def _dense(folder: Path, config: dict[str, Any]) -> Dense:
    activation = str(config.get("activation_function") or "torch.nn.modules.activation.Tanh")
    if not activation.startswith("torch.nn."):
        raise ValueError(f"{folder.name}: the activation {activation} is not torch's")
    if config.get("use_residual"):
        raise ValueError(f"{folder.name}: residual dense layers are not supported")
    inputs, outputs = int(config["in_features"]), int(config["out_features"])
    return Dense(folder, inputs, outputs, bool(config.get("bias", True)), activation)


def _read_prompts(recipe: Recipe, folder: Path) -> None:
    config = _read(folder / "config_sentence_transformers.json", dict)
    prompts = config.get("prompts") or {}
    recipe.prompts = {str(name): str(prompt or "") for name, prompt in prompts.items()}
    recipe.default_prompt = config.get("default_prompt_name") or ""


def _read(file: Path, kind: type) -> Any:
    """The JSON of a file, or nothing of that kind when there is no file."""
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return kind()
    found = json.loads(text)
    if not isinstance(found, kind):
        raise ValueError(f"{file.name} does not hold a JSON {kind.__name__}")
    return found
