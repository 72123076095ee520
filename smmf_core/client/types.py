"""What calls answer, typed. Field names are OpenAI's; what a server adds is ignored.

Owns the shapes and their decoding; must not know sockets.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from smmf_core.client.errors import ClientError, refused
from smmf_core.lane_messages import CALLS, ERROR, THOUGHT, USAGE, Line

T = TypeVar("T")


class Details(msgspec.Struct):
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None


class Function(msgspec.Struct):
    name: str
    arguments: str  # JSON

    def parsed(self) -> dict[str, Any]:
        """Raises msgspec.DecodeError where the model's JSON is none, or was cut."""
        return msgspec.json.decode(self.arguments or "{}", type=dict[str, Any])


class ToolCall(msgspec.Struct):
    id: str
    function: Function
    type: str = "function"


class Message(msgspec.Struct):
    role: str = "assistant"
    content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] = []


class Choice(msgspec.Struct):
    index: int
    message: Message
    finish_reason: str
    logprobs: dict[str, Any] | None = None


class Answer(msgspec.Struct, kw_only=True):
    """What every whole answer has."""

    model: str
    request_id: str = ""
    instance: str = ""  # which replica answered


class Chat(Answer, kw_only=True):
    id: str
    choices: list[Choice]
    usage: Usage

    @property
    def text(self) -> str:
        """The first choice's content."""
        return self.choices[0].message.content or ""

    @property
    def reasoning(self) -> str:
        """What the first choice's model thought before it answered."""
        return self.choices[0].message.reasoning or ""

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The first choice's."""
        return self.choices[0].message.tool_calls

    def parsed(self, kind: type[T]) -> T:
        """The first choice's content, JSON (`response_format`), as `kind`: a dataclass, a msgspec
        Struct, a TypedDict, dict. Raises msgspec.ValidationError, msgspec.DecodeError."""
        return msgspec.json.decode(self.text, type=kind)


class TextChoice(msgspec.Struct):
    index: int
    text: str
    finish_reason: str
    logprobs: dict[str, Any] | None = None


class Completion(Answer, kw_only=True):
    id: str
    choices: list[TextChoice]
    usage: Usage

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text


class Embedding(msgspec.Struct):
    index: int
    embedding: list[float]


class Embeddings(Answer, kw_only=True):
    data: list[Embedding]
    usage: Usage

    @property
    def vectors(self) -> list[list[float]]:
        """One per input, in the order given."""
        return [row.embedding for row in self.data]


class Document(msgspec.Struct):
    text: str


class Score(msgspec.Struct):
    index: int  # of the document, as given
    relevance_score: float
    document: Document | None = None


class Ranking(Answer, kw_only=True):
    results: list[Score]  # the best first
    usage: Usage


class PairScore(msgspec.Struct):
    index: int
    score: float


class Scores(Answer, kw_only=True):
    data: list[PairScore]
    usage: Usage

    @property
    def scores(self) -> list[float]:
        """One per pair, in the order given."""
        return [row.score for row in self.data]


class Tokens(msgspec.Struct):
    """A text or a chat as the model reads it."""

    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class Text(msgspec.Struct):
    prompt: str


class Model(msgspec.Struct):
    id: str
    status: str = ""
    task: str = ""
    root: str = ""
    max_model_len: int | None = None
    capabilities: list[str] = []


class Models(msgspec.Struct):
    data: list[Model]


class CallDelta(msgspec.Struct):
    """What is new of one tool call; `id` and `name` come once, first."""

    index: int
    id: str
    name: str
    arguments: str


class Delta(msgspec.Struct, gc=False):
    """One piece of a stream: several tokens where they were there together."""

    choice: int = 0
    text: str = ""
    reasoning: str = ""
    tool_calls: list[CallDelta] = []
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None
    usage: Usage | None = None  # of the whole stream, in its last delta


_decode_lines = msgspec.json.Decoder(Line).decode_lines
_decode_logprobs = msgspec.json.Decoder(dict[str, Any] | None).decode


def deltas(lines: bytes) -> list[Delta | ClientError]:
    """What a frame says of a stream; an error is the stream's last."""
    return [_delta(line) for line in _decode_lines(lines)]


def _delta(line: Line) -> Delta | ClientError:
    kind = line.kind
    if kind == ERROR:
        return refused(0, bytes(line.error))
    usage = None
    if line.usage is not None:
        said = line.usage
        total = said.prompt + said.completion
        read, made = Details(said.cached), Details(0, said.reasoning)
        usage = Usage(said.prompt, said.completion, total, read, made)
    if kind == USAGE:
        return Delta(usage=usage)
    if kind == THOUGHT:
        return Delta(line.choice, reasoning=line.text, usage=usage)
    if kind == CALLS:
        calls = [CallDelta(c.index, c.id, c.name, c.arguments) for c in line.calls or []]
        return Delta(line.choice, tool_calls=calls, usage=usage)
    logprobs = _decode_logprobs(line.logprobs)
    return Delta(line.choice, line.text, "", [], line.finish, logprobs, usage)
