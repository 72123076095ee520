"""One HTTP exchange of the load generator: request bytes out, answer in, judged at its end.

A stream that ends without a finish chunk and `[DONE]`, or with an error event, is an error,
whatever its status. Owns one answer's bytes; must not do I/O.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

_CONTENT = re.compile(rb'"(?:content|text)":"(?!")')  # a chunk with text; role chunks have none
_FINISH = re.compile(  # of an answer in text, or of one in vectors, which has none
    rb'"finish_reason":\s?"(?:stop|length|tool_calls)"|"object":\s?"list"'
)
_COMPLETION = re.compile(rb'"completion_tokens":\s?(\d+)')
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(slots=True)
class Outcome:
    """What became of one request; times in seconds since the run began."""

    due_s: float  # when it should have been sent: an open loop measures from here
    first_s: float = 0.0
    end_s: float = 0.0
    tokens: int = 0
    error: str = ""


def request_bytes(host: str, path: str, body: dict[str, object], key: str = "") -> bytes:
    """A POST with a JSON body on a kept-alive connection."""
    payload = json.dumps(body).encode()
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"{authorization}Content-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


@dataclass(slots=True)
class Exchange:
    """Collects one answer. `feed` returns True once it is complete."""

    outcome: Outcome
    is_stream: bool
    received: bytearray = field(default_factory=bytearray)
    _body_at: int = 0
    _length: int = -1

    def feed(self, data: bytes, now_s: float) -> bool:
        self.received += data
        if not self._body_at and not self._read_head():
            return False
        if self.is_stream and not self.outcome.first_s and _CONTENT.search(self.received):
            self.outcome.first_s = now_s
        if self._length >= 0:
            return len(self.received) - self._body_at >= self._length
        return self.received.endswith(_LAST_CHUNK, self._body_at)  # a head may end like it

    def close(self, now_s: float) -> Outcome:
        """Judge the complete answer."""
        outcome = self.outcome
        outcome.end_s = now_s
        outcome.first_s = outcome.first_s or now_s
        tokens = _COMPLETION.findall(self.received)
        outcome.tokens = int(tokens[-1]) if tokens else 0
        outcome.error = self._judge()
        return outcome

    def _read_head(self) -> bool:
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return False
        self._body_at = end + 4
        length = _LENGTH.search(self.received, 0, end + 2)
        self._length = int(length[1]) if length else -1
        return True

    def _judge(self) -> str:
        status = bytes(self.received[9:12])
        if status != b"200":
            return f"status {status.decode('latin-1')}"
        if b'data: {"error"' in self.received:
            return "error event"
        if not _FINISH.search(self.received):
            return "no finish reason"
        if self.is_stream and b"data: [DONE]" not in self.received:
            return "no [DONE]"
        return ""
