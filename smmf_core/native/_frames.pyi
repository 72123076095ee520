from smmf_core.native._ring import RingReader

def escape_json(text: bytes) -> bytes:
    """The inside of a JSON string literal; bytes that are not UTF-8 become U+FFFD."""

class Frame:
    """The fixed parts of a dialect's events, shared by its streams (csrc/smmf/frames.hpp).

    A text event of choice i is prefix i text_open TEXT text_close `null` tail; a finish event is
    prefix i finish_open reason tail, or with merge_finish the last text event with the reason.
    `reasoning` is what stands before the text of a thought, between it and the same text again
    (b"": it comes once), and behind. What follows a stream's first TOOL is left to Python. Without
    `has_choices` events have neither i nor `null`, and the finish is left to Python, too.
    """

    def __init__(
        self,
        text_open: bytes,
        text_close: bytes,
        finish_open: bytes,
        tail: bytes,
        reasons: tuple[bytes, bytes, bytes, bytes],
        merge_finish: bool,
        reasoning: tuple[bytes, bytes, bytes] = ...,
        has_choices: bool = ...,
    ) -> None: ...

class StreamTable:
    """All open streams of a Router. Times are seconds of the caller's monotonic clock."""

    def __init__(self, max_pending_bytes: int) -> None: ...
    def open(
        self,
        key: int,
        attempt: int,
        fd: int,
        frame: Frame | None,
        prefix: bytes,
        head: bytes,
        first: bytes,
        chunked: bool,
        now: float,
    ) -> None:
        """Make a stream (again). fd -1: flush returns its bytes. frame None: Python frames it.

        `head` (response head, never chunked) and `first` (body bytes) are queued at ADMIT.
        """
    def drain(
        self, reader: RingReader, now: float, events: list[tuple[int, int, int, int, bytes]]
    ) -> int:
        """Take a ring's records; how many. Appends (key, kind, choice, count, payload) of what
        Python must see; kind 0: that client's pending bytes exceed the bound."""
    def append(self, key: int, payload: bytes, end: bool) -> None:
        """Queue body bytes; `end` also ends the body."""
    def flush(self) -> list[tuple[int, bytes]]:
        """One send per stream with pending bytes. Returns (key, rest) where the kernel did not take
        all (the stream is blocked now; empty rest: the connection is broken) or fd is -1."""
    def block(self, key: int) -> None: ...
    def unblock(self, key: int) -> None: ...
    def ended(self, key: int) -> bool:
        """Whether the body has ended and all its bytes have left."""
    def stats(self, key: int) -> tuple[float, float, float, float, int, int]:
        """(opened, admitted, first token, last token at, tokens, why the last choice ended); 0.0
        and -1 where not yet."""
    def stale(self, now: float, first_s: float, between_s: float) -> list[int]: ...
    def quiet(self, now: float, quiet_s: float) -> list[int]:
        """Admitted streams that read, and had nothing to read for longer than `quiet_s`."""
    def emitted(self, key: int) -> tuple[bool, int]:
        """(whether bytes have left, tokens seen)"""
    def close(self, key: int) -> None: ...
    def __len__(self) -> int: ...
    @property
    def late_records(self) -> int: ...
