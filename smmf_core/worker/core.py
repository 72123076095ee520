"""What a Worker does with requests: prepare, batch, collect tokens, answer, forget.

Pure: time is a parameter, records leave through `out`. Owns every open request of this Worker and
the slot accounting; must not know sockets, rings or a certain engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

from smmf_core.engines.base import EngineSpec, Logprobs, Output, Sequence
from smmf_core.messages import (
    ADMIT,
    FINISH,
    LENGTH,
    RESULT,
    Record,
    Result,
    Submit,
    TokenLogprob,
    encode,
)
from smmf_core.native._batcher import Batcher
from smmf_core.worker.choice import ChoiceState
from smmf_core.worker.contract import OWN, OpenFacts, RouterKey, Tally
from smmf_core.worker.prepare import Prompt, make_sequences, read_prompts
from smmf_core.worker.read_choice import ReadChoice
from smmf_core.worker.reading import Reading

_U32 = 4
_NO_USAGE = bytes(_U32)
_ADMIT_AFTER_S = 0.2  # a whole answer that takes longer is announced; a shorter one says it all


class OpenRequest:
    """One accepted request: its choices, and how many of them have not ended."""

    __slots__ = (
        "arrived_at",
        "awaits_first",
        "choices",
        "has_joined",
        "out",
        "prompt_tokens",
        "prompts",
        "remaining",
        "router",
        "serial",
        "submit",
    )

    def __init__(
        self,
        serial: int,
        router: RouterKey,
        out: list[Record],
        submit: Submit,
        prompts: list[Prompt],
        now: float,
    ) -> None:
        self.arrived_at = now
        self.has_joined = False  # the engine has it
        self.awaits_first = True  # token
        self.serial = serial
        self.router = router
        self.out = out  # the Router's records
        self.submit = submit
        self.prompts = prompts
        self.choices: list[ChoiceState] = []
        self.prompt_tokens = sum([len(prompt.ids) for prompt in prompts])
        self.remaining = 0


class WorkerCore:
    """The Worker's decisions.

    The shell calls `on_submit`, `on_cancel`, `on_router_gone`, then `admit` (sequences for
    Engine.add), `on_outputs` after a step, and takes `joined`/`left` for the engine and `out`
    (records per router) to write. Every accepted request ends with one FINISH or FAIL, unless
    its Router cancelled it or is gone.
    """

    takes = Submit

    def __init__(self, spec: EngineSpec, batcher: Batcher) -> None:
        self.spec = spec
        self.batcher = batcher
        self.out: dict[RouterKey, list[Record]] = {}
        self.left: list[Sequence] = []  # for Engine.remove
        self.tally = Tally()
        self.tokens = 0
        self._reading = Reading(spec)
        self._reads_all = bool(spec.reasoning_format)
        self._unadmitted: dict[int, tuple[float, OpenRequest]] = {}  # by serial, oldest first
        self._serial = 0
        self._sequence_id = 0
        self._open: dict[int, OpenRequest] = {}
        self._by_key: dict[tuple[RouterKey, int], OpenRequest] = {}
        self._choices: dict[int, tuple[OpenRequest, ChoiceState]] = {}  # by sequence id

    def __len__(self) -> int:
        return len(self._open)

    @property
    def running(self) -> int:
        return self.batcher.running

    @property
    def waiting(self) -> int:
        return self.batcher.waiting

    @property
    def dimensions(self) -> int:
        """Of vectors: it makes none."""
        return 0

    def describe(self, limit: int) -> list[OpenFacts]:
        """The oldest open requests."""
        return [
            OpenFacts(
                request_id=request.submit.request_id,
                router=request.router[0],
                state="running" if request.has_joined else "waiting",
                arrived_at=request.arrived_at,
                prompt_tokens=request.prompt_tokens,
                done=sum(choice.tokens for choice in request.choices),
            )
            for request in islice(self._open.values(), limit)
        ]

    # --- from the Routers ---

    def add_router(self, router: RouterKey) -> None:
        self.out[router] = []

    def on_submit(self, router: RouterKey, submit: Submit, now: float) -> None:
        """Prepare and queue; a bad request fails here, before it costs a step."""
        try:
            prompts = read_prompts(submit, self.spec, self._reading)
            sequences = make_sequences(submit, prompts, self.spec, self._sequence_id)
        except Exception as error:  # a tokenizer may raise anything: that costs one request
            self.out[router].append(self.tally.fail(router, submit, error))
            return
        self._sequence_id += len(sequences)
        self._serial += 1
        request = OpenRequest(self._serial, router, self.out[router], submit, prompts, now)
        is_read = self._reads_all or submit.tools is not None
        is_read = is_read and self._reading.applies(submit)
        for index, sequence in enumerate(sequences):
            if is_read:
                choice = self._read_choice(sequence, index, prompts[0].in_thought)
            else:
                choice = ChoiceState(sequence, index, self.spec.tokenizer)
            request.choices.append(choice)
            self._choices[sequence.id] = (request, choice)
            if submit.emitted_ids and index < len(submit.emitted_ids):
                choice.replay(submit.emitted_ids[index])
        request.remaining = len(sequences)
        self._open[request.serial] = request
        self._by_key[router, submit.key] = request
        tokens = request.prompt_tokens
        if submit.stream:
            request.out.append((ADMIT, submit.key, submit.attempt, 0, tokens, _NO_USAGE))
        else:
            self._unadmitted[request.serial] = now + _ADMIT_AFTER_S, request
        self.batcher.add(request.serial, len(sequences), tokens, submit.priority, now)

    def on_cancel(self, router: RouterKey, key: int, attempt: int) -> None:
        request = self._by_key.get((router, key))
        if request is not None and request.submit.attempt == attempt:
            self._forget(request)

    def on_router_gone(self, router: RouterKey) -> None:
        """Cancel all requests of a Router that died: there is nobody to answer."""
        for request in [r for r in self._open.values() if r.router == router]:
            self._forget(request)
        self.out.pop(router, None)

    @property
    def announce_at(self) -> float:
        """When `announce` has something to do."""
        for due, _ in self._unadmitted.values():
            return due
        return math.inf

    def announce(self, now: float) -> None:
        """Tell the Routers of whole answers that take long: they were admitted."""
        while self.announce_at <= now:
            _, request = self._unadmitted.pop(next(iter(self._unadmitted)))
            submit = request.submit
            record = ADMIT, submit.key, submit.attempt, 0, request.prompt_tokens, _NO_USAGE
            request.out.append(record)

    # --- around a step ---

    def admit(self, now: float) -> list[Sequence]:
        """The sequences that join the next step."""
        joined: list[Sequence] = []
        for serial in self.batcher.next(now):
            request = self._open[serial]
            request.has_joined = True
            for choice in request.choices:
                if request.submit.echo_prompt and not self._wants_prompt_logprobs(request):
                    self._echo_prompt(request, choice, [])
                if choice.sequence.max_new_tokens > 0 or self._wants_prompt_logprobs(request):
                    joined.append(choice.sequence)
                else:
                    choice.end(LENGTH, request.out)
                    self._choice_ended(request, choice)
        return joined

    def on_outputs(self, outputs: list[Output]) -> None:
        """Take one step's tokens."""
        choices = self._choices
        for output in outputs:
            found = choices.get(output.sequence.id)
            if found is None:  # cancelled while the step ran
                continue
            request, choice = found
            if choice.is_whole and output.error is None and output.prompt_logprobs is None:
                self.tokens += 1
                if request.awaits_first:
                    self._begin(request)
                if choice.keep(output.token, output.ended):
                    self._choice_ended(request, choice)
                continue
            if output.error is not None:
                self.fail(request, output.error)
                continue
            out = request.out
            if output.prompt_logprobs is not None:
                self._echo_prompt(request, choice, output.prompt_logprobs)
                if choice.sequence.max_new_tokens == 0:
                    choice.end(LENGTH, out)
                    self._choice_ended(request, choice)
                    continue
            self.tokens += 1
            if request.awaits_first:
                self._begin(request)
            choice.push(output.token, output.logprobs, output.ended, out)
            if choice.reason is not None:
                self._choice_ended(request, choice)

    def fail(self, request: OpenRequest, error: Exception) -> None:
        """End a request with an error; its other choices are dropped."""
        self._forget(request)
        record = self.tally.fail(request.router, request.submit, error)
        self.out[request.router].append(record)

    def drop(self, router: RouterKey, key: int) -> None:
        """Forget a request whose answer the TokenWriter gave up; it has told the Router."""
        request = self._by_key.get((router, key))
        if request is not None:
            self._forget(request)

    def fail_sequences(self, sequences: list[Sequence], error: Exception) -> None:
        """The engine did not take them."""
        for sequence in sequences:
            found = self._choices.get(sequence.id)
            if found is not None:
                self.fail(found[0], error)

    def fail_joined(self, error: Exception, untouched: Iterable[Sequence] = ()) -> None:
        """The engine failed at all that it has, but for what it has not begun to compute."""
        spared = {id(s.submit) for s in untouched}
        for request in list(self._open.values()):
            is_untouched = request.awaits_first and id(request.submit) in spared
            if request.has_joined and not is_untouched:
                self.fail(request, error)

    # --- inside ---

    def _read_choice(self, sequence: Sequence, index: int, in_thought: bool) -> ChoiceState:
        reading = self._reading
        chain = reading.chain(sequence.submit, index, in_thought)
        return ReadChoice(sequence, index, self.spec.tokenizer, chain, reading.marks)

    def _begin(self, request: OpenRequest) -> None:
        request.awaits_first = False
        if request.router != OWN:
            self.tally.begun.append(request.arrived_at)

    def _wants_prompt_logprobs(self, request: OpenRequest) -> bool:
        return request.submit.echo_prompt and request.submit.sampling.logprobs is not None

    def _echo_prompt(
        self, request: OpenRequest, choice: ChoiceState, logprobs: list[Logprobs]
    ) -> None:
        prompt = request.prompts[choice.sequence.prompt_index]
        bytes_of = self.spec.tokenizer.token_bytes
        described: list[TokenLogprob] = []
        if self._wants_prompt_logprobs(request):
            described.append(TokenLogprob(bytes_of(prompt.ids[0]), None, []))
            for token, (chosen, top) in zip(prompt.ids[1:], logprobs, strict=True):
                best = [(bytes_of(t), p) for t, p in top]
                described.append(TokenLogprob(bytes_of(token), chosen, best))
        choice.prompt_text(prompt.text, described, request.out)

    def _choice_ended(self, request: OpenRequest, choice: ChoiceState) -> None:
        del self._choices[choice.sequence.id]
        self.left.append(choice.sequence)
        request.remaining -= 1
        if request.remaining == 0:
            self._finish(request)

    def _finish(self, request: OpenRequest) -> None:
        submit, out = request.submit, request.out
        if not submit.stream:
            payload = encode(Result([choice.result() for choice in request.choices]))
            out.append((RESULT, submit.key, submit.attempt, 0, 0, payload))
        completion = cached = reasoning = 0
        for choice in request.choices:
            completion += choice.tokens
            reasoning += choice.reasoning_tokens
            cached += choice.sequence.cached_tokens
        cached = min(cached, request.prompt_tokens)
        usage = (request.prompt_tokens, completion, cached, reasoning)
        payload = b"".join(value.to_bytes(_U32, "little") for value in usage)
        out.append((FINISH, submit.key, submit.attempt, 0, 0, payload))
        self._close(request)
        self.tally.finish(request.router)
        self.batcher.finish(request.serial)

    def _forget(self, request: OpenRequest) -> None:
        for choice in request.choices:
            if self._choices.pop(choice.sequence.id, None) is not None:
                self.left.append(choice.sequence)
        self._close(request)
        self.batcher.cancel(request.serial)

    def _close(self, request: OpenRequest) -> None:
        del self._open[request.serial]
        self._unadmitted.pop(request.serial, None)
        del self._by_key[request.router, request.submit.key]
