"""Every message between SMMF's processes, as tagged msgspec structs.

Three paths use them: Router <-> Worker over ZeroMQ (a frame is a *list* of messages), payloads of
ring records Worker -> Router, and Controller <-> children over the control socket.
Owns the wire vocabulary; must not hold behaviour.
"""

from __future__ import annotations

from typing import Any

import msgspec

PROTOCOL = 6  # raised when a message changes its meaning or its fields

# Kinds of ring records (csrc/FORMAT.md)
ADMIT, TOKENS, CHOICE_END, DATA, RESULT, FINISH, FAIL, REASONING, TOOL = 1, 2, 3, 4, 5, 6, 7, 8, 9
Record = tuple[int, int, int, int, int, bytes]
"""A record as its writer gives it: (kind, key, attempt, choice, count, payload)."""
OVERFLOW = 0  # event of the StreamTable: the client reads too slowly
FAILURE_BYTES = 448  # the reserved room of a terminal record, less its header

REASONS = ("stop", "length", "tool_calls", "content_filter")
STOP, LENGTH, TOOL_CALLS, CONTENT_FILTER = range(4)


class Message(msgspec.Struct, array_like=True, gc=False, tag=True):
    """Base of all messages: an array whose first element is the struct's name."""


# --- Router -> Worker (ZeroMQ) ------------------------------------------------------------------


class Sampling(msgspec.Struct, array_like=True, gc=False):
    """How to choose tokens; OpenAI's names. `max_tokens` None: up to the context's end."""

    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] | None = None
    seed: int = 0  # always drawn by the Router, so that a request can go on elsewhere
    stop: list[str] = []
    stop_token_ids: list[int] = []
    include_stop: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None  # None: no; k: the chosen token's and the k best
    is_seeded: bool = False  # the client gave the seed: equal requests must have equal answers


class Image(msgspec.Struct, array_like=True, gc=False):
    """A picture of a chat, as it came: not looked into."""

    data: bytes
    param: str  # where the client's request has it


class Submit(Message):
    """One request for one Worker. `key` is unique in its Router, `attempt` counts re-placements."""

    key: int
    attempt: int
    request_id: str
    model: str
    stream: bool  # False: aggregate into one Result
    n: int  # choices per prompt
    messages: list[dict[str, Any]] | None  # chat; else `prompts`
    prompts: list[str | list[int]] | None
    sampling: Sampling
    echo_prompt: bool = False  # completions' `echo`
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    template_args: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None
    priority: int = 0
    echo: dict[str, Any] | None = None  # the echo engine's settings of this request
    emitted_ids: list[list[int]] | None = None  # per choice: tokens already sent by a lost Worker
    adapter: str = ""  # LoRA adapter: the model was asked for as `base:adapter`
    parallel_tool_calls: bool = True  # False: one call at most
    may_be_cut: bool = False  # max_tokens beyond the context's end are no error
    images: list[Image] = []  # of the parts {"type": "image"} in `messages`, in their order


class Embed(Message):
    """Texts for one Worker of an embedding model; of a rerank model, with the `query` that they are
    scored against, or with `queries`, one a text. Answered by ADMIT, one RESULT (Vectors) and
    FINISH, or by FAIL."""

    key: int
    attempt: int
    request_id: str
    model: str
    inputs: list[str | list[int]]
    query: str | None = None
    dimensions: int | None = None  # of the vectors, where the model has several
    max_tokens: int = 0  # of one text, or of one document: longer ones are cut; -1: to the context
    prompt_name: str | None = None  # which of the model's prompts goes before each text
    priority: int = 0
    queries: list[str] | None = None
    param: str = "input"  # what the client calls the inputs


class Tokenize(Message):
    """A text, or a chat, whose tokens are wanted. Answered at once, whatever the Worker computes:
    by RESULT (Tokenized) and FINISH, or by FAIL."""

    key: int
    attempt: int
    request_id: str
    model: str
    text: str
    messages: list[dict[str, Any]] | None  # a chat; else `text`
    add_special: bool
    with_strings: bool  # what each token stands for, too
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    template_args: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    priority: int = 0
    images: list[Image] = []  # as a Submit's


class Detokenize(Message):
    """Tokens whose text is wanted. Answered as a Tokenize, by a Detokenized."""

    key: int
    attempt: int
    request_id: str
    model: str
    tokens: list[int]
    priority: int = 0


class Cancel(Message):
    """Forget a request; nothing is answered."""

    key: int
    attempt: int


# --- Worker -> Router (ZeroMQ) ------------------------------------------------------------------


class Ready(Message):
    """First words of a Worker to a Router, after its ring is mapped."""

    worker: int
    incarnation: int
    epoch: int  # the Router's, as given by the Controller: a former Router's Worker is not taken
    slots: int
    context_length: int


Request = Submit | Embed | Tokenize | Detokenize
ToWorker = Submit | Embed | Tokenize | Detokenize | Cancel
ToRouter = Ready

# --- payloads of ring records -------------------------------------------------------------------


class TokenLogprob(msgspec.Struct, array_like=True, gc=False):
    token: bytes
    logprob: float | None
    top: list[tuple[bytes, float]]


class TokenBatch(msgspec.Struct, array_like=True, gc=False):
    """Payload of DATA: tokens of one choice with their logprobs."""

    text: str
    ids: list[int]
    logprobs: list[TokenLogprob]


class ToolDelta(msgspec.Struct, array_like=True, gc=False):
    """Payload of TOOL, in a list: what is new of one call. `id` and `name` come once, first."""

    index: int  # of the call in its choice
    id: str
    name: str
    arguments: str  # the next piece of their JSON


class ToolCall(msgspec.Struct, array_like=True, gc=False):
    id: str
    name: str
    arguments: str  # JSON
    at: int = 0  # characters of the choice's text that come before it


class Choice(msgspec.Struct, array_like=True, gc=False):
    text: str
    ids: list[int]
    reason: int
    logprobs: list[TokenLogprob] | None = None
    reasoning: str = ""
    tool_calls: list[ToolCall] = []
    stop: str = ""  # the stop string that ended it


class Result(msgspec.Struct, array_like=True, gc=False, tag=True):
    """Payload of RESULT: the whole answer of a Submit that does not stream."""

    choices: list[Choice]


class Vectors(msgspec.Struct, array_like=True, gc=False, tag=True):
    """Payload of RESULT: what an Embed asked for, one row per text; a score is a row of one."""

    data: bytes  # float32, little-endian, row by row
    dimensions: int
    tokens: list[int]  # of each text


class Tokenized(msgspec.Struct, array_like=True, gc=False, tag=True):
    """Payload of RESULT: a Tokenize's. The lists are JSON: a Router passes them on."""

    count: int
    context_length: int
    ids: bytes
    strings: bytes  # b"" where they were not asked for


class Detokenized(msgspec.Struct, array_like=True, gc=False, tag=True):
    """Payload of RESULT: a Detokenize's."""

    text: str


Whole = Result | Vectors | Tokenized | Detokenized  # what a RESULT may hold


class Failure(msgspec.Struct, array_like=True, gc=False):
    """Payload of FAIL: an error by its code (errors.KINDS)."""

    code: str
    message: str
    param: str | None = None


class Usage(msgspec.Struct, array_like=True, gc=False):
    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0


encode = msgspec.msgpack.Encoder().encode
