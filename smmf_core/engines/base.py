"""What the Worker asks of an engine: the protocols that every engine implements.

Owns the shapes; must not import an ML framework.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from smmf_core.messages import Image, Sampling, Submit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Logprobs = tuple[float, list[tuple[int, float]]]
"""(logprob of the chosen token, the k best as (token, logprob), best first)"""


class EngineDead(Exception):
    """The engine cannot go on: what it has fails, the Worker exits, another one is started.

    `untouched`: sequences that it had not begun to compute. They are placed on other Workers.
    """

    def __init__(self, reason: str, untouched: Iterable[Sequence] = ()) -> None:
        super().__init__(reason)
        self.untouched = list(untouched)


class Encoder(Protocol):
    """Text -> token ids. It may have two more for those who look at tokens: `decode(ids)`, the text
    of all of them, and `piece(id)`, one as the vocabulary writes it; both with special tokens."""

    vocab_size: int

    def encode(self, text: str, add_special: bool) -> list[int]: ...


class Tokenizer(Encoder, Protocol):
    """Token ids <-> text. `token_bytes` may be part of a UTF-8 sequence; b"" for special tokens."""

    eos_ids: frozenset[int]

    def token_bytes(self, token: int) -> bytes: ...
    def is_special(self, token: int) -> bool: ...


class ChatTemplate(Protocol):
    """Messages -> prompt text. Raises ApiError (param `messages`) when the template refuses."""

    def render(self, submit: Submit) -> str: ...


class Vision(Protocol):
    """Where images come into the prompts of a model that takes some."""

    def place(self, ids: list[int], images: list[Image]) -> tuple[list[int], Any]:
        """The prompt's tokens as the engine sees them, and what goes into Sequence.media.

        Raises ApiError (400), which names an image's part, for what cannot be taken.
        """


@dataclass(slots=True)
class EngineSpec:
    """What is known once a model is loaded."""

    context_length: int
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None
    supports_prefix: bool = True  # can go on from tokens that another replica produced
    capabilities: list[str] = field(default_factory=list)
    check: Callable[[Submit], None] = lambda submit: None  # ApiError for what it cannot run
    device: str = "cpu"  # where it computes, as `smmf ps` shows it
    max_sequences: int = 0  # an engine with a scheduler of its own takes so many; 0: max_batch_size
    stop_strings: list[str] = field(default_factory=list)  # the family's own, in chats
    warms_up: bool = True  # a small request goes through it before it serves
    tool_format: str = ""  # how the model writes calls of tools (worker.parse); "": it does not
    reasoning_format: str = ""  # how it writes its thoughts
    vision: Vision | None = None  # capability "vision"


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
    cached_tokens: int = 0  # prompt tokens that the engine found computed; it sets them
    state: Any = None  # the engine's own
    media: Any = None  # of Vision.place


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

    All calls come from one thread. `step` blocks for one forward pass at most. Raising from `add`
    fails those requests, from `step` all that it has; EngineDead ends the Worker.

    An engine may have two more: `set_adapters(adapters)` takes the whole wanted set of LoRA
    adapters (name -> path; raises OSError or ValueError in one sentence), and `metrics()` gives
    figures of its own by name, reported once a second.
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


@dataclass(slots=True)
class EmbedSpec:
    """What is known of an embedding or rerank model once it is loaded."""

    context_length: int  # tokens of one text or pair, with special tokens
    vocab_size: int
    dimensions: int = 1  # of a vector; 1: a score
    is_matryoshka: bool = False  # the front of a vector is a vector too
    matryoshka: list[int] = field(default_factory=list)  # of these lengths; []: of any
    bucket_tokens: int = 16  # texts whose lengths differ by less share a step: padding is cheap
    prompts: dict[str, str] = field(default_factory=dict)  # by name: what is put before a text
    default_prompt: str = ""
    device: str = "cpu"
    capabilities: list[str] = field(default_factory=list)
    warms_up: bool = True  # a small request goes through it before it serves
    tokenizer: Encoder | None = None  # for those who look at tokens


@dataclass(slots=True, eq=False)
class Text:
    """One text, or one pair (query, document), as an EmbedEngine takes it."""

    ids: list[int]  # with special tokens
    second_at: int = 0  # where a pair's second part begins (token type 1); 0: no pair


class EmbedEngine(Protocol):
    """Vectors (task "embed") or scores (task "rerank") of texts. All calls come from one thread.

    `tokenize` takes texts, or token ids as they are; with a `query`, each text is the document of a
    pair. `max_tokens` 0: nothing is cut (the Worker refuses what is above the context); else a
    text, or the document of a pair, is cut at its end to so many, and to what the context leaves
    room for. Raises ApiError for what it cannot take.
    `encode` is one step: float32 [len(texts), dimensions], as the client gets them (pooled,
    normalised; scores after their sigmoid); it pads. Raising costs the requests of this batch;
    EngineDead ends the Worker. It may have `metrics()`, as a StepEngine.
    """

    spec: EmbedSpec

    def load(self, progress: Callable[[float], None]) -> None: ...
    def tokenize(
        self, texts: list[str | list[int]], query: str | None, max_tokens: int
    ) -> list[Text]: ...
    def encode(self, texts: list[Text]) -> NDArray[np.float32]: ...
    def close(self) -> None: ...
