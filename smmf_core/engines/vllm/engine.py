"""The vllm backend: which of its two engines a model gets.

Owns the choice; must not import vLLM before its environment variables are set.
"""

from __future__ import annotations

import importlib.util

from smmf_core.config import ModelConfig
from smmf_core.engines.base import StepEngine, StreamEngine
from smmf_core.engines.vllm.args import runs_in_process, set_environment


def create(config: ModelConfig) -> StepEngine | StreamEngine:
    """Raises ImportError without vLLM, ValueError for `[engine] in_process`."""
    if importlib.util.find_spec("vllm") is None:
        raise ModuleNotFoundError("No module named 'vllm'", name="vllm")
    set_environment(config)
    if runs_in_process(config.engine):
        from smmf_core.engines.vllm.step import VllmStepEngine

        return VllmStepEngine(config)
    from smmf_core.engines.vllm.stream import VllmStreamEngine

    return VllmStreamEngine(config)
