"""What the Worker asks of an engine: the protocols that every engine implements.

Owns the shapes; must not import an ML framework.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from smmf_core.messages import Sampling, Submit

Logprobs = tuple[float, list[tuple[int, float]]]
"""(logprob of the chosen token, the k best as (token, logprob), best first)"""


class Tokenizer(Protocol):
    """Token ids <-> text. `token_bytes` may be part of a UTF-8 sequence; b"" for special tokens."""

    vocab_size: int
    eos_ids: frozenset[int]

    def encode(self, text: str, add_special: bool) -> list[int]: ...
    def token_bytes(self, token: int) -> bytes: ...
    def is_special(self, token: int) -> bool: ...


class ChatTemplate(Protocol):
    """Messages -> prompt text. Raises ApiError (param `messages`) when the template refuses."""

    def render(self, submit: Submit) -> str: ...


@dataclass(slots=True)
class EngineSpec:
    """What is known once a model is loaded."""

    context_length: int
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    supports_prefix: bool = True  # can go on from tokens that another replica produced
    capabilities: list[str] = field(default_factory=list)
    check: Callable[[Submit], None] = lambda submit: None  # ApiError for what it cannot run


@dataclass(slots=True, eq=False)
class Sequence:
    """One choice being generated: made by worker.core, handed to the engine.

    `prompt` holds token ids, with any tokens already emitted elsewhere at its end; `prompt_len`
    counts those of the request's own prompt, so the next token's position in the answer is
    `len(prompt) - prompt_len`. `params.seed` is already the choice's own.
    """

    id: int
    prompt: list[int]
    prompt_len: int
    params: Sampling
    max_new_tokens: int  # tokens this sequence may still produce (context and max_tokens applied)
    submit: Submit
    prompt_index: int = 0  # which of the request's prompts
    prompt_logprobs: int | None = None  # completions' echo + logprobs: k best for prompt tokens
    state: Any = None  # the engine's own


@dataclass(slots=True, eq=False)
class Output:
    """One token of one sequence. `prompt_logprobs` comes with the first, when asked for.

    Entry i belongs to prompt token i + 1: the first token has no logprob.
    """

    sequence: Sequence
    token: int
    logprobs: Logprobs | None = None
    prompt_logprobs: list[Logprobs] | None = None
    ended: bool = False  # the engine itself says that this is the last token (reason "stop")
    error: Exception | None = None  # this sequence failed; the others go on


class StepEngine(Protocol):
    """A batcher-driven engine: the Worker's loop calls step(), requests join and leave between.

    All calls come from one thread. `step` blocks for one forward pass at most.
    """

    spec: EngineSpec

    def load(self, progress: Callable[[float], None]) -> None: ...
    def add(self, sequences: list[Sequence]) -> None: ...
    def remove(self, sequences: list[Sequence]) -> None: ...
    def step(self) -> list[Output]: ...
    def ready_at(self, now: float) -> float: ...
    def close(self) -> None: ...


class StreamEngine(Protocol):
    """A self-scheduling engine: it takes a sequence at once and yields outputs as they come.

    Closing the iterator cancels. All calls come from the Worker's event loop.
    """

    spec: EngineSpec

    async def load(self, progress: Callable[[float], None]) -> None: ...
    def generate(self, sequence: Sequence) -> AsyncIterator[Output]: ...
    async def close(self) -> None: ...
