# distutils: language = c++
"""The Python face of csrc/smmf/batcher.hpp; it translates types, the rules are in the header."""

from libc.stdint cimport int64_t, uint64_t
from libcpp cimport bool


cdef class Batcher:
    def __cinit__(
        self, int64_t max_batch_size, int64_t max_batch_tokens, double max_delay_s, bool static
    ):
        cdef BatchLimits limits
        limits.sequences = max_batch_size
        limits.tokens = max_batch_tokens
        limits.max_delay_s = max_delay_s
        limits.is_static = static
        self.native.reset(new NativeBatcher(limits))

    def add(self, uint64_t key, int64_t width, int64_t tokens, int64_t priority, double now):
        self.native.get().add(key, width, tokens, priority, now)

    def cancel(self, uint64_t key):
        return self.native.get().cancel(key)

    def finish(self, uint64_t key):
        return self.native.get().finish(key)

    def next(self, double now):
        self.native.get().next(now, self.joining)
        return self.joining

    def next_deadline(self):
        return self.native.get().next_deadline()

    @property
    def waiting(self):
        return self.native.get().waiting()

    @property
    def running(self):
        return self.native.get().running()
