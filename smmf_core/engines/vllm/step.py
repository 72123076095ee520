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
from collections import deque
from collections.abc import Callable
from typing import Any

from vllm.v1.engine.core_client import InprocClient
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.executor import Executor

from smmf_core.config import ModelConfig
from smmf_core.engines.base import EngineDead, EngineSpec, Output, Sequence
from smmf_core.engines.host_memory import is_out_of_memory
from smmf_core.engines.transformers.memory import release_cached
from smmf_core.engines.vllm import nan as vllm_nan
from smmf_core.engines.vllm.args import reason
from smmf_core.engines.vllm.convert import (
    cached_tokens,
    prompt_logprobs,
    sampling_params,
    token_logprobs,
)
from smmf_core.engines.vllm.load import check_memory, configure, make_spec, open_adapters
from smmf_core.engines.vllm.refuse import check_sequence, failure, refusal
from smmf_core.engines.vllm.room import Entry, Room
from smmf_core.engines.vllm.stats import VllmStats
from smmf_core.engines.vllm.vision import engine_prompt
from smmf_core.errors import ApiError

_GRAMMAR_WAIT_S = 0.001  # nothing could be scheduled: a grammar is still being compiled


class VllmStepEngine:
    """A StepEngine. vLLM schedules: the Worker hands over as many sequences as `max_num_seqs`."""

    spec: EngineSpec

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._waiting: deque[Entry] = deque()  # for vLLM to have room
        self._running: dict[str, Entry] = {}  # vLLM has them, by its ids
        self._failed: list[Output] = []
        self._room = Room()

    def load(self, progress: Callable[[float], None]) -> None:
        """Raises OSError, ValueError or MemoryError, in one sentence."""
        progress(0.1)
        config = configure(self._config, is_async=False)
        check_memory(config)
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
        self.spec, self._tool_format = make_spec(self._config, config, self._adapters, self._inputs)
        progress(1.0)

    def add(self, sequences: list[Sequence]) -> None:
        """A sequence whose adapter is not there fails alone, with the next step's outputs."""
        now = time.monotonic()
        for sequence in sequences:
            try:
                adapter = self._adapters.take(sequence.submit.adapter)
            except ApiError as error:
                self._failed.append(Output(sequence, 0, error=error))
                continue
            self._waiting.append(Entry(sequence, adapter, entered_at=now))

    def remove(self, sequences: list[Sequence]) -> None:
        gone = {sequence.id for sequence in sequences}
        self._failed = [output for output in self._failed if output.sequence.id not in gone]
        for entry in [entry for entry in self._waiting if entry.sequence.id in gone]:
            self._waiting.remove(entry)
            self._let_go(entry)
        leaving = [entry for entry in self._running.values() if entry.sequence.id in gone]
        self._client.abort_requests([entry.name for entry in leaving])
        for entry in leaving:
            self._forget(entry)

    def ready_at(self, now: float) -> float:
        return now if self._failed or self._waiting or self._has_work() else math.inf

    def step(self) -> list[Output]:
        """One step of vLLM's. A sequence that vLLM refuses fails alone. Raises EngineDead when the
        step fails for another reason than memory: vLLM does not go on after that."""
        self._enter()
        outputs, self._failed = self._failed, []
        if not self._has_work():
            return outputs
        try:
            batch = self._client.get_output()
        except Exception as error:
            text = reason(error)
            if not is_out_of_memory(error):
                untouched = self._untouched()
                raise EngineDead(f"vLLM's engine core failed: {text}", untouched) from error
        else:
            self._take_all(batch, outputs)
            return outputs
        return outputs + self._relieve(text)  # without the error: it holds the step's tensors

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
        self._waiting.clear()
        self._running.clear()
        self._client.shutdown()

    # --- into vLLM ---

    def _has_work(self) -> bool:
        return bool(self._core.scheduler.has_unfinished_requests() or self._core.batch_queue)

    def _enter(self) -> None:
        while self._waiting and len(self._running) < self._room.most:
            entry = self._waiting.popleft()
            try:
                self._hand_over(entry)
            except Exception as error:  # its parameters or its grammar
                self._let_go(entry)
                self._failed.append(Output(entry.sequence, 0, error=refusal(error, entry.sequence)))

    def _hand_over(self, entry: Entry) -> None:
        sequence = entry.rest()
        check_sequence(sequence, self.spec)
        ends = self.spec.tokenizer.eos_ids
        params = sampling_params(sequence, ends, self._tool_format)
        request = self._inputs.process_inputs(
            entry.next_name(),
            engine_prompt(sequence),
            params,
            supported_tasks=self._tasks,
            lora_request=entry.adapter,
            priority=-sequence.submit.priority,
        )
        made, wave = self._core.preprocess_add_request(request)
        emitted = sequence.prompt[sequence.prompt_len :]
        if emitted and params.structured_outputs is not None:
            _advance_grammar(made, emitted)
        self._core.add_request(made, wave)
        entry.name = request.request_id
        self._running[entry.name] = entry

    # --- out of vLLM ---

    def _take_all(self, batch: Any, outputs: list[Output]) -> None:
        self._room.on_step()
        self._stats.note(batch.scheduler_stats)
        for answer in batch.outputs:
            entry = self._running.get(answer.request_id)
            if entry is not None:
                self._take(entry, answer, outputs, batch.timestamp)
        if not batch.outputs and not self._core.batch_queue:
            time.sleep(_GRAMMAR_WAIT_S)

    def _take(self, entry: Entry, answer: Any, outputs: list[Output], now: float) -> None:
        """Outputs of one request: one token, or several with speculative decoding."""
        sequence = entry.sequence
        if not entry.made and (cached := cached_tokens(answer)):
            sequence.cached_tokens = min(cached, sequence.prompt_len)
        if answer.events:
            self._stats.note_events(entry, answer.events)
        finish = str(answer.finish_reason) if answer.finished else ""
        error = failure(finish, bool(answer.new_token_ids), answer.num_nans_in_logits)
        if error is not None:
            self._fail(entry, answer)
            outputs.append(Output(sequence, 0, error=error))
            return
        if answer.new_token_ids and not entry.tokens:
            self._stats.note_first(entry, now)
        for row, token in enumerate(answer.new_token_ids):
            outputs.append(_output(sequence, token, answer, row))
        entry.tokens += len(answer.new_token_ids)
        if finish == "stop":  # the Worker itself ends what is as long as it may be
            outputs[-1].ended = True
        if finish:
            self._stats.note_end(entry, now)
            self._forget(entry)

    def _fail(self, entry: Entry, answer: Any) -> None:
        nans = answer.num_nans_in_logits
        if nans:
            vllm_nan.drop_prefix(self._core, answer.request_id, answer.finished)
        self.remove([entry.sequence])
        if nans:
            vllm_nan.clean(self._core)

    def _relieve(self, text: str) -> list[Output]:
        """Memory ran out in a step. vLLM is emptied, also of prefixes: it has noted blocks that the
        step did not compute. A sequence that was alone in the step fails; else all are handed over
        again, with what they have made, and fewer at a time."""
        self._stats.note_retry()
        requests = self._core.scheduler.requests
        in_step = [r.request_id for r in self._core.scheduler.running]
        entries = list(self._running.values())
        for entry in entries:
            entry.made += requests[entry.name].output_token_ids
        self._client.abort_requests([entry.name for entry in entries])
        self._running.clear()
        self._client.reset_prefix_cache()
        release_cached()
        failed: list[Output] = []
        if len(in_step) <= 1:
            lost = [entry for entry in entries if entry.name in in_step] or entries
            entries = [entry for entry in entries if entry not in lost]
            for entry in lost:
                self._let_go(entry)
                failed.append(Output(entry.sequence, 0, error=MemoryError(text)))
        else:
            self._room.shrink(len(in_step))
        self._waiting.extendleft(reversed(entries))
        return failed

    def _untouched(self) -> list[Sequence]:
        """Those of which vLLM has computed nothing."""
        waits = [entry.sequence for entry in self._waiting if not entry.made]
        for name, entry in self._running.items():
            request = self._core.scheduler.requests.get(name)
            if request is not None and not request.num_computed_tokens and not entry.made:
                waits.append(entry.sequence)
        return waits

    def _forget(self, entry: Entry) -> None:
        del self._running[entry.name]
        self._let_go(entry)

    def _let_go(self, entry: Entry) -> None:
        if entry.adapter is not None:
            self._adapters.give_back(entry.adapter)
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
