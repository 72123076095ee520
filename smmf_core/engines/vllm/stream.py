"""vLLM as a self-scheduling engine: AsyncLLM, whose core lives in processes of its own.

For tensor, pipeline and data parallelism, or `[engine] in_process = false`. Owns nothing but the
adapters' names; text processing of vLLM's front end is switched off (`detokenize=False`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import StatLoggerBase

from smmf_core.config import ModelConfig
from smmf_core.engines.base import EngineDead, EngineSpec, Output, Sequence
from smmf_core.engines.vllm.args import reason
from smmf_core.engines.vllm.convert import mapped_logprobs, prompt_rows, sampling_params
from smmf_core.engines.vllm.load import check_memory, configure, make_spec, open_adapters
from smmf_core.engines.vllm.refuse import check_sequence, failure, refusal
from smmf_core.engines.vllm.stats import VllmStats
from smmf_core.engines.vllm.vision import engine_prompt


class VllmStreamEngine:
    """A StreamEngine. Adapters are loaded by the core when a sequence first needs them."""

    spec: EngineSpec

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._stats = VllmStats()
        self._loaded: set[int] = set()  # numbers of the adapters that the core has

    async def load(self, progress: Callable[[float], None]) -> None:
        """Raises OSError, ValueError or MemoryError, in one sentence."""
        progress(0.1)
        config = configure(self._config, is_async=True)
        check_memory(config)
        progress(0.3)
        try:  # in a thread: it must not bind itself to this event loop, which ends with the loading
            self._llm = await asyncio.to_thread(self._open, config)
        except Exception as error:  # weights, memory, processes: whatever vLLM meets
            raise ValueError(f"vLLM cannot load the model: {reason(error)}") from error
        self._adapters = open_adapters(config)
        self.spec, self._tool_format = make_spec(
            self._config, config, self._adapters, self._llm.input_processor
        )
        progress(1.0)

    async def generate(self, sequence: Sequence) -> AsyncIterator[Output]:
        await self._unload()
        adapter = None
        try:
            check_sequence(sequence, self.spec)
            adapter = self._adapters.take(sequence.submit.adapter)
            await self._load_adapter(adapter)
            answers = self._llm.generate(
                engine_prompt(sequence),
                sampling_params(sequence, self.spec.tokenizer.eos_ids, self._tool_format),
                str(sequence.id),
                lora_request=adapter,
                priority=-sequence.submit.priority,
            )
            async for answer in answers:
                for output in _outputs(sequence, answer):
                    yield output
        except EngineDeadError as error:
            self._llm.shutdown()  # the core's own processes must not outlive it
            raise EngineDead("vLLM's engine core died.") from error
        except Exception as error:
            cause = error.__cause__
            known = cause if isinstance(cause, Exception) else error
            raise refusal(known, sequence) from error
        finally:
            self._adapters.give_back(adapter)

    def set_adapters(self, adapters: dict[str, str]) -> None:
        """Raises OSError or ValueError; the former set stays then."""
        self._adapters.replace(adapters, self._adapters.plan(adapters))

    def metrics(self) -> dict[str, float]:
        return self._stats.metrics()

    async def close(self) -> None:
        self._llm.shutdown()

    def _open(self, config: Any) -> Any:
        return AsyncLLM.from_vllm_config(
            config,
            stat_loggers=[lambda vllm_config, index: _Recorder(self._stats)],
            disable_log_stats=True,  # vLLM's own loggers: these are in addition to them
        )

    async def _load_adapter(self, adapter: Any) -> None:
        """Apart from the answer: an adapter that fails in a step would end the core."""
        if adapter is None or adapter.lora_int_id in self._loaded:
            return
        try:
            await self._llm.add_lora(adapter)
        except EngineDeadError:
            raise
        except Exception as error:  # its files or its shapes
            raise ValueError(f"vLLM cannot load the adapter: {reason(error)}") from None
        self._loaded.add(adapter.lora_int_id)

    async def _unload(self) -> None:
        for number in self._adapters.unused():
            self._loaded.discard(number)
            await self._llm.remove_lora(number)


class _Recorder(StatLoggerBase):  # type: ignore[misc]  # vllm is not there to be checked
    """Hands what vLLM records to the engine's stats."""

    def __init__(self, stats: VllmStats) -> None:
        self._stats = stats

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        self._stats.note(scheduler_stats, engine_idx)
        if iteration_stats is not None:
            self._stats.note_iteration(iteration_stats)

    def log_engine_initialized(self) -> None:
        """Nothing to say."""


def _outputs(sequence: Sequence, answer: Any) -> list[Output]:
    """The tokens of one delta. Raises RuntimeError when vLLM ended it without an answer."""
    sequence.cached_tokens = min(answer.num_cached_tokens or 0, sequence.prompt_len)
    completion = answer.outputs[0]
    error = failure(completion.finish_reason or "", bool(completion.token_ids))
    if error is not None:
        raise error
    best = sequence.params.logprobs
    outputs = []
    for row, token in enumerate(completion.token_ids):
        output = Output(sequence, token)
        if best is not None:
            output.logprobs = mapped_logprobs(completion.logprobs[row], token, best)
        outputs.append(output)
    if outputs and answer.prompt_logprobs and sequence.prompt_logprobs is not None:
        outputs[0].prompt_logprobs = prompt_rows(
            answer.prompt_logprobs, sequence.prompt[: sequence.prompt_len], sequence.prompt_logprobs
        )
    if outputs and completion.finish_reason == "stop":  # "length" is the Worker's to say
        outputs[-1].ended = True
    return outputs
