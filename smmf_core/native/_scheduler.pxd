from libc.stdint cimport int64_t, uint64_t
from libcpp cimport bool
from libcpp.pair cimport pair
from libcpp.vector cimport vector


cdef extern from "smmf/scheduler.hpp" namespace "smmf" nogil:
    cdef enum:
        kRoundRobin
        kLeastConnections
        kWeighted
        kExternal
        kOk
        kQueueFull
        kTokensFull
        kUnknownModel
        kDuplicate

    cdef struct Submission:
        uint64_t key
        int64_t model
        int64_t tenant
        int64_t priority
        int64_t width
        int64_t tokens
        double deadline
        double latest
        double now

    cdef struct Assignment:
        uint64_t key
        int64_t worker

    cdef cppclass NativeSeat "smmf::Seat":
        int64_t worker
        int64_t slots
        int64_t taken
        double weight

    cdef cppclass Ask:
        int64_t width
        bool fits(const NativeSeat&)

    cdef cppclass SlotTable:
        vector[NativeSeat*] seats

    cdef cppclass External:
        size_t (*call)(void*, const SlotTable&, const Ask&)
        void* context

    cdef cppclass NativeScheduler "smmf::Scheduler":
        void set_model(int64_t, int, int64_t, int64_t, External) except +
        vector[uint64_t] remove_model(int64_t) except +
        void set_tenant(int64_t, double) except +
        void worker_up(int64_t, int64_t, int64_t, double) except +
        void worker_set(int64_t, int64_t, double, bool) except +
        vector[uint64_t] worker_down(int64_t) except +
        int submit(const Submission&) except +
        int resubmit(const Submission&, int64_t) except +
        int64_t cancel(uint64_t) except +
        bool finish(uint64_t) except +
        void correct_tokens(uint64_t, int64_t) except +
        void poll(double, vector[Assignment]&, vector[uint64_t]&) except +
        void set_wait_until(int64_t, double, bool) except +
        double next_deadline()
        double oldest(int64_t)
        pair[int64_t, int64_t] waiting(int64_t)
        int64_t running(int64_t)
        int64_t in_flight(int64_t)
        int64_t free_slots(int64_t)
        int64_t position(uint64_t)


cdef class Scheduler:
    cdef NativeScheduler native
    cdef dict rules
    cdef vector[Assignment] assigned
    cdef vector[uint64_t] expired
