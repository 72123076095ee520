# distutils: language = c++
"""The Python face of csrc/smmf/scheduler.hpp; it translates types, the rules are in the header."""

import sys
import traceback
from typing import NamedTuple

from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint64_t
from libcpp cimport bool

ROUND_ROBIN = kRoundRobin
LEAST_CONNECTIONS = kLeastConnections
WEIGHTED = kWeighted
EXTERNAL = kExternal

OK = kOk
QUEUE_FULL = kQueueFull
TOKENS_FULL = kTokensFull
UNKNOWN_MODEL = kUnknownModel
DUPLICATE = kDuplicate


class Seat(NamedTuple):
    worker: int
    slots: int
    taken: int
    weight: float


cdef class _Rule:
    """A placement rule of Python's; after its first failure it is told of and not asked again."""

    cdef readonly object choose
    cdef bool has_failed

    def __init__(self, choose):
        self.choose = choose
        self.has_failed = False


cdef size_t _ask(void* context, const SlotTable& table, const Ask& ask) noexcept with gil:
    cdef _Rule rule = <_Rule>context
    cdef size_t nothing = <size_t>-1
    cdef size_t row
    cdef NativeSeat* seat
    if rule.has_failed:
        return nothing
    try:
        rows, seats = [], []
        for row in range(table.seats.size()):
            seat = table.seats[row]
            if ask.fits(seat[0]):
                rows.append(row)
                seats.append(Seat(seat.worker, seat.slots, seat.taken, seat.weight))
        chosen = rule.choose(seats, ask.width)
        if not 0 <= chosen < len(rows):
            raise IndexError(f"a placement rule chose seat {chosen} of {len(rows)}")
        return rows[chosen]
    except BaseException:  # sys.exit too: it would end the Router
        rule.has_failed = True
        traceback.print_exc(file=sys.stderr)
        return nothing


cdef class Scheduler:
    def __init__(self):
        self.rules = {}

    def set_model(
        self, int64_t model, int strategy, int64_t max_waiting, int64_t max_waiting_tokens,
        rule=None,
    ):
        cdef External external
        kept = self.rules.get(model)
        if rule is not None:
            if kept is None or kept.choose is not rule:
                kept = _Rule(rule)
            external.call = _ask
            external.context = <void*>kept
        self.native.set_model(model, strategy, max_waiting, max_waiting_tokens, external)
        self.rules[model] = kept  # the model's table has its address from now on

    def remove_model(self, int64_t model):
        return self.native.remove_model(model)

    def set_tenant(self, int64_t tenant, double weight):
        self.native.set_tenant(tenant, weight)

    def worker_up(self, int64_t worker, int64_t model, int64_t slots, double weight):
        self.native.worker_up(worker, model, slots, weight)

    def worker_set(self, int64_t worker, int64_t slots, double weight, bool accepting):
        self.native.worker_set(worker, slots, weight, accepting)

    def worker_down(self, int64_t worker):
        return self.native.worker_down(worker)

    def submit(
        self, uint64_t key, int64_t model, int64_t tenant, int64_t priority, int64_t width,
        int64_t tokens, double deadline, double now, double latest=INFINITY,
    ):
        return self.native.submit(
            Submission(key, model, tenant, priority, width, tokens, deadline, latest, now)
        )

    def resubmit(
        self, uint64_t key, int64_t model, int64_t tenant, int64_t priority, int64_t width,
        int64_t tokens, double deadline, double now, int64_t exclude_worker,
        double latest=INFINITY,
    ):
        return self.native.resubmit(
            Submission(key, model, tenant, priority, width, tokens, deadline, latest, now),
            exclude_worker,
        )

    def cancel(self, uint64_t key):
        return self.native.cancel(key)

    def finish(self, uint64_t key):
        return self.native.finish(key)

    def correct_tokens(self, uint64_t key, int64_t tokens):
        self.native.correct_tokens(key, tokens)

    def set_wait_until(self, int64_t model, double until, bool only_later):
        self.native.set_wait_until(model, until, only_later)

    def poll(self, double now):
        self.native.poll(now, self.assigned, self.expired)
        return [(a.key, a.worker) for a in self.assigned], self.expired

    def next_deadline(self):
        return self.native.next_deadline()

    def waiting(self, int64_t model):
        return self.native.waiting(model)

    def oldest(self, int64_t model):
        return self.native.oldest(model)

    def running(self, int64_t model):
        return self.native.running(model)

    def in_flight(self, int64_t worker):
        return self.native.in_flight(worker)

    def free_slots(self, int64_t model):
        return self.native.free_slots(model)

    def position(self, uint64_t key):
        return self.native.position(key)
