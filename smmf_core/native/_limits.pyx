"""Python face of csrc/smmf/limits.hpp."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

import os

cdef extern from "smmf/limits.hpp" namespace "smmf" nogil:
    const uint32_t kLimitRows
    const uint32_t kLimitRouters
    struct KeyLimits:
        uint32_t requests_per_minute
        uint32_t tokens_per_minute
        uint32_t max_open
        uint64_t monthly_tokens
    struct KeyState:
        uint32_t requests
        uint32_t tokens
        uint32_t open
        int64_t requests_reset_s
        int64_t tokens_reset_s
        uint32_t month
        uint64_t month_tokens
    cppclass CLimitTable "smmf::LimitTable":
        int Create(int fd)
        int Map(int fd)
        int Take(uint32_t slot, int64_t now, const KeyLimits& limits, uint32_t month,
                 uint64_t tokens, uint32_t router)
        void Settle(uint32_t slot, int64_t now, int64_t taken_at, uint64_t reserved, uint64_t used,
                    uint32_t month, uint32_t router)
        KeyState State(uint32_t slot, int64_t now)
        void AddMonth(uint32_t slot, uint32_t month, uint64_t tokens)
        void Forget(uint32_t slot)
        void ForgetRouter(uint32_t router)

ROWS = kLimitRows
ROUTERS = kLimitRouters


cdef class LimitTable:
    cdef CLimitTable c

    @staticmethod
    def create(int fd):
        cdef LimitTable table = LimitTable.__new__(LimitTable)
        table.check_error(table.c.Create(fd))
        return table

    @staticmethod
    def map(int fd):
        cdef LimitTable table = LimitTable.__new__(LimitTable)
        table.check_error(table.c.Map(fd))
        return table

    def take(
        self, int64_t slot, int64_t now_s, uint32_t requests_per_minute,
        uint32_t tokens_per_minute, uint32_t max_concurrency, uint64_t monthly_tokens,
        uint32_t month, uint64_t tokens, int64_t router,
    ):
        self.check(slot, router)
        cdef KeyLimits limits
        limits.requests_per_minute = requests_per_minute
        limits.tokens_per_minute = tokens_per_minute
        limits.max_open = max_concurrency
        limits.monthly_tokens = monthly_tokens
        return self.c.Take(slot, now_s, limits, month, tokens, router)

    def settle(
        self, int64_t slot, int64_t now_s, int64_t taken_at_s, uint64_t reserved, uint64_t used,
        uint32_t month, int64_t router,
    ):
        self.check(slot, router)
        self.c.Settle(slot, now_s, taken_at_s, reserved, used, month, router)

    def state(self, int64_t slot, int64_t now_s, month=None):
        self.check(slot, 0)
        cdef KeyState state = self.c.State(slot, now_s)
        is_other = month is not None and state.month != month
        reset_s = max(state.requests_reset_s, state.tokens_reset_s)
        spent = 0 if is_other else state.month_tokens
        return state.requests, state.tokens, state.open, reset_s, spent

    def windows(self, int64_t slot, int64_t now_s):
        self.check(slot, 0)
        cdef KeyState state = self.c.State(slot, now_s)
        return state.requests, state.requests_reset_s, state.tokens, state.tokens_reset_s

    def add_month(self, int64_t slot, uint32_t month, uint64_t tokens):
        self.check(slot, 0)
        self.c.AddMonth(slot, month, tokens)

    def forget(self, int64_t slot):
        self.check(slot, 0)
        self.c.Forget(slot)

    def forget_router(self, int64_t router):
        self.check(0, router)
        self.c.ForgetRouter(router)

    cdef check(self, int64_t slot, int64_t router):
        if not 0 <= slot < kLimitRows:
            raise ValueError(f"slot {slot} is not one of {kLimitRows}")
        if not 0 <= router < kLimitRouters:
            raise ValueError(f"router {router} is not one of {kLimitRouters}")

    cdef check_error(self, int error):
        if error:
            raise OSError(error, os.strerror(error))
