"""vLLM's engine core inside the Worker: SMMF's sequences in, its scheduler's tokens out.

Owns the running requests; must not tokenise or make text: vLLM's own text processing is left out.

What is driven is `InprocClient`, vLLM's client of a core in the same process: add_request,
abort_requests, get_output. It is the thinnest layer that LLM itself stands on (below it the step
function depends on the scheduling mode), and requests are made by vLLM's InputProcessor, which
checks them.

A sequence that goes on from tokens of another Worker is the same text's continuation, but not bit
for bit: the emitted tokens are a prompt to vLLM (presence and frequency penalties do not see them,
kernels batch them in another way) and random numbers start anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from vllm.v1.engine.core_client import InprocClient
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.executor import Executor

from smmf_core.config import ModelConfig
from smmf_core.engines.base import EngineDead, EngineSpec, Output, Sequence
from smmf_core.engines.vllm import nan as vllm_nan
from smmf_core.engines.vllm.args import reason
from smmf_core.engines.vllm.convert import (
    cached_tokens,
    prompt_logprobs,
    sampling_params,
    token_logprobs,
)
from smmf_core.engines.vllm.load import configure, make_spec, open_adapters
from smmf_core.engines.vllm.refuse import check_sequence, failure, refusal
from smmf_core.engines.vllm.stats import VllmStats

_GRAMMAR_WAIT_S = 0.001  # nothing could be scheduled: a grammar is still being compiled


class VllmStepEngine:
    """A StepEngine. vLLM schedules: the Worker hands over as many sequences as `max_num_seqs`."""

    spec: EngineSpec

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._running: dict[str, tuple[Sequence, Any]] = {}  # by request id; with its adapter
        self._failed: list[Output] = []

    def load(self, progress: Callable[[float], None]) -> None:
        """Raises OSError or ValueError in one sentence."""
        progress(0.1)
        config = configure(self._config, is_async=False)
        progress(0.3)
        try:
            self._client = InprocClient(config, Executor.get_class(config), log_stats=True)
        except Exception as error:  # weights, memory, kernels: whatever vLLM meets
            raise ValueError(f"vLLM cannot load the model: {reason(error)}") from error
        self._core = self._client.engine_core
        self._inputs = InputProcessor(config)
        self._tasks = self._client.get_supported_tasks()
        self._stats = VllmStats()
        self._adapters = open_adapters(config)
        self.spec, self._tool_format = make_spec(self._config, config, self._adapters)
        progress(1.0)

    def add(self, sequences: list[Sequence]) -> None:
        """A sequence that vLLM refuses fails alone, with the next step's outputs."""
        for sequence in sequences:
            adapter = None
            try:
                adapter = self._adapters.take(sequence.submit.adapter)
                self._add(sequence, adapter)
            except Exception as error:  # its parameters, its grammar, its adapter
                self._adapters.give_back(adapter)
                self._failed.append(Output(sequence, 0, error=refusal(error, sequence)))

    def remove(self, sequences: list[Sequence]) -> None:
        names = [name for s in sequences if (name := str(s.id)) in self._running]
        self._client.abort_requests(names)
        for name in names:
            self._forget(name)

    def ready_at(self, now: float) -> float:
        return now if self._failed or self._has_work() else math.inf

    def step(self) -> list[Output]:
        """One step of vLLM's. Raises EngineDead when it fails: vLLM does not go on after that."""
        outputs, self._failed = self._failed, []
        if not self._has_work():
            return outputs
        try:
            batch = self._client.get_output()
        except Exception as error:
            raise EngineDead(f"vLLM's engine core failed: {reason(error)}") from error
        self._stats.note(batch.scheduler_stats)
        for answer in batch.outputs:
            if answer.request_id in self._running:
                self._take(answer, outputs)
        if not batch.outputs and not self._core.batch_queue:
            time.sleep(_GRAMMAR_WAIT_S)
        return outputs

    def set_adapters(self, adapters: dict[str, str]) -> None:
        """Raises OSError or ValueError; the former set stays then."""
        fresh = self._adapters.plan(adapters)
        loaded: list[Any] = []
        try:
            for request in fresh:
                self._client.add_lora(request)
                loaded.append(request)
        except Exception as error:  # its files or its shapes
            for request in loaded:
                self._client.remove_lora(request.lora_int_id)
            raise ValueError(f"vLLM cannot load the adapter: {reason(error)}") from error
        self._adapters.replace(adapters, fresh)
        self._unload()

    def metrics(self) -> dict[str, float]:
        self._stats.note(self._core.scheduler.make_stats())
        return self._stats.metrics()

    def close(self) -> None:
        self._running.clear()
        self._client.shutdown()

    def _has_work(self) -> bool:
        return bool(self._core.scheduler.has_unfinished_requests() or self._core.batch_queue)

    def _add(self, sequence: Sequence, adapter: Any) -> None:
        check_sequence(sequence, self.spec)
        ends = self.spec.tokenizer.eos_ids
        params = sampling_params(sequence, ends, self._tool_format)
        prompt = {"type": "token", "prompt_token_ids": sequence.prompt}
        request = self._inputs.process_inputs(
            str(sequence.id),
            prompt,
            params,
            supported_tasks=self._tasks,
            lora_request=adapter,
            priority=-sequence.submit.priority,
        )
        made, wave = self._core.preprocess_add_request(request)
        emitted = sequence.prompt[sequence.prompt_len :]
        if emitted and params.structured_outputs is not None:
            _advance_grammar(made, emitted)
        self._core.add_request(made, wave)
        self._running[request.request_id] = (sequence, adapter)

    def _take(self, answer: Any, outputs: list[Output]) -> None:
        """Outputs of one request: one token, or several with speculative decoding."""
        sequence, _ = self._running[answer.request_id]
        if cached := cached_tokens(answer):
            sequence.cached_tokens = min(cached, sequence.prompt_len)
        if answer.events:
            self._stats.note_events(answer.events)
        finish = str(answer.finish_reason) if answer.finished else ""
        error = failure(finish, bool(answer.new_token_ids), answer.num_nans_in_logits)
        if error is not None:
            self._fail(sequence, answer)
            outputs.append(Output(sequence, 0, error=error))
            return
        for row, token in enumerate(answer.new_token_ids):
            outputs.append(_output(sequence, token, answer, row))
        if finish == "stop":  # the Worker itself ends what is as long as it may be
            outputs[-1].ended = True
        if finish:
            self._forget(answer.request_id)

    def _fail(self, sequence: Sequence, answer: Any) -> None:
        nans = answer.num_nans_in_logits
        if nans:
            vllm_nan.drop_prefix(self._core, answer.request_id, answer.finished)
        self.remove([sequence])
        if nans:
            vllm_nan.clean(self._core)

    def _forget(self, name: str) -> None:
        _, adapter = self._running.pop(name)
        if adapter is not None:
            self._adapters.give_back(adapter)
            self._unload()

    def _unload(self) -> None:
        for number in self._adapters.unused():
            self._client.remove_lora(number)


def _output(sequence: Sequence, token: int, answer: Any, row: int) -> Output:
    output = Output(sequence, token)
    best = sequence.params.logprobs
    if best is not None:
        output.logprobs = token_logprobs(answer.new_logprobs, row, best)
    tensors = answer.new_prompt_logprobs_tensors
    if tensors is not None and row == 0:
        count = sequence.prompt_len - 1
        output.prompt_logprobs = prompt_logprobs(tensors, count, sequence.prompt_logprobs or 0)
    return output


def _advance_grammar(request: Any, emitted: list[int]) -> None:
    """Take the grammar of a continued answer past its beginning. Raises ValueError."""
    form = request.structured_output_request
    while not form.is_grammar_ready:
        time.sleep(_GRAMMAR_WAIT_S)
    if isinstance(form.grammar, Exception):
        raise ValueError(str(form.grammar))
    if not form.grammar.accept_tokens(request.request_id, emitted):
        raise ValueError("The answer's beginning does not fit the form that was asked for.")
