"""The weights of a Hugging Face model folder as float32 arrays, without an ML framework.

Owns reading safetensors files and their index; must not know an architecture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from smmf_core.engines.prompt.text import read_json

Tensor = NDArray[np.float32]

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64}


def read_weights(folder: Path, progress: Callable[[float], None]) -> dict[str, Tensor]:
    """All tensors by name. Raises FileNotFoundError, or ValueError for a file that is damaged."""
    files = _files(folder)
    tensors: dict[str, Tensor] = {}
    for done, path in enumerate(files):
        tensors.update(_read_file(path))
        progress((done + 1) / len(files))
    return tensors


def _files(folder: Path) -> list[Path]:
    index = read_json(folder / _INDEX).get("weight_map")
    names = sorted(set(index.values())) if index else [_SINGLE]
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: the model has no weights.")
    return [folder / name for name in names]


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        entries = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return {name: _to_float32(entry, f"{path}: {name}") for name, entry in entries}


def _to_float32(entry: dict[str, Any], where: str) -> Tensor:
    dtype, shape, data = entry["dtype"], entry["shape"], entry["data"]
    if dtype == "BF16":  # the upper half of a float32
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        widened: Tensor = wide.view(np.float32).reshape(shape)
        return widened
    if dtype not in _DTYPES:
        raise ValueError(f"{where} is of type {dtype}; this engine reads F16, BF16, F32 and F64.")
    return np.frombuffer(data, _DTYPES[dtype]).astype(np.float32).reshape(shape)
