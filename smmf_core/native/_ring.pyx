"""Python face of csrc/smmf/token_ring.hpp: types, ownership, errors; nothing else."""

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint64_t
from libcpp.vector cimport vector
from posix.unistd cimport read

import os

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    struct timespec:
        long tv_sec
        long tv_nsec
    int ppoll(pollfd* fds, unsigned long count, const timespec* timeout, const void* mask)
    const short POLLIN

TERMINAL_BYTES = kTerminalBytes


def create(capacity_bytes, terminal_slots):
    if not 0 <= capacity_bytes < 1 << 32 or not 0 <= terminal_slots < 1 << 32:
        raise ValueError("capacity or slots out of range")
    cdef int fd = CreateSegment(capacity_bytes, terminal_slots)
    if fd >= 0:
        return fd
    if fd == -22:  # EINVAL
        raise ValueError(
            f"a ring of {capacity_bytes} bytes with {terminal_slots} terminal slots: the capacity must be "
            "a power of two between 4 KiB and 1 GiB, more than twice what the slots reserve"
        )
    raise OSError(-fd, os.strerror(-fd))


def wait(fds, timeout_s):
    cdef vector[pollfd] polled
    cdef pollfd one
    for fd in fds:
        one.fd = fd
        one.events = POLLIN
        one.revents = 0
        polled.push_back(one)
    cdef timespec limit
    cdef const timespec* at = NULL
    if timeout_s is not None:
        seconds = max(0.0, min(float(timeout_s), 1e6))
        limit.tv_sec = int(seconds)
        limit.tv_nsec = int((seconds - int(seconds)) * 1e9)
        at = &limit
    cdef int ready
    with nogil:
        ready = ppoll(polled.data(), polled.size(), at, NULL)
    if ready < 0:
        if errno != EINTR:
            raise OSError(errno, os.strerror(errno))
        PyErr_CheckSignals()
        return False
    return ready > 0


def drain_eventfd(int fd):
    cdef uint64_t count
    if read(fd, &count, sizeof(count)) < 0 and errno not in (EAGAIN, EINTR):
        raise OSError(errno, os.strerror(errno))


cdef class RingWriter:
    cdef CRingWriter c
    cdef vector[Record] records

    def __init__(self, int memfd, int data_fd, int space_fd):
        cdef int error = self.c.Open(memfd, data_fd)
        if error:
            raise OSError(error, os.strerror(error))

    def write(self, list records):
        self.check()
        cdef Record record
        cdef bytes payload
        self.records.clear()
        for kind, key, attempt, choice, count, payload in records:
            record.kind = kind
            record.key = key
            record.attempt = attempt
            record.choice = choice
            record.count = count
            record.data = payload
            record.size = len(payload)
            if not IsWritable(record):
                raise ValueError(f"kind {kind} with {record.size} bytes is no record of a ring")
            self.records.push_back(record)
        return self.c.Write(self.records.data(), self.records.size())

    def step(self, uint64_t steps):
        self.check()
        self.c.Step(steps)

    @property
    def used_bytes(self):
        self.check()
        return self.c.used()

    @property
    def free_bytes(self):
        self.check()
        return self.c.capacity() - self.c.used()

    def close(self):
        self.c.Close()

    cdef check(self):
        if not self.c.is_open():
            raise ValueError("the ring is closed")


cdef class RingReader:
    def __init__(self, int memfd, int data_fd, int space_fd):
        cdef int error = self.c.Open(memfd, space_fd)
        if error:
            raise OSError(error, os.strerror(error))

    def drain(self, size_t limit=65536):
        self.check()
        cdef Record r
        records = []
        while limit > 0 and self.c.Next(&r):
            records.append((r.kind, r.key, r.attempt, r.choice, r.count, r.data[:r.size]))
            limit -= 1
        self.c.Release()
        self.check()
        return records

    def arm(self):
        self.check()
        return self.c.Arm()

    @property
    def steps(self):
        self.check()
        return self.c.steps()

    @property
    def full(self):
        self.check()
        return self.c.full()

    def close(self):
        self.c.Close()

    cdef check(self):
        if not self.c.is_open():
            raise ValueError("the ring is closed")
        if self.c.is_corrupt():
            raise RuntimeError("the ring holds a malformed record: its writer is broken")
