// What each API key has used of its limits: one table for all Routers of a server, in a file that
// all of them map.
//
// Thread safety: any number of threads and processes, no locks; Create before anyone else maps.
// Invariants:
// 1. A word is changed by compare-and-swap only: in a window no more is taken than its limit, and
//    `open` never exceeds the limit that was asked with.
// 2. A window begins with the first request in it and is over after kWindowS seconds.
// 3. `open` is ahead of the shares by at most the one change that it holds, and whoever changes it
//    brings that change to its share before (Help): a Router may die between any two instructions,
//    and what it held open is known all the same.
// 4. A share's changes only grow, so a value of `open` or of a share does not come back (for 2^32
//    changes of one Router), and a late helper's compare-and-swap fails.
// 5. `month` is never below what was used in it and what all Routers have `reserved`; it is above by
//    what a Router was about to note when it died.
#ifndef SMMF_LIMITS_HPP_
#define SMMF_LIMITS_HPP_

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <new>

#include "smmf/limit_words.hpp"

namespace smmf {

class LimitTable {
 public:
  LimitTable() = default;
  ~LimitTable() { Unmap(); }
  LimitTable(const LimitTable&) = delete;
  LimitTable& operator=(const LimitTable&) = delete;

  // Maps the table in this file, or makes one where there is none of this version. Returns 0, or a
  // positive errno.
  int Create(int fd) {
    if (Map(fd) == 0) return 0;
    if (ftruncate(fd, 0) != 0 || ftruncate(fd, static_cast<off_t>(kLimitsBytes)) != 0) return errno;
    const int error = MapBytes(fd);
    if (error != 0) return error;
    new (header_) LimitsHeader{kLimitsMagic, kLimitsVersion, kLimitRows, {}};
    return 0;
  }

  // EPROTO for a file that is no table of this version.
  int Map(int fd) {
    struct stat status;
    if (fstat(fd, &status) != 0) return errno;
    if (status.st_size != static_cast<off_t>(kLimitsBytes)) return EPROTO;
    const int error = MapBytes(fd);
    if (error != 0) return error;
    if (header_->magic == kLimitsMagic && header_->version == kLimitsVersion &&
        header_->rows == kLimitRows) {
      return 0;
    }
    Unmap();
    return EPROTO;
  }

  void Unmap() {
    if (header_ != nullptr) munmap(header_, kLimitsBytes);
    header_ = nullptr;
  }

  bool is_mapped() const { return header_ != nullptr; }

  // One request with so many tokens, or which limit it meets; nothing stays taken then.
  // 1 what is full already refuses without a trace; 2 else the others can take what is left between
  // two steps, and what was taken before that is given back.
  Limited Take(uint32_t slot, int64_t now, const KeyLimits& limits, uint32_t month, uint64_t tokens,
               uint32_t router) {
    LimitRow& row = Row(slot);
    const KeyState state = StateOf(row, now);  // 1
    if (IsOver(state.requests, 1, limits.requests_per_minute)) return kByRequests;
    if (IsOver(state.tokens, tokens, limits.tokens_per_minute)) return kByTokens;
    if (IsOver(state.open, 1, limits.max_open)) return kByOpen;
    const uint64_t spent = state.month == month ? state.month_tokens : 0;
    if (IsOver(spent, tokens, limits.monthly_tokens)) return kByMonth;
    if (!AddTo(row.requests, now, 1, limits.requests_per_minute)) return kByRequests;  // 2
    if (!AddTo(row.tokens, now, tokens, limits.tokens_per_minute)) {
      Replace(row.requests, now, now, 1, 0);
      return kByTokens;
    }
    if (!Open(row, router, limits.max_open)) {
      Replace(row.requests, now, now, 1, 0);
      Replace(row.tokens, now, now, tokens, 0);
      return kByOpen;
    }
    if (!AddToMonth(row.month, month, tokens, limits.monthly_tokens)) {
      Replace(row.requests, now, now, 1, 0);
      Replace(row.tokens, now, now, tokens, 0);
      Close(row, router);
      return kByMonth;
    }
    AddToMonth(row.reserved[router], month, tokens, 0);
    return kTaken;
  }

  // The end of a request that was taken at `taken_at` with `reserved` tokens and has used `used`.
  void Settle(uint32_t slot, int64_t now, int64_t taken_at, uint64_t reserved, uint64_t used,
              uint32_t month, uint32_t router) {
    LimitRow& row = Row(slot);
    Close(row, router);
    Replace(row.tokens, now, taken_at, reserved, used);
    ReplaceInMonth(row.reserved[router], month, reserved, 0);
    ReplaceInMonth(row.month, month, reserved, used);
  }

  KeyState State(uint32_t slot, int64_t now) { return StateOf(Row(slot), now); }

  // So many tokens were used in this month, and are not in the table.
  void AddMonth(uint32_t slot, uint32_t month, uint64_t tokens) {
    AddToMonth(Row(slot).month, month, tokens, 0);
  }

  // The slot is free for another key.
  void Forget(uint32_t slot) {
    LimitRow& row = Row(slot);
    for (uint32_t router = 0; router < kLimitRouters; ++router) GiveBack(row, router);
    for (auto* word : {&row.requests, &row.tokens, &row.month}) {
      word->store(0, std::memory_order_relaxed);
    }
  }

  // That Router is dead: none of its requests is open.
  void ForgetRouter(uint32_t router) {
    const uint32_t used = header_->used_rows.load(std::memory_order_acquire);
    for (uint32_t slot = 0; slot < std::min(used, kLimitRows); ++slot)
      GiveBack(rows()[slot], router);
  }

 private:
  static bool IsOver(uint64_t used, uint64_t wanted, uint64_t limit) {
    return limit != 0 && used + wanted > limit;
  }

  static bool AddTo(std::atomic<uint64_t>& word, int64_t now, uint64_t amount, uint64_t limit) {
    uint64_t seen = word.load(std::memory_order_relaxed);
    Window window;
    do {
      window = Window::At(seen, now);
      if (IsOver(window.count, amount, limit)) return false;
      window.count += amount;
    } while (!word.compare_exchange_weak(seen, window.word(), std::memory_order_relaxed));
    return true;
  }

  // What was reserved at `taken_at` becomes what was used. Of another window only what goes beyond
  // the reservation counts, in the one that is on now: a long answer is not for nothing.
  static void Replace(std::atomic<uint64_t>& word, int64_t now, int64_t taken_at, uint64_t reserved,
                      uint64_t used) {
    uint64_t seen = word.load(std::memory_order_relaxed);
    Window window;
    do {
      window = Window::At(seen, now);
      const uint64_t least = window.Has(taken_at) ? std::min(reserved, window.count) : 0;
      const uint64_t beyond = used > reserved ? used - reserved : 0;
      window.count += window.Has(taken_at) ? used : beyond;
      window.count -= least;
    } while (!word.compare_exchange_weak(seen, window.word(), std::memory_order_relaxed));
  }

  static bool AddToMonth(std::atomic<uint64_t>& word, uint64_t number, uint64_t amount,
                         uint64_t limit) {
    uint64_t seen = word.load(std::memory_order_relaxed);
    Month month;
    do {
      month = Month::At(seen, number);
      if (IsOver(month.tokens, amount, limit)) return false;
      month.tokens += amount;
    } while (!word.compare_exchange_weak(seen, month.word(), std::memory_order_relaxed));
    return true;
  }

  // What was reserved becomes what was used, unless that month is over.
  static void ReplaceInMonth(std::atomic<uint64_t>& word, uint64_t number, uint64_t reserved,
                             uint64_t used) {
    uint64_t seen = word.load(std::memory_order_relaxed);
    Month month;
    do {
      month = Month::Of(seen);
      if (month.number != number) return;
      month.tokens += used - std::min(reserved, month.tokens);
    } while (!word.compare_exchange_weak(seen, month.word(), std::memory_order_relaxed));
  }

  // --- open requests ---

  // Brings the change that `open` holds to its Router's share, unless that was done.
  static void Help(LimitRow& row, const Change& change) {
    std::atomic<uint64_t>& share = row.shares[change.router];
    uint64_t seen = share.load(std::memory_order_acquire);
    if (change.serial - static_cast<uint32_t>(seen >> 32) != 1) return;
    uint64_t held = seen & UINT32_MAX;
    held = change.kind == Change::kOne ? held + 1 : change.kind == Change::kNone ? 0 : held - 1;
    const uint64_t next = uint64_t{change.serial} << 32 | held;
    share.compare_exchange_strong(seen, next, std::memory_order_acq_rel);  // else another has
  }

  // Makes one change of a Router's; `decide` gives how many it makes of (all open, its own share),
  // or -1 for no change. Returns whether there was one.
  template <typename Decide>
  static bool Make(LimitRow& row, uint32_t router, Change::Kind kind, Decide decide) {
    uint64_t seen = row.open.load(std::memory_order_acquire);
    while (true) {
      const Change last = Change::Of(seen);
      Help(row, last);
      const uint64_t share = row.shares[router].load(std::memory_order_acquire);
      const int64_t open = decide(last.open, share & UINT32_MAX);
      if (open < 0) return false;
      const Change next = {static_cast<uint32_t>(share >> 32) + 1, kind, router,
                           static_cast<uint64_t>(open)};
      if (row.open.compare_exchange_weak(seen, next.word(), std::memory_order_acq_rel,
                                         std::memory_order_acquire)) {
        Help(row, next);
        return true;
      }
    }
  }

  static bool Open(LimitRow& row, uint32_t router, uint64_t limit) {
    const uint64_t most = limit != 0 ? std::min(limit, kMaxOpen) : kMaxOpen;
    return Make(row, router, Change::kOne, [most](uint64_t open, uint64_t) {
      return open < most ? static_cast<int64_t>(open) + 1 : -1;
    });
  }

  // One that was forgotten is not given back twice.
  static void Close(LimitRow& row, uint32_t router) {
    Make(row, router, Change::kOneLess, [](uint64_t open, uint64_t own) {
      return own != 0 && open != 0 ? static_cast<int64_t>(open) - 1 : -1;
    });
  }

  static void GiveBack(LimitRow& row, uint32_t router) {
    Make(row, router, Change::kNone, [](uint64_t open, uint64_t own) {
      return own != 0 ? static_cast<int64_t>(open - std::min(open, own)) : -1;
    });
    if (row.reserved[router].load(std::memory_order_relaxed) == 0) return;
    const Month held = Month::Of(row.reserved[router].exchange(0, std::memory_order_relaxed));
    ReplaceInMonth(row.month, held.number, held.tokens, 0);
  }

  // --- rows ---

  static KeyState StateOf(const LimitRow& row, int64_t now) {
    const Window requests = Window::At(row.requests.load(std::memory_order_relaxed), now);
    const Window tokens = Window::At(row.tokens.load(std::memory_order_relaxed), now);
    const Month month = Month::Of(row.month.load(std::memory_order_relaxed));
    const Change last = Change::Of(row.open.load(std::memory_order_relaxed));
    const auto reset_s = [now](const Window& window) {
      return window.count != 0 ? std::min(kWindowS, window.start + kWindowS - now) : 0;
    };
    return {static_cast<uint32_t>(requests.count),
            static_cast<uint32_t>(tokens.count),
            static_cast<uint32_t>(last.open),
            reset_s(requests),
            reset_s(tokens),
            static_cast<uint32_t>(month.number),
            month.tokens};
  }

  int MapBytes(int fd) {
    Unmap();
    void* at = mmap(nullptr, kLimitsBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return errno;
    header_ = static_cast<LimitsHeader*>(at);
    return 0;
  }

  LimitRow* rows() const { return reinterpret_cast<LimitRow*>(header_ + 1); }

  LimitRow& Row(uint32_t slot) {
    uint32_t used = header_->used_rows.load(std::memory_order_relaxed);
    while (used <= slot &&
           !header_->used_rows.compare_exchange_weak(used, slot + 1, std::memory_order_release,
                                                     std::memory_order_relaxed)) {
    }
    return rows()[slot];
  }

  LimitsHeader* header_ = nullptr;
};

}  // namespace smmf

#endif  // SMMF_LIMITS_HPP_
