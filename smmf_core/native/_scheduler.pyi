from collections.abc import Callable
from typing import NamedTuple

ROUND_ROBIN: int
LEAST_CONNECTIONS: int
WEIGHTED: int
EXTERNAL: int

OK: int
QUEUE_FULL: int
TOKENS_FULL: int
UNKNOWN_MODEL: int
DUPLICATE: int

class Seat(NamedTuple):
    """One worker that has room, as a placement rule sees it."""

    worker: int
    slots: int
    taken: int
    weight: float

Rule = Callable[[list[Seat], int], int]
"""(workers with room, slots that are needed) -> which of them, by its place in the list"""

class Scheduler:
    """Which request goes to which worker, and when; rules in csrc/smmf/{scheduler,wait_queue,
    placement}.hpp. Keys are unsigned 64 bits; workers are not negative; times are seconds of one
    clock of the caller's; misuse raises ValueError."""

    def __init__(self) -> None: ...
    def set_model(
        self,
        model: int,
        strategy: int,
        max_waiting: int,
        max_waiting_tokens: int,
        rule: Rule | None = None,
    ) -> None:
        """Add a model or change it. Limits: requests and tokens that may wait, 0 for no limit.

        `rule` is who chooses with EXTERNAL. Should it raise or choose what there is not, that is
        told on stderr once, and LEAST_CONNECTIONS chooses from then on.
        """

    def remove_model(self, model: int) -> list[int]:
        """Returns the keys that waited, now forgotten, in arrival order. What runs goes on."""

    def set_tenant(self, tenant: int, weight: float) -> None:
        """Its share against others of the same priority; a tenant never set weighs 1."""

    def worker_up(self, worker: int, model: int, slots: int, weight: float) -> None:
        """A worker that is not up yet takes requests from now on."""

    def worker_set(self, worker: int, slots: int, weight: float, accepting: bool) -> None:
        """Changed share, or offline and online; what runs there goes on."""

    def worker_down(self, worker: int) -> list[int]:
        """Returns the keys that ran there, now forgotten, in the order they were placed."""

    def submit(
        self,
        key: int,
        model: int,
        tenant: int,
        priority: int,
        width: int,
        tokens: int,
        deadline: float,
        now: float,
        latest: float = ...,
    ) -> int:
        """Returns a status. A deadline already past is reported by the next poll(); `latest` bounds
        what set_wait_until may make of it, inf by default."""

    def resubmit(
        self,
        key: int,
        model: int,
        tenant: int,
        priority: int,
        width: int,
        tokens: int,
        deadline: float,
        now: float,
        exclude_worker: int,
        latest: float = ...,
    ) -> int:
        """As submit, before its equals, beyond the limits, and elsewhere if there is elsewhere."""

    def cancel(self, key: int) -> int:
        """-2 unknown, -1 it was waiting, else the worker it ran on. Its slots are free."""

    def finish(self, key: int) -> bool:
        """Its slots are free. False for a key that does not run."""

    def correct_tokens(self, key: int, tokens: int) -> None:
        """The real size is known: its tenant's account and the limits are put right."""

    def set_wait_until(self, model: int, until: float, only_later: bool) -> None:
        """A new deadline for all that waits for the model; `only_later`: where it is a later one.
        A request's `latest` is never passed."""

    def poll(self, now: float) -> tuple[list[tuple[int, int]], list[int]]:
        """Returns ([(key, worker)] that run from now on, [keys whose deadline is past])."""

    def next_deadline(self) -> float:
        """The earliest deadline among what waits, inf if none."""

    def waiting(self, model: int) -> tuple[int, int]:
        """Requests and tokens that wait."""

    def oldest(self, model: int) -> float:
        """When the request that has waited longest began to wait; inf if none waits."""

    def running(self, model: int) -> int:
        """Requests that run."""

    def in_flight(self, worker: int) -> int:
        """Slots taken."""

    def free_slots(self, model: int) -> int:
        """Slots of accepting workers that nobody has."""

    def position(self, key: int) -> int:
        """How many of its model would be placed before it; -1 if it does not wait. O(n)."""
