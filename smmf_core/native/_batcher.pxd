from libc.stdint cimport int64_t, uint64_t
from libcpp cimport bool
from libcpp.memory cimport unique_ptr
from libcpp.vector cimport vector


cdef extern from "smmf/batcher.hpp" namespace "smmf" nogil:
    cdef struct BatchLimits:
        int64_t sequences
        int64_t tokens
        double max_delay_s
        bool is_static

    cdef cppclass NativeBatcher "smmf::Batcher":
        NativeBatcher(const BatchLimits&) except +
        void add(uint64_t, int64_t, int64_t, int64_t, double) except +
        bool cancel(uint64_t)
        bool finish(uint64_t)
        void next(double, vector[uint64_t]&) except +
        double next_deadline()
        int64_t waiting()
        int64_t running()


cdef class Batcher:
    cdef unique_ptr[NativeBatcher] native
    cdef vector[uint64_t] joining
