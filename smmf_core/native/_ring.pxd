from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool

cdef extern from "smmf/segment.hpp" namespace "smmf" nogil:
    const uint32_t kTerminalBytes
    int CreateSegment(uint32_t capacity, uint32_t terminal_slots)

cdef extern from "smmf/token_ring.hpp" namespace "smmf" nogil:
    struct Record:
        uint8_t kind
        uint16_t attempt
        uint64_t key
        uint32_t choice
        uint32_t count
        const char* data
        size_t size

    bool IsWritable(const Record& record)

    cppclass CRingWriter "smmf::RingWriter":
        int Open(int memfd, int data_fd)
        size_t Write(const Record* records, size_t count)
        void Step(uint64_t steps)
        uint64_t used()
        uint32_t capacity()
        bool is_open()
        void Close()

    cppclass CRingReader "smmf::RingReader":
        int Open(int memfd, int space_fd)
        bool Next(Record* record)
        void Release()
        bool Arm()
        bool is_corrupt()
        bool is_open()
        uint64_t steps()
        uint64_t full()
        void Close()

cdef class RingReader:
    cdef CRingReader c
    cdef check(self)
