class Heartbeat:
    """A native thread that sends `packet` every `period_s`: it needs neither the GIL nor Python."""

    def __init__(self, packet: bytes, period_s: float) -> None: ...
    def follow(self, fd: int) -> None:
        """Send to this socket (a duplicate is kept) until told another; -1: to none. The first
        packet comes after a period. Raises OSError for a descriptor that is not open."""
    def stop(self) -> None:
        """End the thread; may be called again."""
    @property
    def beats(self) -> int:
        """Packets that the peer had room for."""
