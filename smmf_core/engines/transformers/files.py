"""What lies in a Hugging Face model folder, before a library is asked to load it.

Owns finding the weights and reading the headers of safetensors files; must not read tensors.
The format: https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smmf_core.engines.prompt.text import read_json

_STEMS = ("model.safetensors", "pytorch_model.bin")  # as transformers looks for them
_LENGTH_BYTES = 8  # of the header's length
_MAX_HEADER_BYTES = 100_000_000  # the format's own bound


@dataclass(slots=True)
class Stored:
    """One tensor of a safetensors file."""

    name: str
    shape: tuple[int, ...]
    stored_bytes: int
    is_wide_float: bool  # of 16 bits or more: takes the number format that the model is loaded in

    @property
    def numbers(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


def weight_files(folder: Path) -> list[Path]:
    """Raises FileNotFoundError when the folder is none of a model, or lacks one of its files."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder / 'config.json'} is missing: this is not a model folder.")
    for stem in _STEMS:
        if (folder / stem).is_file():
            return [folder / stem]
        index = folder / f"{stem}.index.json"
        if index.is_file():
            return _shards(index)
    raise FileNotFoundError(
        f"{folder / _STEMS[0]} is missing: the folder has no weights that transformers reads."
    )


def stored_tensors(files: list[Path]) -> list[Stored]:
    """Of all safetensors files. Raises ValueError for a damaged one."""
    found: list[Stored] = []
    for path in files:
        if path.suffix == ".safetensors":
            found += _read_header(path)
    return found


def _shards(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{index} does not say which file holds which tensor.")
    files = [index.parent / name for name in sorted(set(names.values()))]
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: {index.name} names it.")
    return files


def _read_header(path: Path) -> list[Stored]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, _MAX_HEADER_BYTES):
            raise ValueError(f"{path} is damaged: it has no whole header.")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise ValueError(f"{path} is damaged: its header is not JSON.") from None
    try:
        header.pop("__metadata__", None)
        tensors = [_stored(name, entry) for name, entry in header.items()]
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (AttributeError, KeyError, TypeError, IndexError):
        raise ValueError(f"{path} is damaged: its header describes no tensors.") from None
    wanted = _LENGTH_BYTES + length + end
    if size != wanted:
        raise ValueError(f"{path} is damaged: it should have {wanted} bytes and has {size}.")
    return tensors


def _stored(name: str, entry: dict[str, Any]) -> Stored:
    start, end = entry["data_offsets"]
    dtype: str = entry["dtype"]
    is_wide = dtype in ("F16", "BF16", "F32", "F64")
    return Stored(name, tuple(entry["shape"]), end - start, is_wide)
