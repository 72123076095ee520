"""Python face of csrc/smmf/histogram.hpp."""

from libc.stdint cimport uint64_t
from libcpp cimport bool
from libcpp.string cimport string

cdef extern from "smmf/histogram.hpp" namespace "smmf" nogil:
    cppclass CHistogram "smmf::Histogram":
        void Record(double seconds)
        uint64_t count()
        double sum()
        double Quantile(double q)
        uint64_t AtMost(double seconds)
        void Merge(const CHistogram& other)
        string Dump()
        bool Load(const char* data, size_t size)


cdef class Histogram:
    cdef CHistogram c

    def record(self, double seconds):
        self.c.Record(seconds)

    def record_many(self, values):
        for value in values:
            self.c.Record(value)

    @property
    def count(self):
        return self.c.count()

    @property
    def sum(self):
        return self.c.sum()

    def quantile(self, double q):
        return self.c.Quantile(q)

    def merge(self, Histogram other not None):
        self.c.Merge(other.c)

    def cumulative(self, bounds):
        return [self.c.AtMost(bound) for bound in bounds]

    def dump(self):
        return <bytes>self.c.Dump()

    def load(self, bytes data):
        if not self.c.Load(data, len(data)):
            raise ValueError("not a dumped histogram")
