"""What both vLLM engines do around loading: the configuration, and what is known afterwards.

Owns the EngineSpec of a vLLM model; must not run requests.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import vllm
from vllm.platforms import current_platform

from smmf_core.config import ModelConfig
from smmf_core.engines.base import EngineSpec
from smmf_core.engines.host_memory import free_bytes
from smmf_core.engines.prompt.side import load_prompt_side
from smmf_core.engines.transformers.files import stored_tensors, weight_files
from smmf_core.engines.transformers.memory import check_fits, needed_bytes
from smmf_core.engines.transformers.place import use_threads
from smmf_core.engines.vllm.adapters import VllmAdapters
from smmf_core.engines.vllm.args import (
    check_device,
    check_version,
    computes_here,
    engine_arguments,
    make_config,
    model_folder,
)
from smmf_core.engines.vllm.form import check_form
from smmf_core.engines.vllm.kernels import prefer_c_kernels
from smmf_core.engines.vllm.vision import cache_arguments, open_vision
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

_BITS = {"bitsandbytes": 4, "fp8": 8}  # of a matrix's numbers, quantised while it is loaded


def configure(config: ModelConfig, is_async: bool) -> Any:
    """vLLM's configuration. Raises OSError or ValueError in one sentence."""
    check_version(vllm.__version__)
    check_device(config.deployment.device, current_platform.device_type)
    is_cpu = current_platform.is_cpu()
    if is_cpu:
        _limit_threads(config.deployment.replicas)
    arguments = {**engine_arguments(config, is_cpu, free_bytes()), **cache_arguments()}
    if is_cpu and arguments["enforce_eager"] and not is_async and computes_here(arguments):
        arguments = {**prefer_c_kernels(), **arguments}
    return make_config(arguments, is_async)


def _limit_threads(replicas: int) -> None:
    """To this replica's part of the cores but one, as vLLM does where it binds threads to cores:
    threads that wait for each other are slow when a Router takes the core of one of them."""
    if "OMP_NUM_THREADS" not in os.environ:
        on_linux = hasattr(os, "sched_getaffinity")
        cores = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1
        threads = max((cores - 1) // replicas, 1)
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of processes that vLLM starts
        use_threads(threads)


def check_memory(vllm_config: Any) -> None:
    """Raises MemoryError for weights that do not fit where they are to be loaded.

    Not for a GPU of a core that lives elsewhere: asking CUDA here would keep vLLM from forking.
    """
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    is_cpu = current_platform.is_cpu()
    if not is_cpu and parallel.world_size > 1:
        return
    try:
        tensors = stored_tensors(weight_files(Path(model.model)))
    except (OSError, ValueError):  # of another format, or damaged: vLLM says that
        return
    bits = _BITS.get(str(model.quantization), 0)
    check_fits(needed_bytes(tensors, model.dtype, bits), [current_platform.device_type])


def open_adapters(vllm_config: Any) -> VllmAdapters:
    lora = vllm_config.lora_config
    return VllmAdapters(lora.max_lora_rank if lora is not None else 0)


def make_spec(
    config: ModelConfig, vllm_config: Any, adapters: VllmAdapters, inputs: Any
) -> tuple[EngineSpec, str]:
    """The spec, and the format of the model's tool calls. `inputs` is vLLM's InputProcessor. Raises
    OSError or ValueError for a folder whose prompts cannot be made."""
    model = vllm_config.model_config
    side = load_prompt_side(model_folder(config), config)
    has_grammars = not model.skip_tokenizer_init
    tool_format = side.formats.tools
    vision = open_vision(inputs)
    if vision is not None and side.chat_template is not None:
        side.chat_template.image_mark = vision.mark

    def check(submit: Submit) -> None:
        adapters.check(submit.adapter)
        check_form(submit, has_grammars, tool_format)
        _check_logprobs(submit, model.max_logprobs)

    spec = EngineSpec(
        context_length=model.max_model_len,
        tokenizer=side.tokenizer,
        chat_template=side.chat_template,
        device=current_platform.device_type,
        capabilities=[
            *side.capabilities,
            "logprobs",
            *(["structured_output"] if has_grammars else []),
            *(["vision"] if vision is not None else []),
            *(["adapters"] if vllm_config.lora_config is not None else []),
        ],
        check=check,
        max_sequences=vllm_config.scheduler_config.max_num_seqs,
        stop_strings=side.stop_strings,
        tool_format=tool_format,
        reasoning_format=side.formats.thoughts,
        vision=vision,
    )
    return spec, tool_format


def _check_logprobs(submit: Submit, most: int) -> None:
    """`most` -1: the whole vocabulary. Raises ApiError."""
    wanted = submit.sampling.logprobs
    if wanted is not None and 0 <= most < wanted:
        text = f"This model gives at most {most} logprobs per token."
        raise ApiError("integer_above_max_value", text, "top_logprobs")
