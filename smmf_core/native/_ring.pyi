from collections.abc import Sequence

TERMINAL_BYTES: int

def create(capacity_bytes: int, terminal_slots: int) -> int:
    """A new ring's memfd, its header written. Raises ValueError for bad sizes, OSError else."""

def wait(fds: Sequence[int], timeout_s: float | None) -> bool:
    """ppoll(2) for reading, microsecond time-out, GIL released; None waits for ever.

    True if any is readable; False at the time-out or after a signal (its Python handler has run).
    """

def drain_eventfd(fd: int) -> None:
    """Reset a non-blocking eventfd's counter."""

class RingWriter:
    """The Worker's end (csrc/FORMAT.md). Does not own the descriptors; the memfd may be closed."""

    def __init__(self, memfd: int, data_fd: int, space_fd: int) -> None: ...
    def write(self, records: list[tuple[int, int, int, int, int, bytes]]) -> int:
        """Publish as many leading (kind, key, attempt, choice, count, payload) as fit; how many.

        When not all fit, `space_fd` becomes readable once the reader has made room. Parts of the
        first record not written may be in the ring: it goes on when it comes first in the next
        call, and the reader drops it when another does. ValueError for a kind or size that no
        record has.
        """
    def step(self, steps: int) -> None: ...
    @property
    def used_bytes(self) -> int: ...
    @property
    def free_bytes(self) -> int: ...
    def close(self) -> None: ...

class RingReader:
    """The Router's end. Raises RuntimeError once the ring holds a malformed record."""

    def __init__(self, memfd: int, data_fd: int, space_fd: int) -> None: ...
    def drain(self, limit: int = 65536) -> list[tuple[int, int, int, int, int, bytes]]:
        """All whole records that are there, continued ones joined."""
    def arm(self) -> bool:
        """Ask to be rung before sleeping; False when records are there: drain again."""
    @property
    def steps(self) -> int: ...
    @property
    def full(self) -> int: ...
    def close(self) -> None: ...
