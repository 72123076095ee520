"""One request as the client has it: what it asks, and where its answer's parts go.

Owns nothing but that; must not know sockets or threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from smmf_core.client.errors import ClientError, refused
from smmf_core.client.types import Answer
from smmf_core.lane_messages import Answered, Ask, Began, Ended

T = TypeVar("T")
Part = Answered | Began | bytes | Ended | ClientError
"""bytes: lines of a stream"""


class Exchange:
    """`put` is called with each part, by whoever drives the connection; the last one is Answered,
    Ended or an exception. `patience`: how long it waits for a server, and how often it is sent
    again when a connection is lost before any part has come."""

    __slots__ = ("ask", "connect_s", "give_up_at", "has_part", "is_over", "put", "retries")

    def __init__(self, ask: Ask, put: Callable[[Part], None], patience: tuple[float, int]) -> None:
        self.ask = ask
        self.put = put
        self.connect_s, self.retries = patience
        self.give_up_at = 0.0  # while it waits for a server
        self.has_part = False
        self.is_over = False


def header_lines(lines: bytes) -> dict[str, str]:
    pairs = (line.partition(": ") for line in lines.decode("latin-1").split("\r\n") if line)
    return {name: value for name, _, value in pairs}


def whole(part: Part, decode: Callable[[bytes], T]) -> T:
    """The answer of a request that is answered whole. Raises ClientError."""
    if isinstance(part, ClientError):
        raise part
    if not isinstance(part, Answered):
        raise ClientError(f"the server sent {type(part).__name__} for a whole answer")
    headers = header_lines(part.headers)
    if part.status != 200:
        raise refused(part.status, part.body, headers)
    try:
        answer = decode(part.body)
    except msgspec.MsgspecError as error:
        raise ClientError(f"the server's answer cannot be read: {error}") from None
    if isinstance(answer, Answer):
        answer.request_id = headers.get("x-request-id", "")
        answer.instance = headers.get("x-smmf-instance", "")
    return answer
