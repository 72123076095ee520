"""A WorkerCore with its engine, stepped by hand: requests in, answers out, no processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from smmf_core import messages as m
from smmf_core.engines.base import StepEngine
from smmf_core.native._batcher import Batcher
from smmf_core.worker.core import WorkerCore

ROUTER = (0, 1)
_MAX_STEPS = 20_000  # more than any test's requests need: a loop that does not end is a failure


@dataclass
class Choice:
    ids: list[int] = field(default_factory=list)
    text: bytes = b""
    reason: int | None = None
    logprobs: list[m.TokenLogprob] = field(default_factory=list)


@dataclass
class Answer:
    """What a client would have got. `usage` is None until the request finished."""

    choices: list[Choice]
    error: m.Failure | None = None
    usage: tuple[int, int, int] | None = None  # prompt, completion and cached tokens

    @property
    def is_over(self) -> bool:
        return self.error is not None or self.usage is not None

    @property
    def ids(self) -> list[int]:
        (choice,) = self.choices
        return choice.ids


class Worker:
    """Runs requests as the Worker's loop does."""

    def __init__(self, engine: StepEngine, batch: int = 32) -> None:
        self.engine = engine
        self.core = WorkerCore(engine.spec, Batcher(batch, 8192, 0.0, False))
        self.core.add_router(ROUTER)
        self.answers: dict[int, Answer] = {}

    def submit(
        self,
        prompt: list[int] | str,
        tokens: int | None = 48,
        *,
        n: int = 1,
        emitted: list[list[int]] | None = None,
        **fields: Any,
    ) -> int:
        """A streamed request; `fields` are those of Sampling, or Submit's `echo_prompt`, `adapter`
        `response_format`, `tools`, `tool_choice`, and with an empty `prompt` `messages` and
        `images`. Returns its key."""
        key = len(self.answers) + 1
        own = (
            "echo_prompt", "adapter", "response_format", "tools", "tool_choice", "messages",
            "images",
        )  # fmt: skip
        rest = {name: fields.pop(name) for name in own if name in fields}
        sampling = m.Sampling(
            max_tokens=tokens, is_seeded="seed" in fields, **{"temperature": 0.0, **fields}
        )
        submit = m.Submit(
            key=key,
            attempt=0,
            request_id="r",
            model="m",
            stream=True,
            n=n,
            messages=rest.pop("messages", None),
            prompts=[prompt] if prompt else None,
            sampling=sampling,
            emitted_ids=emitted,
            **rest,
        )
        self.answers[key] = Answer([Choice() for _ in range(n)])
        self.core.on_submit(ROUTER, submit, 0.0)
        return key

    def cancel(self, key: int) -> None:
        self.core.on_cancel(ROUTER, key, 0)

    def step(self) -> None:
        """One turn of the loop."""
        self._remove()
        joined = self.core.admit(0.0)
        if joined:
            self.engine.add(joined)
        if self.engine.ready_at(0.0) <= 0.0:
            self.core.on_outputs(self.engine.step())
        self._remove()
        records = self.core.out[ROUTER]
        for record in records:
            self._take(record)
        records.clear()

    def finish(self) -> None:
        """Until every request has ended."""
        for _ in range(_MAX_STEPS):
            self.step()
            if not len(self.core):
                return
        raise AssertionError(f"{len(self.core)} requests do not end")

    def ask(self, prompt: list[int] | str, tokens: int | None = 48, **fields: Any) -> Answer:
        """One request alone."""
        key = self.submit(prompt, tokens, **fields)
        self.finish()
        return self.answers[key]

    def _remove(self) -> None:
        if self.core.left:
            self.engine.remove(self.core.left)
            self.core.left = []

    def _take(self, record: m.Record) -> None:
        kind, key, _, index, count, payload = record
        answer = self.answers[key]
        if kind == m.TOKENS:
            choice = answer.choices[index]
            choice.ids += memoryview(payload[: 4 * count]).cast("i")
            choice.text += payload[4 * count :]
        elif kind == m.DATA:
            batch = msgspec.msgpack.decode(payload, type=m.TokenBatch)
            choice = answer.choices[index]
            choice.ids += batch.ids
            choice.text += batch.text.encode()
            choice.logprobs += batch.logprobs
        elif kind == m.CHOICE_END:
            answer.choices[index].reason = count
        elif kind == m.FAIL:
            answer.error = msgspec.msgpack.decode(payload, type=m.Failure)
        elif kind == m.FINISH:
            prompt, completion, cached, _ = memoryview(payload).cast("I")
            answer.usage = (prompt, completion, cached)
