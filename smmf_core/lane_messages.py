"""Every message between the client library and a Router, as tagged msgspec structs.

A frame is a msgpack list of messages, one frame per peer and loop turn. Owns that vocabulary and
the form of a stream's lines; must not hold behaviour.
"""

from __future__ import annotations

import msgspec

from smmf_core.messages import Message, ToolDelta, Usage

WINDOW_BYTES = 1 << 16  # of a stream, sent and not yet read by its reader: beyond it nothing goes
PING_S = 1.0  # a client with open requests hears from its Router at least so often
SOCKETS = "client-*.sock"  # in the run directory, one per Router

# Kinds of a stream's lines
TEXT, THOUGHT, CALLS, USAGE, ERROR = range(5)

# --- client -> Router ---------------------------------------------------------------------------


class Ask(Message):
    """One request: what HTTP would have as its path, its JSON body and the headers we know."""

    id: int  # the client's own number for it, never used twice on a connection
    path: str
    body: bytes = b""
    key: str = ""
    request_id: str = ""


class Stop(Message):
    """Forget it; nothing more is answered."""

    id: int


class Grant(Message):
    """The stream's reader has taken so many more bytes."""

    id: int
    read: int


# --- Router -> client ---------------------------------------------------------------------------


class Answered(Message):
    """The whole answer, good or bad. `headers`: lines as in HTTP."""

    id: int
    status: int
    headers: bytes
    body: bytes


class Began(Message):
    """A stream's first word."""

    id: int
    headers: bytes


class Events(Message):
    """Of each stream with something new its lines (Line as JSON, each with its line feed)."""

    parts: list[tuple[int, bytes]]


class Ended(Message):
    """A stream is over; its last line was its usage or an error."""

    id: int


class Cut(Message):
    """The Router gave up on a stream that was not read."""

    id: int


class Ping(Message):
    """The Router lives; it learns at once when the client does not."""


class Misread(Message):
    """A frame of the client's means nothing to this Router."""

    build: str


ToLane = Ask | Stop | Grant
FromLane = Answered | Began | Events | Ended | Cut | Ping | Misread


class Line(msgspec.Struct, array_like=True, gc=False):
    """One event of a stream."""

    choice: int
    kind: int
    text: str
    finish: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw(b"null")
    usage: Usage | None = None
    calls: list[ToolDelta] | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")
