class Batcher:
    """Which waiting requests enter the next step; rules and limits in csrc/smmf/batcher.hpp."""

    def __init__(
        self, max_batch_size: int, max_batch_tokens: int, max_delay_s: float, static: bool
    ) -> None:
        """Sizes in sequences and in prompt tokens per step (0: no limit). Raises ValueError."""

    def add(self, key: int, width: int, tokens: int, priority: int, now: float) -> None:
        """`width` sequences of one request, `tokens` of prompt. ValueError for a key in use."""

    def cancel(self, key: int) -> bool:
        """A waiting or running request left. False if it is unknown."""

    def finish(self, key: int) -> bool:
        """A running request left. False if it does not run."""

    def next(self, now: float) -> list[int]:
        """Keys that join the next step; they are running from now on. Once per step."""

    def next_deadline(self) -> float:
        """When next() would release something; in the past: at once; inf: not by itself."""

    @property
    def waiting(self) -> int:
        """Requests that wait."""

    @property
    def running(self) -> int:
        """Sequences that run."""
