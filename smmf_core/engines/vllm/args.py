"""What vLLM is started with: its environment, its engine arguments, its errors in one sentence.

Owns the mapping from a model's file to vLLM's own names; must not drive the engine.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from smmf_core.config import ModelConfig
from smmf_core.engines.prompt.text import read_json
from smmf_core.engines.vllm.form import grammar_arguments

# of `[engine]`; all others are vLLM's
OWN_KEYS = ("adapters", "chat_template", "in_process", "reasoning_format", "tool_format")
_PARALLEL = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "prefill_context_parallel_size",
)
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",  # the model is a folder: nothing is to be looked up
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # replicas would bind themselves to the same cores
}
_OLDEST = (0, 19)
_CPU_KV_BYTES = 4 << 30
_VALUE_ERROR = re.compile(r"Value error, (.*?)(?: \[type=|$)", re.DOTALL)
_REASON_CHARACTERS = 400


def runs_in_process(options: Mapping[str, Any]) -> bool:
    """Whether the engine core lives in the Worker itself: `in_process`, else by the parallelism."""
    wanted = options.get("in_process")
    if not isinstance(wanted, bool | None):
        raise ValueError(f"[engine] in_process is true or false, not {wanted!r}.")
    if wanted and options.get("data_parallel_size", 1) != 1:
        raise ValueError("[engine] in_process = true does not go with data_parallel_size.")
    is_single = all(options.get(name, 1) == 1 for name in _PARALLEL)
    return is_single if wanted is None else wanted


def computes_here(arguments: Mapping[str, Any]) -> bool:
    """Whether an in-process core computes in the Worker, too, with kernels of vLLM's choice."""
    is_single = all(arguments.get(name, 1) == 1 for name in _PARALLEL)
    executor = arguments.get("distributed_executor_backend")
    return is_single and executor in (None, "uni") and "kernel_config" not in arguments


def set_environment(
    config: ModelConfig, environment: MutableMapping[str, str] = os.environ
) -> None:
    """Before vllm is imported. What is set already stays, except where the core is to live."""
    for name, value in _ENVIRONMENT.items():
        environment.setdefault(name, value)
    in_process = runs_in_process(config.engine)
    environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if in_process else "1"
    if in_process:  # a request whose logits are NaN fails, and no other; AsyncLLM does not tell
        environment.setdefault("VLLM_COMPUTE_NANS_IN_LOGITS", "1")
    kind, _, number = config.deployment.device.partition(":")
    if kind == "cuda" and number:
        environment.setdefault("CUDA_VISIBLE_DEVICES", number)


def check_version(version: str) -> None:
    """Raises ValueError for a vLLM whose engine core is driven in another way."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise ValueError(f"This is vLLM {version}: the backend needs {oldest} or later.")


def engine_arguments(config: ModelConfig, is_cpu: bool, memory_bytes: int) -> dict[str, Any]:
    """The arguments under vLLM's names. `memory_bytes` is what the machine has free.

    `[engine]` comes first, then `[optimization]`, then what suits the platform. Raises ValueError.
    """
    own = {key: value for key, value in config.engine.items() if key not in OWN_KEYS}
    if "model" in own:
        raise ValueError("[engine] model: the model's folder is [model] path.")
    optimization = config.optimization
    arguments: dict[str, Any] = {
        "model": str(model_folder(config)),
        "dtype": optimization.dtype,
        "max_num_seqs": optimization.max_batch_size,
        "enable_prefix_caching": True,
    }
    if optimization.quantization:
        arguments["quantization"] = optimization.quantization
    if optimization.load_in_4bit:
        arguments["quantization"] = "bitsandbytes"
    if optimization.load_in_8bit:
        text = 'vLLM does not load in 8 bit: try quantization = "fp8" in [optimization].'
        raise ValueError(text)
    if optimization.attention:
        arguments["attention_backend"] = optimization.attention.upper()
    arguments |= _lora_arguments(config.engine.get("adapters") or {})
    if is_cpu:
        arguments |= _cpu_arguments(own, memory_bytes)
    return {**arguments, **own, **grammar_arguments(own)}


def model_folder(config: ModelConfig) -> Path:
    """Raises OSError when it is no folder of a model."""
    folder = Path(config.model.path).expanduser()
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder / 'config.json'} is missing: this is no model folder.")
    return folder


def make_config(arguments: dict[str, Any], is_async: bool) -> Any:
    """vLLM's VllmConfig. Raises ValueError in one sentence."""
    from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs

    kind = AsyncEngineArgs if is_async else EngineArgs
    check_names(arguments, [field.name for field in dataclasses.fields(kind)])
    try:
        return kind(**arguments).create_engine_config()
    except Exception as error:  # pydantic's, vLLM's own, or whatever a wrong type leads to
        raise ValueError(f"vLLM refuses the model or its settings: {reason(error)}") from error


def check_names(arguments: Mapping[str, Any], known: list[str]) -> None:
    """Raises ValueError for a name that vLLM does not have, with the nearest one that it has."""
    names = [name for name in known if not name.startswith("_")]
    for name in arguments:
        if name not in names:
            near = difflib.get_close_matches(name.replace("-", "_"), names, 1)
            hint = f": did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"[engine] {name!r} is no engine argument of this vLLM{hint}")


def check_device(wanted: str, device_type: str) -> None:
    """Raises ValueError when this vLLM is built for another device."""
    kind = wanted.partition(":")[0]
    if not device_type:
        raise ValueError("vLLM finds no device that it can use here.")
    if kind not in ("auto", device_type):
        raise ValueError(f"This vLLM runs on {device_type}, not on {wanted}.")


def reason(error: BaseException) -> str:
    """An error of vLLM in one line: pydantic's frame and what it says about itself left out."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, json.JSONDecodeError):
        text = f"one of its files is damaged ({text})"
    found = _VALUE_ERROR.search(text)
    line = " ".join((found[1] if found else text).split())
    return line if len(line) <= _REASON_CHARACTERS else line[:_REASON_CHARACTERS] + "..."


def adapter_rank(path: str) -> int:
    """The rank of a LoRA adapter's folder. Raises OSError or ValueError in one sentence."""
    file = Path(path).expanduser() / "adapter_config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: this is no LoRA adapter.")
    rank = read_json(file).get("r")
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"{file} names no rank 'r'.")
    return rank


def _lora_arguments(adapters: dict[str, str]) -> dict[str, Any]:
    if not adapters:
        return {}
    rank = max(adapter_rank(path) for path in adapters.values())
    allowed = [size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank]
    largest = {"max_lora_rank": allowed[0]} if allowed else {}
    return {"enable_lora": True, "max_loras": len(adapters), **largest}


def _cpu_arguments(own: Mapping[str, Any], memory_bytes: int) -> dict[str, Any]:
    """Prefill in one piece: the sampler takes back a chunk's random numbers, which the random
    generators of the CPU cannot. No torch.compile: half a minute of start for little.

    Raises ValueError when chunks are asked for."""
    if own.get("enable_chunked_prefill"):
        raise ValueError("[engine] enable_chunked_prefill: vLLM cannot chunk prefill on the CPU.")
    arguments: dict[str, Any] = {"enable_chunked_prefill": False, "enforce_eager": True}
    is_sized = os.environ.get("VLLM_CPU_KVCACHE_SPACE") or "gpu_memory_utilization" in own
    if not is_sized:  # vLLM would take 92 % of the machine
        arguments["kv_cache_memory_bytes"] = min(_CPU_KV_BYTES, memory_bytes // 4)
    return arguments
