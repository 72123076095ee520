"""What a load that failed is called."""

from __future__ import annotations

import errno

import pytest

from smmf_core.config import Model, ModelConfig
from smmf_core.engines.host_memory import check_weights_fit, is_out_of_memory
from smmf_core.errors import CannotStart
from smmf_core.plugins import load_backend
from smmf_core.worker.load import check_task, why_not


class OutOfMemoryError(RuntimeError):
    """torch's is called so, and is not to be imported here."""


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


def config(backend: str = "transformers") -> ModelConfig:
    return ModelConfig(model=Model(name="m", backend=backend))


SHORT = [
    MemoryError("The weights need 5.00 GiB, and cpu has 4.00 GiB free."),
    OutOfMemoryError("CUDA: tried to reserve 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    ValueError("llama.cpp cannot load m.gguf: unable to allocate CPU buffer"),
    ValueError("failed to allocate buffer for kv cache"),
    ValueError("vLLM cannot load the model: No available memory for the cache blocks."),
    ValueError(
        "To serve at least one request, (16.00 GiB KV cache is needed, which is larger than the"
        " available KV cache memory (3.10 GiB)."
    ),
    ValueError("Free memory on device cuda:0 is less than desired GPU memory utilization (0.9)."),
    RuntimeError("[metal::malloc] Attempting to allocate 9999 bytes"),
    RuntimeError("std::bad_alloc"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    caused(ValueError("it cannot be loaded"), MemoryError()),
]
OTHER = [
    ValueError("config.json is damaged"),
    FileNotFoundError("out of memory/config.json is missing"),
    KeyError("model"),
]


@pytest.mark.parametrize("error", SHORT, ids=str)
def test_out_of_memory_is_told_by_its_beginning_and_names_a_knob(error: Exception) -> None:
    assert is_out_of_memory(error)
    reason = why_not(config(), error)
    assert reason.startswith("out of memory: ")
    assert "load_in_8bit" in reason
    assert "[deployment] device" in reason


@pytest.mark.parametrize("error", OTHER, ids=str)
def test_other_reasons_are_their_own_words(error: Exception) -> None:
    assert not is_out_of_memory(error)
    assert why_not(config(), error) == str(error)


@pytest.mark.parametrize(
    ("backend", "knob"), [("llama_cpp", "n_ctx"), ("vllm", "max_model_len"), ("mlx", "kv_cache_mb")]
)
def test_the_knob_is_the_backends(backend: str, knob: str) -> None:
    assert knob in why_not(config(backend), MemoryError("no"))
    assert knob not in why_not(config("shout"), MemoryError("no"))


def test_what_is_not_installed_names_its_command() -> None:
    reason = why_not(config("mlx"), ModuleNotFoundError("No module named 'mlx'"))
    assert "smmf engines install mlx" in reason
    assert why_not(config(), CannotStart("no such plug-in")) == "no such plug-in"


def test_an_error_without_words_is_its_kind() -> None:
    assert why_not(config(), ZeroDivisionError()) == "ZeroDivisionError"


def test_weights_are_held_against_what_is_free() -> None:
    check_weights_fit(5.0, 5.0, "cpu")
    with pytest.raises(MemoryError, match=r"need 2.00 GiB, and cpu has 1.50 GiB free"):
        check_weights_fit(2 << 30, 3 << 29, "cpu")


@pytest.mark.parametrize("task", ["embed", "rerank"])
def test_a_backend_that_only_generates_says_so(task: str) -> None:
    plain = ModelConfig(model=Model(name="m", backend="echo"))
    asked = ModelConfig(model=Model(name="m", backend="echo", task=task))  # type: ignore[arg-type]
    make = load_backend("echo")
    check_task(make(plain), plain)
    check_task(make(asked), asked)
    with pytest.raises(CannotStart, match=f"serves no models of task '{task}'"):
        check_task(make(plain), asked)
