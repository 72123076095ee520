"""Python face of csrc/smmf/stream_table.hpp and frames.hpp: types and ownership; nothing else."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool
from libcpp.memory cimport make_shared, shared_ptr
from libcpp.string cimport string
from libcpp.utility cimport move
from libcpp.vector cimport vector

from smmf_core.native._ring cimport CRingReader, RingReader

cdef extern from "smmf/json_escape.hpp" namespace "smmf" nogil:
    void AppendJsonEscaped(const char* data, size_t size, string* out)

cdef extern from "smmf/stream_table.hpp" namespace "smmf" nogil:
    cppclass CFrame "smmf::Frame":
        string text_open
        string text_close
        string finish_open
        string tail
        string reasoning_open
        string reasoning_again
        string reasoning_close
        string reasons[4]
        bool merge_finish
        bool has_choices

    cppclass Stream:
        shared_ptr[const CFrame] frame
        string prefix
        string head
        string first
        uint16_t attempt
        int fd
        bool chunked
        double opened_at
        double admitted_at
        double first_token_at
        double last_token_at
        double last_record_at
        double last_event_at
        uint64_t tokens
        int reason
        bool is_ended
        bool is_blocked
        bool has_emitted
        bool has_pending()

    struct Event:
        uint64_t key
        uint8_t kind
        uint32_t choice
        uint32_t count
        string payload

    struct Unsent:
        uint64_t key
        string rest

    cppclass CStreamTable "smmf::StreamTable":
        CStreamTable(size_t max_pending)
        Stream* Open(uint64_t key)
        Stream* Find(uint64_t key)
        void Close(uint64_t key)
        size_t Drain(CRingReader* reader, double now, size_t limit, vector[Event]* events)
        void Append(uint64_t key, const char* bytes, size_t size, bool end)
        void Flush(vector[Unsent]* unsent)
        void Block(uint64_t key)
        void Unblock(uint64_t key)
        void Stale(double now, double first_s, double between_s, vector[uint64_t]* keys)
        void Quiet(double now, double quiet_s, vector[uint64_t]* keys)
        size_t size()
        uint64_t late_records()

cdef size_t DRAIN_LIMIT = 65536  # records of one ring and turn: others must have their turn too


def escape_json(bytes text):
    cdef string out
    AppendJsonEscaped(text, len(text), &out)
    return <bytes>out


cdef class Frame:
    cdef shared_ptr[CFrame] c

    def __init__(self, text_open, text_close, finish_open, tail, reasons, merge_finish,
                 reasoning=(b"", b"", b""), has_choices=True):
        self.c = make_shared[CFrame]()
        cdef CFrame* frame = self.c.get()
        frame.text_open = text_open
        frame.text_close = text_close
        frame.finish_open = finish_open
        frame.tail = tail
        for i in range(4):
            frame.reasons[i] = reasons[i]
        frame.merge_finish = merge_finish
        frame.has_choices = has_choices
        frame.reasoning_open, frame.reasoning_again, frame.reasoning_close = reasoning


cdef class StreamTable:
    cdef CStreamTable* c

    def __cinit__(self, size_t max_pending_bytes):
        self.c = new CStreamTable(max_pending_bytes)

    def __dealloc__(self):
        del self.c

    def open(self, uint64_t key, uint16_t attempt, int fd, Frame frame, bytes prefix, bytes head,
             bytes first, bool chunked, double now):
        cdef Stream* stream = self.c.Open(key)
        if frame is not None:
            stream.frame = <shared_ptr[const CFrame]>frame.c
        stream.attempt = attempt
        stream.fd = fd
        stream.prefix = prefix
        stream.head = head
        stream.first = first
        stream.chunked = chunked
        stream.opened_at = stream.last_record_at = stream.last_event_at = now

    def drain(self, RingReader reader not None, double now, list events):
        reader.check()
        cdef vector[Event] found
        cdef size_t records
        with nogil:
            records = self.c.Drain(&reader.c, now, DRAIN_LIMIT, &found)
        cdef size_t i
        for i in range(found.size()):
            events.append((
                found[i].key, found[i].kind, found[i].choice, found[i].count, <bytes>found[i].payload
            ))
        reader.check()
        return records

    def append(self, uint64_t key, bytes payload, bool end):
        self.c.Append(key, payload, len(payload), end)

    def flush(self):
        cdef vector[Unsent] unsent
        with nogil:
            self.c.Flush(&unsent)
        cdef size_t i
        return [(unsent[i].key, <bytes>unsent[i].rest) for i in range(unsent.size())]

    def block(self, uint64_t key):
        self.c.Block(key)

    def unblock(self, uint64_t key):
        self.c.Unblock(key)

    def ended(self, uint64_t key):
        cdef Stream* stream = self.c.Find(key)
        return (stream != NULL and stream.is_ended and not stream.has_pending()
                and not stream.is_blocked)

    def stats(self, uint64_t key):
        cdef Stream* stream = self.c.Find(key)
        if stream == NULL:
            raise KeyError(key)
        return (stream.opened_at, stream.admitted_at, stream.first_token_at, stream.last_token_at,
                stream.tokens, stream.reason)

    def stale(self, double now, double first_s, double between_s):
        cdef vector[uint64_t] keys
        with nogil:
            self.c.Stale(now, first_s, between_s, &keys)
        return list(keys)

    def quiet(self, double now, double quiet_s):
        cdef vector[uint64_t] keys
        with nogil:
            self.c.Quiet(now, quiet_s, &keys)
        return list(keys)

    def emitted(self, uint64_t key):
        cdef Stream* stream = self.c.Find(key)
        if stream == NULL:
            return False, 0
        return stream.has_emitted, stream.tokens

    def close(self, uint64_t key):
        self.c.Close(key)

    def __len__(self):
        return self.c.size()

    @property
    def late_records(self):
        return self.c.late_records()
