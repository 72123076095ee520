"""llama.cpp's C functions, by ctypes, as a model, a context with its batch, and adapters.

Owns every pointer and the numpy views over llama.cpp's memory; must not decide what is computed.
The library aborts the process on some wrong calls: what is checked here must stay checked.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # an abort would start a debugger
# OpenMP's threads wait busily by default: two of them beside other processes are slower than one.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp as C  # noqa: N812 (after the variables that it reads)

Rows = NDArray[np.float32]

CACHE_TYPES = {
    "f32": C.GGML_TYPE_F32,
    "f16": C.GGML_TYPE_F16,
    "bf16": 30,  # GGML_TYPE_BF16: llama-cpp-python has no name for it
    "q8_0": C.GGML_TYPE_Q8_0,
    "q5_1": C.GGML_TYPE_Q5_1,
    "q5_0": C.GGML_TYPE_Q5_0,
    "q4_1": C.GGML_TYPE_Q4_1,
    "q4_0": C.GGML_TYPE_Q4_0,
    "iq4_nl": C.GGML_TYPE_IQ4_NL,
}
FLASH_ATTENTION = {None: -1, False: 0, True: 1}  # llama_flash_attn_type; -1: auto
SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
NO_ROOM = 1  # llama_decode: no place in the KV cache for this batch
RANK = 4  # LLAMA_POOLING_TYPE_RANK: a reranker's score instead of a vector
UNPOOLED = 0  # LLAMA_POOLING_TYPE_NONE

_log = logging.getLogger("smmf.llama_cpp")
_LEVELS = {2: logging.DEBUG, 3: logging.INFO, 4: logging.WARNING}  # of ggml_log_level
_ERROR, _CONTINUED = 4, 5
_KEPT_ERRORS = 8  # lines
_PIECE_BYTES = 256


class _Log:
    """Takes llama.cpp's log: lines go to logging, one level lower; its errors are remembered."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=_KEPT_ERRORS)
        self._level = 0
        self._callback = C.llama_log_callback(self._on_text)
        C.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _on_text(self, level: int, text: bytes, _: Any) -> None:
        if level != _CONTINUED:
            self._level = level
        line = text.decode("utf-8", "replace").strip()
        if not line:
            return
        if self._level == _ERROR:
            self.errors.append(line)
        _log.log(_LEVELS.get(self._level, logging.DEBUG), "%s", line)

    def take(self) -> str:
        """The errors since the last time, in one line."""
        errors = "; ".join(self.errors)
        self.errors.clear()
        return errors or "llama.cpp gives no reason"


C.llama_backend_init()
LOG = _Log()


class Model:
    """A loaded GGUF file. Raises ValueError with llama.cpp's own words when it cannot load it."""

    def __init__(
        self, path: Path, settings: dict[str, Any], progress: Callable[[float], None]
    ) -> None:
        params = C.llama_model_default_params()
        split = settings.pop("tensor_split", None)
        if split:
            self._split = (ctypes.c_float * C.llama_max_devices())(*split)
            params.tensor_split = self._split
        for name, value in settings.items():
            setattr(params, name, value)

        def report(done: float, _: Any) -> bool:
            progress(done)
            return True

        self._callback = C.llama_progress_callback(report)
        params.progress_callback = self._callback
        LOG.errors.clear()
        self.pointer = C.llama_model_load_from_file(os.fsencode(path), params)
        if not self.pointer:
            raise ValueError(f"llama.cpp cannot load {path}: {LOG.take()}")
        self.vocab = C.llama_model_get_vocab(self.pointer)
        self.vocab_size = int(C.llama_vocab_n_tokens(self.vocab))
        self.trained_context = int(C.llama_model_n_ctx_train(self.pointer))
        self.output_width = int(C.llama_model_n_embd_out(self.pointer))

    def chat_template(self, name: str | None = None) -> str | None:
        text = C.llama_model_chat_template(self.pointer, name.encode() if name else None)
        return text.decode("utf-8", "replace") if text else None

    @property
    def has_encoder(self) -> bool:
        return bool(C.llama_model_has_encoder(self.pointer))

    def close(self) -> None:
        if self.pointer:
            C.llama_model_free(self.pointer)
            self.pointer = None

    # --- the vocabulary ---

    def tokenize(self, text: str, add_special: bool) -> list[int]:
        """Special tokens that stand in the text are recognised."""
        data = text.encode("utf-8", "replace")
        size = len(data) + 8
        while True:
            tokens = (ctypes.c_int32 * size)()
            count = C.llama_tokenize(self.vocab, data, len(data), tokens, size, add_special, True)
            if count >= 0:
                return tokens[:count]
            size = -count

    def piece(self, token: int, special: bool) -> bytes:
        """A token's bytes; b"" for a control token unless `special`."""
        size = _PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = C.llama_token_to_piece(self.vocab, token, buffer, size, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            size = -count

    def is_end(self, token: int) -> bool:
        return bool(C.llama_vocab_is_eog(self.vocab, token))

    def is_control(self, token: int) -> bool:
        return bool(C.llama_vocab_is_control(self.vocab, token))

    def special_token(self, name: str) -> int:
        """The id of `bos`, `eos`, `sep`, `pad` ...; -1 if there is none."""
        return int(getattr(C, f"llama_vocab_{name}")(self.vocab))

    def adds(self, name: str) -> bool:
        """Whether a text gets a `bos`, `eos` or `sep`."""
        return bool(getattr(C, f"llama_vocab_get_add_{name}")(self.vocab))

    def token_text(self, token: int) -> str:
        return bytes(C.llama_vocab_get_text(self.vocab, token)).decode("utf-8", "replace")


class Adapter:
    """A LoRA adapter, loaded for one model. Raises ValueError with llama.cpp's own words."""

    def __init__(self, model: Model, path: Path) -> None:
        LOG.errors.clear()
        self.pointer = C.llama_adapter_lora_init(model.pointer, os.fsencode(path))
        if not self.pointer:
            raise ValueError(f"llama.cpp cannot load the adapter {path}: {LOG.take()}")

    def close(self) -> None:
        C.llama_adapter_lora_free(self.pointer)


class Context:
    """A model's KV cache and the batch of its next decode.

    `token`, `position`, `slot` and `wanted` are views of the batch, [n_batch]: write the first n
    rows, then `decode(n)`. Rows of one sequence stand in the order of their positions; sequence ids
    that rise by one from row to row are computed together.
    """

    def __init__(self, model: Model, settings: dict[str, Any]) -> None:
        params = C.llama_context_default_params()
        params.no_perf = True
        for name, value in settings.items():
            setattr(params, name, value)
        LOG.errors.clear()
        self.pointer = C.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise ValueError(f"llama.cpp cannot make a context: {LOG.take()}")
        self._memory = C.llama_get_memory(self.pointer)
        self._width = model.vocab_size
        self._views: dict[tuple[int, int], Rows] = {}
        self._logits = _function("llama_get_logits", [ctypes.c_void_p], ctypes.c_void_p)
        self.batch_tokens = int(C.llama_n_batch(self.pointer))  # at most the cache's size
        self._make_batch(self.batch_tokens)

    def _make_batch(self, size: int) -> None:
        """A llama_batch over numpy arrays; every row belongs to one sequence."""
        self.token = np.zeros(size, np.int32)
        self.position = np.zeros(size, np.int32)
        self.slot = np.zeros(size, np.int32)
        self.wanted = np.zeros(size, np.int8)
        self._ones = np.ones(size, np.int32)
        self._slots = self.slot.ctypes.data + 4 * np.arange(size, dtype=np.uint64)
        batch = C.llama_batch()
        for name, array in (
            ("token", self.token),
            ("pos", self.position),
            ("n_seq_id", self._ones),
            ("seq_id", self._slots),
            ("logits", self.wanted),
        ):
            kind = dict(C.llama_batch._fields_)[name]
            setattr(batch, name, ctypes.cast(array.ctypes.data, kind))
        self._batch = batch

    def decode(self, rows: int) -> int:
        """Compute the batch's first rows: 0, or llama_decode's code (1: no room, < 0: failed)."""
        self._batch.n_tokens = rows
        return int(C.llama_decode(self.pointer, self._batch))

    def logits(self, rows: int) -> Rows:
        """What the last decode computed for its wanted rows, in their order: a view."""
        address = self._logits(self.pointer)
        view = self._views.get((address, rows))
        if view is None:
            if len(self._views) > 64:
                self._views.clear()
            size = rows * self._width
            buffer = (ctypes.c_float * size).from_address(address)
            view = np.ctypeslib.as_array(buffer).reshape(rows, self._width)
            self._views[address, rows] = view
        return view

    def sequence_vector(self, slot: int, width: int) -> Rows:
        """The pooled vector of a sequence (or its scores) after a decode: a copy."""
        values = C.llama_get_embeddings_seq(self.pointer, slot)
        if not values:
            raise ValueError("llama.cpp computed no embedding for this text.")
        return np.ctypeslib.as_array(values, (width,)).copy()

    @property
    def pooling(self) -> int:
        return int(C.llama_pooling_type(self.pointer))

    # --- the cache ---

    def keep(self, slot: int, length: int) -> int:
        """Drop what a sequence holds from position `length` on; how many positions are left.

        Fewer than asked for where the model's memory cannot be cut (recurrent layers) or no longer
        holds what the next token attends to (a sliding window).
        """
        if self._memory is None:
            return 0
        is_cut = C.llama_memory_seq_rm(self._memory, slot, length, -1)
        if is_cut and length > 0 and C.llama_memory_seq_pos_min(self._memory, slot) == 0:
            return length
        C.llama_memory_seq_rm(self._memory, slot, -1, -1)
        return 0

    def copy(self, source: int, target: int) -> None:
        """Make a sequence hold all that another one holds. (A part would abort the process.)"""
        C.llama_memory_seq_rm(self._memory, target, -1, -1)
        C.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def clear(self) -> None:
        if self._memory is not None:
            C.llama_memory_clear(self._memory, True)

    def use_adapter(self, adapter: Adapter | None) -> None:
        """For all rows of the next decodes."""
        pointers = (C.llama_adapter_lora_p_ctypes * 1)()
        scales = (ctypes.c_float * 1)(1.0)
        if adapter is not None:
            pointers[0] = adapter.pointer
        count = 0 if adapter is None else 1
        if C.llama_set_adapters_lora(self.pointer, pointers, count, scales):
            raise ValueError(f"llama.cpp cannot use the adapter: {LOG.take()}")

    def close(self) -> None:
        self._views.clear()
        if self.pointer:
            C.llama_free(self.pointer)
            self.pointer = None


class Grammar:
    """A GBNF grammar and how far a text has come in it. Raises ValueError for a wrong grammar."""

    def __init__(self, model: Model, text: str) -> None:
        LOG.errors.clear()
        self.pointer = C.llama_sampler_init_grammar(model.vocab, text.encode(), b"root")
        if not self.pointer:
            raise ValueError(f"llama.cpp does not take the grammar: {LOG.take()}")
        self._data = np.zeros(model.vocab_size, np.dtype(C.llama_token_data))
        self._one = np.zeros(1, np.dtype(C.llama_token_data))
        self._ids = np.arange(model.vocab_size, dtype=np.int32)

    def allows(self, token: int) -> bool:
        self._one["id"], self._one["logit"] = token, 0.0
        self._apply(self._one)
        return bool(self._one["logit"][0] == 0.0)

    def mask(self, logits: Rows) -> Rows:
        """A copy of the logits; -inf for tokens that the grammar does not allow next."""
        self._data["id"], self._data["logit"] = self._ids, logits
        self._apply(self._data)
        return np.ascontiguousarray(self._data["logit"])

    def accept(self, token: int) -> None:
        """Go on by a token. Raises ValueError for one that is not allowed (llama.cpp aborts)."""
        if not self.allows(token):
            raise ValueError("the text so far does not follow the response format's grammar")
        C.llama_sampler_accept(self.pointer, token)

    def close(self) -> None:
        if self.pointer:
            C.llama_sampler_free(self.pointer)
            self.pointer = None

    def _apply(self, data: NDArray[Any]) -> None:
        candidates = C.llama_token_data_array()
        candidates.data = ctypes.cast(data.ctypes.data, C.llama_token_data_p)
        candidates.size, candidates.selected, candidates.sorted = len(data), -1, False
        C.llama_sampler_apply(self.pointer, ctypes.byref(candidates))


def supports_gpu() -> bool:
    return bool(C.llama_supports_gpu_offload())


def max_sequences() -> int:
    return int(C.llama_max_parallel_sequences())


def _function(name: str, arguments: list[Any], result: Any) -> Any:
    """A function of the library with types of our own: plain addresses are cheaper."""
    function = C.llama_cpp._lib[name]
    function.argtypes, function.restype = arguments, result
    return function
