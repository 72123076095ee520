"""The forward pass of a Llama-family model in numpy, bit for bit the same in any batch.

Owns the weights' layout, the key/value cache and the arithmetic; must not know requests,
sampling or text.

Invariants, on which exact continuation stands:
1. Every matrix product has a fixed shape: rows go through in tiles of ROWS, padded. OpenBLAS
   handles rows in groups, and with other tile sizes (16, on AVX2) a row's sums depend on its place.
2. Attention is per request, over blocks of BLOCK positions; blocks are added up from the first
   to the last, so that blocks behind a token's own position add exact zeros.
3. Other reductions run along one row.
4. BLAS has one thread: OPENBLAS_NUM_THREADS=1 must be set before numpy is imported.
Together: the keys, values and logits of a token depend on the tokens before it alone, not on where
prefill was cut, or on what else ran.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smmf_core.engines.reference.config import LlamaConfig

Array = NDArray[np.float32]

ROWS = 8  # a multiple of the row groups (4 and 8) of OpenBLAS' kernels
BLOCK = 64  # positions; small enough that a short text wastes little


@dataclass(slots=True)
class Layer:
    """Weights of one layer, [in, out]; query, key and value side by side, gate and up as well."""

    attention_norm: Array
    query_key_value: Array
    query_key_value_bias: Array | None
    output: Array
    output_bias: Array | None
    mlp_norm: Array
    gate_up: Array
    gate_up_bias: Array | None
    down: Array
    down_bias: Array | None


@dataclass(slots=True)
class Weights:
    embedding: Array  # [vocabulary, width]
    layers: list[Layer]
    norm: Array
    head: Array  # [width, vocabulary]


class Cache:
    """Keys and values of one sequence. `length` positions are valid; grows by doubling blocks."""

    __slots__ = ("_config", "keys", "length", "values")

    def __init__(self, config: LlamaConfig) -> None:
        self._config = config
        self.length = 0
        self.keys = self._empty(0, (config.head_size, BLOCK))
        self.values = self._empty(0, (BLOCK, config.head_size))

    def reserve(self, length: int) -> None:
        """Make room for `length` positions."""
        needed, have = -(-length // BLOCK), self.keys.shape[1]
        if needed <= have:
            return
        blocks = max(needed, 2 * have)
        for name, old in (("keys", self.keys), ("values", self.values)):
            new = self._empty(blocks, old.shape[3:])
            new[:, :have] = old
            setattr(self, name, new)

    def _empty(self, blocks: int, inner: tuple[int, ...]) -> Array:
        """Zeros, since what a softmax weight of 0 meets must be a number."""
        config = self._config
        return np.zeros((config.layers, blocks, config.kv_heads, *inner), np.float32)


@dataclass(slots=True)
class Chunk:
    """The next tokens of one sequence; of the last `logits` of them, logits are wanted."""

    cache: Cache
    tokens: list[int]
    logits: int


class Llama:
    """The model. `forward` is its only operation."""

    def __init__(self, config: LlamaConfig, weights: Weights, context_length: int) -> None:
        self.config = config
        self._weights = weights
        angles = np.outer(np.arange(context_length), config.inverse_frequencies)
        self._cos = np.cos(angles).astype(np.float32)
        self._sin = np.sin(angles).astype(np.float32)

    def forward(self, chunks: list[Chunk]) -> list[Array]:
        """Advance every chunk's cache by its tokens; returns [logits, vocabulary] per chunk."""
        with np.errstate(over="ignore", invalid="ignore"):  # not a number: told by the sampler
            return self._forward([_Segment(chunk, self.config) for chunk in chunks])

    def _forward(self, segments: list[_Segment]) -> list[Array]:
        config, weights = self.config, self._weights
        tokens: list[int] = []
        positions: list[int] = []
        for segment in segments:
            segment.first_row = len(tokens)
            tokens += segment.chunk.tokens
            positions += range(segment.start, segment.end)
        rows = len(tokens)
        x = _tiles(weights.embedding[tokens])
        cos = self._cos[positions][:, None]
        sin = self._sin[positions][:, None]
        for number, layer in enumerate(weights.layers):
            normed = _norm(x, layer.attention_norm, config.norm_epsilon)
            mixed = _linear(normed, layer.query_key_value, layer.query_key_value_bias)
            heads = mixed.reshape(-1, config.heads + 2 * config.kv_heads, config.head_size)[:rows]
            attended = self._attend(segments, number, heads, cos, sin)
            x += _linear(_tiles(attended.reshape(rows, -1)), layer.output, layer.output_bias)
            normed = _norm(x, layer.mlp_norm, config.norm_epsilon)
            gate_up = _linear(normed, layer.gate_up, layer.gate_up_bias)
            gate, up = gate_up[..., : config.inner_width], gate_up[..., config.inner_width :]
            x += _linear(gate / (1 + np.exp(-gate)) * up, layer.down, layer.down_bias)
        for segment in segments:
            segment.chunk.cache.length = segment.end
        return self._logits(segments, x.reshape(-1, config.width))

    def _attend(
        self, segments: list[_Segment], number: int, heads: Array, cos: Array, sin: Array
    ) -> Array:
        """Attention of one layer: [rows, heads + 2 kv heads, size] -> [rows, heads, size]."""
        config = self.config
        split = config.heads + config.kv_heads
        turned = _rotate(heads[:, :split], cos, sin)
        queries, keys = turned[:, : config.heads], turned[:, config.heads :]
        queries *= np.float32(config.head_size**-0.5)
        values = heads[:, split:]
        attended = np.empty_like(queries)
        for segment in segments:
            rows = slice(segment.first_row, segment.first_row + segment.count)
            segment.store(number, keys[rows], values[rows])
            attended[rows] = segment.attend(number, queries[rows])
        return attended

    def _logits(self, segments: list[_Segment], x: Array) -> list[Array]:
        wanted: list[int] = []
        for segment in segments:
            last = segment.first_row + segment.count
            wanted += range(last - segment.chunk.logits, last)
        if not wanted:
            return [np.empty((0, self.config.vocab_size), np.float32) for _ in segments]
        normed = _norm(_tiles(x[wanted]), self._weights.norm, self.config.norm_epsilon)
        logits = _linear(normed, self._weights.head, None).reshape(-1, self.config.vocab_size)
        parts: list[Array] = []
        at = 0
        for segment in segments:
            parts.append(logits[at : at + segment.chunk.logits])
            at += segment.chunk.logits
        return parts


class _Segment:
    """One chunk in one forward pass: where its rows and positions are, and its attention."""

    __slots__ = (
        "_blocks", "_config", "_hidden", "_padded", "chunk", "count", "end", "first_row", "start",
    )  # fmt: skip

    def __init__(self, chunk: Chunk, config: LlamaConfig) -> None:
        self.chunk = chunk
        self.count = len(chunk.tokens)
        self.start = chunk.cache.length
        self.end = self.start + self.count
        self.first_row = 0
        self._config = config
        self._blocks = -(-self.end // BLOCK)
        self._padded = -(-self.count * config.group // ROWS) * ROWS
        self._hidden = self._mask() if self.count > 1 else None
        chunk.cache.reserve(self.end)

    def store(self, layer: int, keys: Array, values: Array) -> None:
        """Put keys and values [count, kv heads, size] of the chunk's positions into the cache."""
        cache = self.chunk.cache
        if self.count == 1:
            block, place = divmod(self.start, BLOCK)
            cache.keys[layer, block, :, :, place] = keys[0]
            cache.values[layer, block, :, place] = values[0]
            return
        blocks, places = np.divmod(np.arange(self.start, self.end), BLOCK)
        cache.keys[layer][blocks, :, :, places] = keys
        cache.values[layer][blocks, :, places] = values

    def attend(self, layer: int, queries: Array) -> Array:
        """Softmax attention of queries [count, heads, size] over the cache up to each one's own
        position. Arrays are [tiles, blocks, kv heads, ROWS, ...] inside."""
        cache = self.chunk.cache
        scores = self._spread(queries) @ cache.keys[layer, : self._blocks]
        if self._hidden is not None:
            scores += self._hidden
        else:
            scores[:, -1, :, :, (self.end - 1) % BLOCK + 1 :] = -np.inf
        scores -= scores.max(axis=4).max(axis=1)[:, None, :, :, None]
        weights = np.exp(scores, out=scores)
        mixed = weights @ cache.values[layer, : self._blocks]
        total = np.add.reduce(np.add.reduce(weights, axis=4), axis=1)
        return self._gather(np.add.reduce(mixed, axis=1) / total[..., None])

    def _spread(self, queries: Array) -> Array:
        """[count, heads, size] -> [tiles, 1, kv heads, ROWS, size]; the group's heads are rows."""
        config = self._config
        size, filled = config.head_size, self.count * config.group
        spread = np.zeros((config.kv_heads, self._padded, size), np.float32)
        grouped = queries.reshape(self.count, config.kv_heads, config.group, size)
        spread[:, :filled] = grouped.swapaxes(0, 1).reshape(config.kv_heads, filled, size)
        tiled = spread.reshape(config.kv_heads, 1, -1, ROWS, size)
        return np.ascontiguousarray(tiled.transpose(2, 1, 0, 3, 4))

    def _gather(self, mixed: Array) -> Array:
        """The way back: [tiles, kv heads, ROWS, size] -> [count, heads, size]."""
        config = self._config
        rows = mixed.swapaxes(0, 1).reshape(config.kv_heads, self._padded, config.head_size)
        rows = rows[:, : self.count * config.group]
        grouped = rows.reshape(config.kv_heads, self.count, config.group, config.head_size)
        return grouped.swapaxes(0, 1).reshape(self.count, config.heads, config.head_size)

    def _mask(self) -> Array:
        """0 up to a row's own position, -inf behind it: [tiles, blocks, 1, ROWS, BLOCK]."""
        last = np.minimum(np.arange(self._padded) // self._config.group, self.count - 1)
        positions = np.arange(self._blocks * BLOCK).reshape(1, -1, 1, 1, BLOCK)
        is_hidden = positions > (self.start + last).reshape(-1, 1, 1, ROWS, 1)
        return np.where(is_hidden, np.float32(-np.inf), np.float32(0))


def _tiles(rows: Array) -> Array:
    """[rows, width] -> [tiles, ROWS, width], zeros at the end."""
    count, width = rows.shape
    tiled = np.zeros((-(-count // ROWS), ROWS, width), np.float32)
    tiled.reshape(-1, width)[:count] = rows
    return tiled


def _linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """One product per tile: numpy calls BLAS once for each leading index."""
    product: Array = x @ weight
    return product if bias is None else product + bias


def _norm(x: Array, weight: Array, epsilon: float) -> Array:
    """RMSNorm (Zhang and Sennrich 2019)."""
    mean = np.add.reduce(x * x, axis=-1, keepdims=True) / np.float32(x.shape[-1])
    return np.asarray(x / np.sqrt(mean + np.float32(epsilon)) * weight, np.float32)


def _rotate(heads: Array, cos: Array, sin: Array) -> Array:
    """RoPE over [rows, heads, size]: the two halves of a head are the pairs' coordinates."""
    half = heads.shape[-1] // 2
    first, second = heads[..., :half], heads[..., half:]
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
