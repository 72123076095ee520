"""The llama.cpp engine: one llama_decode a step for all running requests.

Owns the running sequences and what a step does; must not touch pointers (api), choose
slots (slots) or read files (load). llama.cpp applies a LoRA adapter to a whole
decode: requests of different adapters take turns, a step each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from smmf_core.config import ModelConfig
from smmf_core.config.engine_options import LlamaCppOptions
from smmf_core.engines.base import EmbedEngine, EngineDead, EngineSpec, Output, Sequence
from smmf_core.engines.checks import check_tokens
from smmf_core.engines.llama_cpp import api
from smmf_core.engines.llama_cpp.batch import Plan, make_plan, write
from smmf_core.engines.llama_cpp.choose import choose
from smmf_core.engines.llama_cpp.load import Loaded, load_model, read_options
from smmf_core.engines.llama_cpp.sequence import Running
from smmf_core.engines.llama_cpp.slots import Seat, Slot, Slots
from smmf_core.errors import ApiError
from smmf_core.messages import Submit

_DEAD_AFTER = 3  # requests that failed in a row, with nothing computed between
_PROMPT_LOGITS_BYTES = 64 << 20  # of one step, for a request that wants its prompt's logprobs


class LlamaCppEngine:
    """A StepEngine. Each step takes one token of every answer, and prompts fill it up to n_batch
    tokens, in the order in which they joined. What a request leaves in its slot of the KV cache
    serves the next one that begins with the same tokens."""

    spec: EngineSpec

    def __init__(self, config: ModelConfig, options: LlamaCppOptions) -> None:
        self._config = config
        self._options = options
        self._waiting: list[Running] = []  # for a slot
        self._running: dict[int, Running] = {}  # by sequence id
        self._failed: list[Output] = []  # for the next step to give back
        self._adapters: dict[str, api.Adapter] = {}
        self._paths: dict[str, str] = {}  # of the adapters
        self._retired: list[api.Adapter] = []  # no longer offered
        self._applied: api.Adapter | None = None
        self._plan: Plan | None = None  # of the last step, if the next may be the same
        self._number = 0
        self._failures = 0
        self._counts = dict.fromkeys(("prompt_tokens", "cached_tokens", "preempted"), 0)
        self._loaded: Loaded
        self._slots: Slots

    def load(self, progress: Callable[[float], None]) -> None:
        """Raises OSError, ValueError or MemoryError, in one sentence."""
        self._loaded = load_model(self._config, self._options, progress)
        self.spec = self._loaded.spec
        has_streams = not self._options.kv_unified
        self._slots = Slots(self._loaded.slots, self.spec.context_length, has_streams)
        self.spec.check = self._check

    def add(self, sequences: list[Sequence]) -> None:
        prompts: set[tuple[int, int]] = set()
        for sequence in sequences:
            try:
                running = self._open(sequence)
            except Exception as error:  # this sequence fails, the others go on
                self._failed.append(Output(sequence, 0, error=error))
                continue
            prompt = (id(sequence.submit), sequence.prompt_index)
            running.reports_cached = prompt not in prompts  # of n choices only the first
            prompts.add(prompt)
            self._waiting.append(running)

    def remove(self, sequences: list[Sequence]) -> None:
        """What they computed stays in their slots as a prefix for others."""
        gone = {sequence.id for sequence in sequences}
        for running in [r for r in self._waiting if r.sequence.id in gone]:
            self._waiting.remove(running)
            running.close()
        for number in gone & self._running.keys():
            self._leave(self._running[number])
        self._failed = [output for output in self._failed if output.sequence.id not in gone]
        self._free_retired()

    def ready_at(self, now: float) -> float:
        return now if self._running or self._waiting or self._failed else math.inf

    def step(self) -> list[Output]:
        """One forward pass. A sequence that fails is given back with its error and leaves.

        Raises EngineDead when llama.cpp computes nothing any more.
        """
        for slot in self._slots.poisoned():
            self._clean(slot)
        if self._waiting:
            self._seat_waiting()
        plan = self._compute()
        outputs = self._read(plan) if plan is not None else []
        if self._failed:
            outputs += self._failed
            self._failed = []
        return outputs

    def close(self) -> None:
        for running in [*self._running.values(), *self._waiting]:
            running.close()
        self._running.clear()
        self._waiting.clear()
        self._loaded.close()

    def set_adapters(self, adapters: dict[str, str]) -> None:
        """Offer exactly these LoRA adapters (GGUF files). One that a request still uses stays.

        Raises OSError or ValueError; then nothing has changed.
        """
        added: dict[str, api.Adapter] = {}
        try:
            for name in [n for n in adapters if adapters[n] != self._paths.get(n)]:
                path = Path(adapters[name]).expanduser()
                if not path.is_file():
                    raise FileNotFoundError(f"{path} is missing: an adapter is a GGUF file here.")
                added[name] = api.Adapter(self._loaded.model, path)
        except Exception:
            for adapter in added.values():
                adapter.close()
            raise
        gone = [name for name in self._adapters if name in added or name not in adapters]
        self._retired += [self._adapters.pop(name) for name in gone]
        self._adapters |= added
        self._paths = dict(adapters)
        self._free_retired()

    def metrics(self) -> dict[str, float]:
        cells = sum(slot.held for slot in self._slots.slots)
        return {**self._counts, "kv_tokens": cells, "slots_used": len(self._running)}

    # --- requests come and go ---

    def _check(self, submit: Submit) -> None:
        self._adapter(submit.adapter)
        self._loaded.grammars.text(submit)

    def _adapter(self, name: str) -> api.Adapter | None:
        if not name:
            return None
        if name not in self._adapters:
            raise ApiError("model_not_found", f"There is no adapter '{name}'.", "model")
        return self._adapters[name]

    def _open(self, sequence: Sequence) -> Running:
        loaded = self._loaded
        check_tokens(sequence.prompt, loaded.model.vocab_size)
        grammar = loaded.grammars.text(sequence.submit)
        self._number += 1
        ends = self.spec.tokenizer.eos_ids
        running = Running(self._number, sequence, loaded.model, ends, grammar)
        running.adapter = self._adapter(sequence.submit.adapter)
        return running

    def _seat_waiting(self) -> None:
        """Give slots to those that wait, in their order."""
        for running in list(self._waiting):
            if len(self._running) == self._loaded.slots or not self._has_room(running):
                return
            seat = self._slots.seat(running.tokens, running.adapter, not running.describes)
            if seat is not None:
                self._waiting.remove(running)
                self._sit(running, seat)

    def _has_room(self, running: Running) -> bool:
        """Whether a cache that all share can hold one more. A request alone must fit."""
        if not self._options.kv_unified or not self._running:
            return True
        tokens = sum(len(other.tokens) + 1 for other in self._running.values())
        return tokens + len(running.tokens) + 1 <= self.spec.context_length

    def _sit(self, running: Running, seat: Seat) -> None:
        slot, context = seat.slot, self._loaded.context
        if seat.source is not None:
            context.copy(seat.source.id, slot.id)
        self._trim(slot, seat.found)
        slot.tokens, slot.owner, slot.adapter = running.tokens, running, running.adapter
        running.slot = slot
        running.prompt_logprobs.clear()
        sequence = running.sequence
        self._running[sequence.id] = running
        self._plan = None
        if running.reports_cached:
            running.reports_cached = False
            sequence.cached_tokens = min(slot.held, sequence.prompt_len)
            self._counts["cached_tokens"] += sequence.cached_tokens

    def _trim(self, slot: Slot, length: int) -> None:
        slot.held, slot.filled = self._loaded.context.keep(slot.id, length), 0

    def _leave(self, running: Running) -> None:
        running.close()
        self._give_up_slot(running)

    def _give_up_slot(self, running: Running) -> None:
        """The slot keeps the tokens that it holds, the request all of them."""
        assert running.slot is not None
        del self._running[running.sequence.id]
        self._slots.leave(running.slot)
        running.slot = None
        self._plan = None

    def _fail(self, running: Running, error: Exception) -> None:
        """It leaves nothing behind: what it computed may be wrong."""
        slot = running.slot
        assert slot is not None
        self._failed.append(Output(running.sequence, 0, error=error))
        self._leave(running)
        slot.forget()
        self._trim(slot, 0)
        if isinstance(error, ValueError):  # not finite: cells that nobody may see are seen, too
            slot.is_poisoned = True

    def _clean(self, slot: Slot) -> None:
        """Masked cells count with weight 0, but 0 times NaN is NaN: overwrite them all.

        With caches of their own: by another slot's. Else, or when all are poisoned, the whole
        memory is zeroed and those that run begin again.
        """
        context = self._loaded.context
        others = [other for other in self._slots.slots if not other.is_poisoned]
        if others and not self._options.kv_unified:
            context.copy(others[0].id, slot.id)
            self._trim(slot, 0)
            slot.is_poisoned = False
            return
        context.clear()
        for running in sorted(self._running.values(), key=lambda r: -r.number):
            self._give_up_slot(running)
            self._waiting.insert(0, running)
        for other in self._slots.slots:
            other.forget()
            other.filled, other.is_poisoned = 0, False

    def _free_retired(self) -> None:
        """Forget adapters that are not offered any more, once no request uses them."""
        if not self._retired:
            return
        users = [*self._running.values(), *self._waiting]
        for adapter in [a for a in self._retired if all(r.adapter is not a for r in users)]:
            self._retired.remove(adapter)
            for slot in self._slots.slots:
                if slot.adapter is adapter:
                    slot.forget()
                    slot.adapter = None
            if self._applied is adapter:
                self._apply(None)
            adapter.close()

    # --- a step ---

    def _compute(self) -> Plan | None:
        """Decode until something was computed; None when nothing is left to compute."""
        most_tokens = self._loaded.context.batch_tokens
        while self._running:
            if self._plan is None:
                self._make_plan(most_tokens)
            plan = self._plan
            assert plan is not None
            code = self._loaded.context.decode(plan.tokens)
            if code == 0:
                self._failures = 0
                return plan
            most_tokens = self._relieve(plan, code)
        return None

    def _make_plan(self, most_tokens: int) -> None:
        adapter = self._turn()
        members = [r for r in self._running.values() if r.adapter is adapter]
        described = _PROMPT_LOGITS_BYTES // (4 * self._loaded.model.vocab_size)
        for slot in self._slots.overfilled():
            self._trim(slot, slot.held)
        fillers = self._slots.fillers()
        self._plan = make_plan(members, fillers, most_tokens, max(described, 1))
        self._counts["prompt_tokens"] += self._plan.prompt_tokens
        write(self._plan, self._loaded.context)

    def _turn(self) -> api.Adapter | None:
        """The adapter of this step: the next one that has requests. Applies it."""
        wanted = list(dict.fromkeys(running.adapter for running in self._running.values()))
        after = wanted.index(self._applied) + 1 if self._applied in wanted else 0
        adapter = wanted[after % len(wanted)]
        if adapter is not self._applied:
            self._apply(adapter)
        return adapter

    def _apply(self, adapter: api.Adapter | None) -> None:
        self._loaded.context.use_adapter(adapter)
        self._applied = adapter

    def _relieve(self, plan: Plan, code: int) -> int:
        """After a decode that failed: make the next one smaller; returns its most tokens.

        1. No room: drop the cached prefix that was unused for longest. 2. Prompts take half as
        many tokens. 3. No room, with others beside it: the youngest waits until there is some.
        4. The youngest fails.
        """
        self._plan = None
        for chunk in plan.chunks:
            self._trim(chunk.slot, chunk.slot.held)
        cached = self._slots.cached() if code == api.NO_ROOM else []
        if cached:
            cached[0].forget()
            self._trim(cached[0], 0)
            return plan.tokens
        decoding = sum(chunk.count == 1 for chunk in plan.chunks)
        if plan.tokens > decoding:
            return decoding + (plan.tokens - decoding) // 2
        members = [chunk.running for chunk in plan.chunks if chunk.running is not None]
        youngest = max(members, key=lambda running: running.number)
        if code == api.NO_ROOM and len(self._running) > 1:
            self._counts["preempted"] += 1
            self._give_up_slot(youngest)
            self._waiting.insert(0, youngest)
        else:
            self._fail(youngest, _decode_error(code))
            self._failures += 1
            if self._failures == _DEAD_AFTER:
                text = f"llama_decode fails again and again (code {code})"
                raise EngineDead(text, [waiting.sequence for waiting in self._waiting])
        return self._loaded.context.batch_tokens

    def _read(self, plan: Plan) -> list[Output]:
        """The tokens that a computed plan yields."""
        context = self._loaded.context
        rows = context.logits(plan.rows) if plan.rows else None
        for chunk in plan.chunks:
            slot, running = chunk.slot, chunk.running
            if running is None:
                slot.filled += 1
                continue
            if running.describes and rows is not None:
                end = chunk.first_row + chunk.rows
                running.describe_prompt(slot.held, rows[chunk.first_row : end])
            slot.held += chunk.count
        if rows is None:
            self._plan = None
            return []
        outputs, failed = choose(plan, rows)
        for running, error in failed:
            self._fail(running, error)
        self._go_on(plan)
        return outputs

    def _go_on(self, plan: Plan) -> None:
        """Prepare the same plan for the next tokens, if it may be the same."""
        plan.steps_left -= 1
        if self._plan is not plan or plan.steps_left < 1 or len(self._running) != plan.rows:
            self._plan = None
            return
        context = self._loaded.context
        context.token[plan.places] = [running.tokens[-1] for running in plan.choosing]
        context.position[: plan.tokens] += 1


def _decode_error(code: int) -> ApiError:
    if code == api.NO_ROOM:
        text = "The KV cache has no room for this request: n_ctx is too small."
        return ApiError("model_unavailable", text)
    return ApiError("internal_error", f"llama.cpp failed to compute this request (code {code}).")


def create(config: ModelConfig) -> LlamaCppEngine | EmbedEngine:
    """Raises ValueError for wrong settings, ImportError without llama-cpp-python."""
    options = read_options(config)
    if config.model.task == "generate":
        return LlamaCppEngine(config, options)
    from smmf_core.engines.llama_cpp.embed import LlamaCppEmbedEngine

    return LlamaCppEmbedEngine(config, options)
