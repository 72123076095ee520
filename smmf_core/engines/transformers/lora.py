"""LoRA adapters of a loaded transformers model: loaded and unloaded while it runs, by peft.

Owns which adapters the model holds and which one the next pass computes with; must not generate.
Adapters live inside the model's own layers: the model stays the same object, and when the last one
is gone its layers are what they were.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from smmf_core.engines.prompt.text import read_json

_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


class AdapterSet:
    """The adapters of one model, by name. All calls come between passes."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._paths: dict[str, str] = {}
        self._keys: dict[str, str] = {}  # by name: what peft calls it
        self._loads = 0
        self._chosen = ""

    def __contains__(self, name: str) -> bool:
        return name in self._paths

    def set(self, wanted: dict[str, str], in_use: frozenset[str] = frozenset()) -> None:
        """Load what is new and unload what is gone. What is `in_use` stays; call again later.

        Raises OSError or ValueError, in one sentence, for an adapter that cannot be loaded; the
        others are.
        """
        for name, path in list(self._paths.items()):
            if wanted.get(name) != path and name not in in_use:
                self._unload(name)
        failure: Exception | None = None
        for name, path in wanted.items():
            if name not in self._paths:
                try:
                    self._load(name, path)
                except (OSError, ValueError) as error:
                    failure = failure or error
        if failure is not None:
            raise failure

    def select(self, name: str) -> None:
        """The next passes compute with this adapter; "": with none."""
        if name != self._chosen:
            self._chosen = name
            self._apply_choice()

    def _load(self, name: str, path: str) -> None:
        if find_spec("peft") is None:
            raise ValueError("LoRA adapters need the package peft: run `pip install peft`.")
        import peft

        folder = Path(path).expanduser()
        config = _read_config(name, folder)
        weights = _read_weights(folder)
        self._loads += 1
        key = f"adapter{self._loads}"  # a name may hold what peft takes for a path of modules
        try:
            with warnings.catch_warnings():  # that there are several is meant
                warnings.filterwarnings("ignore", "Already found a `peft_config`")
                peft.inject_adapter_in_model(config, self._model, key)
            result = peft.set_peft_model_state_dict(self._model, weights, key)
            _check_taken(result, key)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            self._drop(key)
            cause = _plain(_cause(error), key)
            raise ValueError(f"The adapter {name} does not fit the model: {cause}") from error
        self._paths[name], self._keys[name] = path, key
        self._apply_choice()

    def _unload(self, name: str) -> None:
        if self._chosen == name:
            self._chosen = ""
        del self._paths[name]
        self._drop(self._keys.pop(name))

    def _drop(self, key: str) -> None:
        for _, layer in _layers(self._model):
            layer.set_adapter([], inference_mode=True)
            layer.delete_adapter(key)
        getattr(self._model, "peft_config", {}).pop(key, None)
        if not self._keys:
            self._restore_layers()
        self._apply_choice()

    def _restore_layers(self) -> None:
        for path, layer in list(_layers(self._model)):
            parent, _, name = path.rpartition(".")
            setattr(self._model.get_submodule(parent), name, layer.get_base_layer())
        if hasattr(self._model, "peft_config"):
            del self._model.peft_config

    def _apply_choice(self) -> None:
        keys = [self._keys[self._chosen]] if self._chosen else []
        for _, layer in _layers(self._model):
            layer.set_adapter(keys, inference_mode=True)
            layer.enable_adapters(enabled=bool(keys))
        self._model.requires_grad_(False)


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The model's layers that adapters are in, by their path."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for path, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield path, module


def _read_config(name: str, folder: Path) -> Any:
    import peft

    if not (folder / _CONFIG).is_file():
        raise FileNotFoundError(f"{folder / _CONFIG} is missing: {name} is no adapter of peft's.")
    kind = read_json(folder / _CONFIG).get("peft_type")
    if kind != "LORA":
        raise ValueError(f"The adapter {name} is of type {kind}: only LoRA is run.")
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # whatever its JSON makes the library raise
        raise ValueError(f"{folder / _CONFIG} cannot be used: {_cause(error)}") from error
    if config.modules_to_save or config.trainable_token_indices:
        raise ValueError(f"The adapter {name} replaces whole modules: merge it into the model.")
    if config.bias != "none":
        raise ValueError(f"The adapter {name} changes biases, too: merge it into the model.")
    config.inference_mode = True
    return config


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    path = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder / _WEIGHTS[0]} is missing: the adapter has no weights.")
    try:
        if path.suffix == ".safetensors":
            weights: dict[str, torch.Tensor] = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {_cause(error)}") from error
    return weights


def _check_taken(result: Any, key: str) -> None:
    """The library passes over tensors that have no place, and fills what is missing."""
    if result.unexpected_keys:
        raise ValueError(f"the model has no place for {_plain(result.unexpected_keys[0], key)}")
    missing = [name for name in result.missing_keys if f".{key}." in name or name.endswith(key)]
    if missing:
        raise ValueError(f"it lacks {_plain(missing[0], key)}")


def _plain(name: str, key: str) -> str:
    return name.replace(f".{key}", "")


def _cause(error: Exception) -> str:
    """The line of a long message that says what was wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("size mismatch")]
    return (said or lines or [type(error).__name__])[0]
