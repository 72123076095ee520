"""One HTTP request on its way through a Router, and what its answer needs of others.

Owns what is known of a request beside its answer's state; must not queue, place or render.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from smmf_core.errors import ApiError
from smmf_core.messages import Usage
from smmf_core.metrics import ModelMetrics
from smmf_core.native._frames import StreamTable

if TYPE_CHECKING:
    from smmf_core.api.dialect import ErrorForm
    from smmf_core.control_messages import ModelEntry
    from smmf_core.router.core import Open
    from smmf_core.router.keys import Admission, Key
    from smmf_core.router.response import Answer


JSON = b"content-type: application/json\r\n"


class Connection(Protocol):
    """What an answer needs of its HTTP request (http.request.Request). `headers`: whole lines."""

    @property
    def fileno(self) -> int: ...
    @property
    def chunked(self) -> bool: ...
    @property
    def is_paused(self) -> bool: ...
    def head(self, status: int, headers: bytes) -> bytes: ...
    def respond(self, status: int, headers: bytes, body: bytes) -> None: ...
    def begin_stream(self) -> None: ...
    def write_raw(self, data: bytes) -> None: ...
    def end_stream(self, close: bool) -> None: ...
    def abort(self) -> None: ...


class Call:
    """From its arrival to its end. `headers`: the lines that go with any answer."""

    __slots__ = (
        "admission",
        "base_model",
        "connection",
        "errors",
        "has_rate_lines",
        "headers",
        "is_for_worker",
        "key",
        "metrics",
        "model",
        "received_at",
        "request_id",
        "route",
        "stream",
        "tenant",
    )

    def __init__(
        self,
        connection: Connection,
        request_id: bytes,
        headers: bytes,
        received_at: float,
        errors: ErrorForm | None = None,
    ) -> None:
        self.connection = connection
        self.request_id = request_id.decode()
        self.headers = headers
        self.received_at = received_at
        self.errors = errors  # how its client knows errors; None: as OpenAI's do
        self.key: Key | None = None  # None: none is needed
        self.tenant = 0  # the number of its key, from 1
        self.admission: Admission | None = None  # what it has taken of its key's limits
        self.has_rate_lines = False  # among the headers, of what its key has left
        self.is_for_worker = False  # it is to be counted as its key's
        self.route = ""
        self.model = ""  # as the client named it; once found, its own name, with the adapter
        self.base_model = ""  # once found, without the adapter
        self.stream = False
        self.metrics: ModelMetrics | None = None  # of what a Worker is to answer

    def status(self, error: ApiError) -> int:
        return error.status if self.errors is None else self.errors.status(error)

    def may_ask(self, model: ModelEntry, adapter: str = "") -> bool:
        return self.key is None or self.key.may_ask(model, adapter)

    def check_model(self, model: ModelEntry, adapter: str) -> None:
        """Raises ApiError 403: it is not for this key."""
        if self.key is not None:
            self.key.check_model(model, adapter)

    def timed(self, now: float, instance: str = "") -> bytes:
        """The lines, how long it has taken until `now`, and who answers."""
        took_ms = (now - self.received_at) * 1000
        if not instance:
            return b"%bopenai-processing-ms: %d\r\n" % (self.headers, took_ms)
        line = b"%bopenai-processing-ms: %d\r\nx-smmf-instance: %b\r\n"
        return line % (self.headers, took_ms, instance.encode())

    def refuse(self, headers: bytes, error: ApiError) -> None:
        """An error as the whole answer."""
        if self.errors is None:
            body = error.body()
        else:
            body = self.errors.body(error, self.request_id)
        self.connection.respond(self.status(error), JSON + error.header_lines() + headers, body)


class End:
    """How a request ended, for the access log."""

    __slots__ = ("at", "finish", "first_token_at", "status", "usage")

    def __init__(
        self, at: float, status: int, finish: str, usage: Usage, first_token_at: float = 0.0
    ) -> None:
        self.at = at
        self.status = status  # 499: the client went away
        self.finish = finish  # the finish reason, else the error's code, else why it was cancelled
        self.usage = usage
        self.first_token_at = first_token_at  # 0.0: there was none


class Owner(Protocol):
    """Who has the open answers: the Router's shell."""

    @property
    def table(self) -> StreamTable: ...
    @property
    def now(self) -> float: ...
    def on_end(self, answer: Answer) -> None:
        """A terminal event came."""

    def render_aside(self, answer: Answer, render: Callable[[], bytes]) -> None:
        """Make an answer's body beside the loop, then `rendered`."""

    def record(self, call: Call, request: Open | None, end: End) -> None:
        """A request is over: what it has used is counted, and the access log gets a line."""
