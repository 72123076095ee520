"""Makes the engine that the configuration names, and loads its model.

Owns what a load that failed is called; must not serve.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any

from smmf_core.config import ModelConfig
from smmf_core.engines.base import EmbedEngine, EmbedSpec, StepEngine, StreamEngine
from smmf_core.engines.host_memory import is_out_of_memory
from smmf_core.errors import CannotStart
from smmf_core.lifecycle import OUT_OF_MEMORY
from smmf_core.plugins import load_backend, why_not_loaded
from smmf_core.worker.control import WorkerControl

Engine = StepEngine | StreamEngine | EmbedEngine

_log = logging.getLogger("smmf.worker")
_ONE_THREAD = ("echo", "reference")  # their results must not depend on the thread count
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_SMALLER = {  # what makes a model take less memory
    "transformers": "[optimization] dtype, load_in_8bit or load_in_4bit",
    "llama_cpp": "[engine] n_ctx or type_k and type_v, or [optimization] max_batch_size",
    "vllm": "[engine] max_model_len, max_num_seqs or gpu_memory_utilization",
    "mlx": "[engine] kv_cache_mb or max_model_len",
}
_ANYWHERE = "[deployment] device, or a smaller model"


def load_engine(config: ModelConfig, control: WorkerControl) -> Engine:
    """Raises whatever a model's files or library may raise."""
    if config.model.backend in _ONE_THREAD:
        for name in _THREAD_VARIABLES:  # before numpy
            os.environ.setdefault(name, "1")
    if config.model.task != "generate":  # before torch; threads that spin between an encoder's
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # steps take the Router's cores
    _log.info("loading %s (%s)", config.model.name, config.model.backend)
    engine: Engine = load_backend(config.model.backend)(config)

    def progress(done: float) -> None:
        control.progress = done
        control.turn(time.monotonic())

    loading = engine.load(progress)
    if loading is not None:
        asyncio.run(loading)
    check_task(engine, config)
    _load_adapters(engine, config, control)
    return engine


def why_not(config: ModelConfig, error: Exception) -> str:
    """One sentence for the operator. Out of memory is told by its beginning."""
    backend = config.model.backend
    if isinstance(error, (ImportError, CannotStart)):
        return why_not_loaded(backend, error)
    text = str(error) or type(error).__name__
    if not is_out_of_memory(error):
        return text
    knobs = _SMALLER.get(backend)
    knob = f"{knobs}; or {_ANYWHERE}" if knobs else _ANYWHERE
    return f"{OUT_OF_MEMORY}: {text.rstrip('.')} (what helps: {knob})"


def check_task(engine: Any, config: ModelConfig) -> None:
    """Raises CannotStart for a backend that only generates."""
    task = config.model.task
    if task != "generate" and not isinstance(engine.spec, EmbedSpec):
        text = f"The backend '{config.model.backend}' serves no models of task '{task}'"
        raise CannotStart(f"{text}: 'transformers' and 'llama_cpp' do.")


def _load_adapters(engine: Any, config: ModelConfig, control: WorkerControl) -> None:
    adapters = config.engine.get("adapters") or {}
    if not adapters:
        return
    set_adapters = getattr(engine, "set_adapters", None)
    if set_adapters is None:
        raise ValueError(f"The {config.model.backend} backend does not take adapters.")
    set_adapters(adapters)
    control.adapters = dict(adapters)
