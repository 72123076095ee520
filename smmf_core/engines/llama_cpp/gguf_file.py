"""The header of a GGUF file: metadata and where its tensors lie, checked against the file's size.

Owns the reading of the format (ggml's docs/gguf.md, versions 2 and 3); must not read weights.
llama.cpp reports some damaged files and dies of others: it gets only files that pass here.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32  # bytes, where `general.alignment` does not say otherwise
_MAX_DIMENSIONS = 4
_MAX_LAYERS = 1024  # longer arrays belong to vocabularies
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
# ggml's tensor types: (values of a block, bytes of a block)
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip

LEAST_CONTEXT = 2048  # tokens: less is not chosen for want of memory, it is an error
CACHE_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32,
               "q5_0": 22 / 32, "q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32}  # fmt: skip


@dataclass(slots=True)
class GgufFile:
    """What a file says of itself. `values` has of arrays only short ones of numbers."""

    path: Path
    values: dict[str, Any]
    lengths: dict[str, int]  # of all arrays
    tensor_bytes: int
    tensor_names: list[str]

    @property
    def architecture(self) -> str:
        return str(self.values.get("general.architecture", ""))

    def size(self, key: str, default: int = 0) -> int:
        """A number of the architecture's own, as `block_count`; of one per layer the largest."""
        value = self.values.get(f"{self.architecture}.{key}", default)
        if isinstance(value, tuple):
            value = max(value, default=default)
        return int(value) if isinstance(value, (int, float)) else default

    def cache_bytes(self, type_k: str, type_v: str) -> float:
        """Of one token's keys and values, in those types; 0 where the header does not say."""
        heads = self.size("attention.head_count", 1)
        kv_heads = self.size("attention.head_count_kv", heads) or heads
        head = self.size("embedding_length") // max(1, heads)
        keys = self.size("attention.key_length", head) * CACHE_BYTES[type_k]
        values = self.size("attention.value_length", head) * CACHE_BYTES[type_v]
        return self.size("block_count") * kv_heads * (keys + values)


def find_gguf(path: Path) -> Path:
    """The file itself, or the only model of a folder (the first part of a split one).

    Raises FileNotFoundError, ValueError.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is missing: there is no such GGUF file.")
    files = sorted(path.glob("*.gguf"))
    first = [file for file in files if "-of-" not in file.stem or "-00001-of-" in file.stem]
    if len(first) != 1:
        names = ", ".join(file.name for file in first) or "none"
        raise ValueError(f"{path} should hold exactly one GGUF model; it holds {names}.")
    return first[0]


def read_gguf(path: Path) -> GgufFile:
    """Read a header. Raises OSError, ValueError in one sentence for what is damaged."""
    return _read(path, lambda reader: reader.read())


def _read(path: Path, take: Callable[[_Reader], GgufFile]) -> GgufFile:
    with path.open("rb") as file:
        size = path.stat().st_size
        if size < 24 or file.read(4) != _MAGIC:
            raise ValueError(f"{path} is not a GGUF file.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return take(_Reader(data, path))
            except (struct.error, IndexError, UnicodeDecodeError, OverflowError, KeyError):
                raise ValueError(f"{path} is damaged: its header does not make sense.") from None


def read_sizes(path: Path) -> GgufFile:
    """Like `read_gguf`, but only what stands before the vocabulary: sizes, no tensors. Fast."""
    return _read(path, lambda reader: reader.read_sizes())


def read_parts(path: Path) -> GgufFile:
    """Like `read_gguf`, over all files of a split model."""
    first = read_gguf(path)
    count = first.values.get("split.count", 1)
    if count in (0, 1):
        return first
    for number in range(2, count + 1):
        part = path.with_name(path.name.replace("-00001-of-", f"-{number:05d}-of-"))
        if not part.is_file():
            raise FileNotFoundError(f"{part} is missing: the model has {count} parts.")
        first.tensor_bytes += read_gguf(part).tensor_bytes
    return first


class _Reader:
    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path
        self._at = 4

    def read(self) -> GgufFile:
        tensors, found, lengths = self._metadata("")
        infos = [self._tensor() for _ in range(tensors)]
        alignment = int(found.get("general.alignment", _ALIGNMENT))
        start = -(-self._at // alignment) * alignment
        for name, offset, size in infos:
            if start + offset + size > len(self._data):
                missing = start + offset + size - len(self._data)
                raise ValueError(
                    f"{self._path} is cut off: tensor {name} ends {missing} bytes behind its end."
                )
        names = [name for name, _, _ in infos]
        return GgufFile(self._path, found, lengths, sum(size for _, _, size in infos), names)

    def read_sizes(self) -> GgufFile:
        _, found, lengths = self._metadata("tokenizer.")
        return GgufFile(self._path, found, lengths, 0, [])

    def _metadata(self, stop: str) -> tuple[int, dict[str, Any], dict[str, int]]:
        """(number of tensors, values, lengths of arrays); up to a key that begins with `stop`."""
        version, tensors, values = self._take("IQQ")
        if version not in _VERSIONS:
            raise ValueError(f"{self._path} has GGUF version {version}; known are 2 and 3.")
        if max(tensors, values) > len(self._data):
            raise ValueError(f"{self._path} is damaged: its header does not make sense.")
        found: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        for _ in range(values):
            key = self._string().decode("utf-8")
            if stop and key.startswith(stop):
                break
            (kind,) = self._take("I")
            if kind == _ARRAY:
                lengths[key], found[key] = self._array()
            else:
                found[key] = self._value(kind)
        return tensors, found, lengths

    def _take(self, format_: str) -> tuple[Any, ...]:
        taken = struct.unpack_from(f"<{format_}", self._data, self._at)
        self._at += struct.calcsize(f"<{format_}")
        return taken

    def _string(self) -> bytes:
        (size,) = self._take("Q")
        end = self._at + size
        if end > len(self._data):
            raise IndexError
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string().decode("utf-8", "replace")
        return self._take(_SCALARS[kind])[0]

    def _array(self) -> tuple[int, tuple[Any, ...] | None]:
        """Its length, and its values if they are few numbers."""
        inner, count = self._take("IQ")
        if inner in _SCALARS and count <= _MAX_LAYERS:
            return count, self._take(f"{count}{_SCALARS[inner]}")
        if inner in _SCALARS:
            self._at += count * struct.calcsize(f"<{_SCALARS[inner]}")
        else:
            for _ in range(count):
                self._array() if inner == _ARRAY else self._value(inner)
        if self._at > len(self._data):
            raise IndexError
        return count, None

    def _tensor(self) -> tuple[str, int, int]:
        """(name, offset, bytes); 0 bytes for types that are not known here."""
        name = self._string().decode("utf-8", "replace")
        (dimensions,) = self._take("I")
        if not 0 < dimensions <= _MAX_DIMENSIONS:
            raise IndexError
        shape = self._take(f"{dimensions}Q")
        kind, offset = self._take("IQ")
        values, size = _BLOCKS.get(kind, (1, 0))
        count = 1
        for length in shape:
            count *= length
        return name, offset, count // values * size
