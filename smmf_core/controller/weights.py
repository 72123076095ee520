"""How many bytes a model's weights take in memory, by the headers of its files.

Owns the reading of sizes; must not read a weight, import a framework, or fail: a file that makes no
sense counts as it lies on the disk. The format of safetensors:
https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WIDE_FLOATS = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}  # they take the format that is loaded in
_PATTERNS = ("*.safetensors", "*.gguf", "pytorch_model*.bin", "*.bin")  # the first that there is
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
_WHOLE_NAMES = re.compile(r"embed|lm_head|output\.weight$|wte|wpe|norm|bias")  # never quantised
_MAX_HEADER_BYTES = 100_000_000  # the format's own bound


@dataclass(frozen=True, slots=True)
class Format:
    """What weights become while they are loaded; 0: as they are stored."""

    float_bytes: float = 0.0  # of a number that is a wide float
    half_bytes: float = 0.0  # of one that is stored in float16, which some devices compute slowly
    matrix_bits: float = 0.0  # of the numbers of matrices, but for embeddings and the like

    @property
    def is_as_stored(self) -> bool:
        return not (self.float_bytes or self.half_bytes or self.matrix_bits)


def weight_files(path: Path) -> list[Path]:
    """Of a file, all its parts; of a folder, the format that engines take first; [] if none."""
    try:
        if path.is_file():
            found = _SHARD.search(path.name)
            pattern = f"{path.name[: found.start()]}-*-of-{found[1]}.gguf" if found else path.name
            return sorted(path.parent.glob(pattern))
        for pattern in _PATTERNS:
            if files := sorted(path.glob(pattern)):
                return files
    except OSError:
        return []
    return []


def weight_bytes(files: Iterable[Path], wanted: Format) -> int:
    """In memory, once loaded in that format."""
    return math.ceil(sum(_file_bytes(file, wanted) for file in files))


def _file_bytes(file: Path, wanted: Format) -> float:
    try:
        size = file.stat().st_size
        if wanted.is_as_stored or file.suffix != ".safetensors":
            return size
        return sum(_tensor_bytes(*tensor, wanted) for tensor in _tensors(file, size))
    except OSError:
        return 0
    except (ValueError, KeyError, TypeError, AttributeError):
        return size


def _tensors(file: Path, size: int) -> Iterator[tuple[str, str, list[int], int]]:
    """(name, type, shape, stored bytes). Raises ValueError and the like for a damaged header."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError("no whole header")
        header: dict[str, Any] = json.loads(opened.read(length))
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            yield name, entry["dtype"], entry["shape"], end - start


def _tensor_bytes(name: str, dtype: str, shape: list[int], stored: int, wanted: Format) -> float:
    if dtype not in WIDE_FLOATS:
        return stored
    numbers = stored / WIDE_FLOATS[dtype]
    if wanted.matrix_bits and len(shape) == 2 and not _WHOLE_NAMES.search(name):
        return numbers * wanted.matrix_bits / 8
    if wanted.half_bytes and dtype == "F16":
        return numbers * wanted.half_bytes
    return numbers * wanted.float_bytes if wanted.float_bytes else stored
