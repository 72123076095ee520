"""Python face of csrc/smmf/heartbeat.hpp."""

from libc.stdint cimport int64_t, uint64_t
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string

import os

cdef extern from "<chrono>" namespace "std::chrono" nogil:
    cppclass nanoseconds:
        nanoseconds(int64_t count)

cdef extern from "smmf/heartbeat.hpp" namespace "smmf" nogil:
    cppclass CHeartbeat "smmf::Heartbeat":
        CHeartbeat(string packet, nanoseconds period) except +
        int Follow(int fd)
        void Stop()
        uint64_t beats()


cdef class Heartbeat:
    cdef unique_ptr[CHeartbeat] c

    def __cinit__(self, bytes packet not None, double period_s):
        self.c.reset(new CHeartbeat(<string>packet, nanoseconds(<int64_t>(period_s * 1e9))))

    def follow(self, int fd):
        cdef int error = self.c.get().Follow(fd)
        if error:
            raise OSError(error, os.strerror(error))

    def stop(self):
        self.c.get().Stop()

    @property
    def beats(self):
        return self.c.get().beats()
