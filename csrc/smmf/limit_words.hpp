// Every byte of the table of limits, and what its words mean (limits.hpp says how they change).
//
// A file: a header, then rows. A row is four words in a cache line, then two words for each Router:
//
//   requests, tokens   (second in which the window began << 32) | count
//   month              (month << 48) | tokens, those that open requests have reserved among them
//   open               a Change: the last one to the number of open requests, and that number
//   shares[router]     (changes that it made << 32) | its open requests
//   reserved[router]   (month << 48) | tokens that its open requests have reserved of that month
#ifndef SMMF_LIMIT_WORDS_HPP_
#define SMMF_LIMIT_WORDS_HPP_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace smmf {

constexpr uint64_t kLimitsMagic = 0x3154494d494c4d53ull;  // "SMLIMIT1", little-endian
constexpr uint32_t kLimitsVersion = 2;
constexpr uint32_t kLimitRows = 16'384;  // keys; memory is taken by those in use only
constexpr uint32_t kLimitRouters = 256;
constexpr int64_t kWindowS = 60;
constexpr int64_t kClockBackS = 600;  // a Router may stand still for so long after it read the time
constexpr uint64_t kMaxOpen = (1u << 20) - 1;  // of one key

enum Limited : int { kTaken = 0, kByRequests = 1, kByTokens = 2, kByOpen = 3, kByMonth = 4 };

// What a key may use; 0: any number.
struct KeyLimits {
  uint32_t requests_per_minute;
  uint32_t tokens_per_minute;
  uint32_t max_open;
  uint64_t monthly_tokens;
};

struct KeyState {
  uint32_t requests;
  uint32_t tokens;
  uint32_t open;
  int64_t requests_reset_s;  // until the window is over; 0: there is none
  int64_t tokens_reset_s;
  uint32_t month;
  uint64_t month_tokens;
};

struct alignas(64) LimitRow {
  std::atomic<uint64_t> requests;
  std::atomic<uint64_t> tokens;
  std::atomic<uint64_t> month;
  std::atomic<uint64_t> open;
  alignas(64) std::atomic<uint64_t> shares[kLimitRouters];
  std::atomic<uint64_t> reserved[kLimitRouters];
};
static_assert(sizeof(LimitRow) == 64 + 16 * kLimitRouters, "shared between processes");

struct LimitsHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t rows;
  alignas(64) std::atomic<uint32_t> used_rows;  // no row from here on was ever touched
};
static_assert(sizeof(LimitsHeader) == 128, "shared between processes");
static_assert(std::atomic<uint64_t>::is_always_lock_free, "shared between processes");
static_assert(std::atomic<uint32_t>::is_always_lock_free, "shared between processes");

constexpr size_t kLimitsBytes = sizeof(LimitsHeader) + size_t{kLimitRows} * sizeof(LimitRow);

// A minute's window in one word.
struct Window {
  int64_t start;
  uint64_t count;

  // As it is now: one that is over, or in which nothing counts, begins anew. Who comes late with
  // its time is in the window that another has begun, but not for ever: clocks are set back.
  static Window At(uint64_t word, int64_t now) {
    const Window window = {static_cast<int64_t>(word >> 32), word & UINT32_MAX};
    const int64_t age = now - window.start;
    const bool is_on = window.count != 0 && age > -kClockBackS && age < kWindowS;
    return is_on ? window : Window{now, 0};
  }
  bool Has(int64_t second) const { return second >= start && second < start + kWindowS; }
  uint64_t word() const {
    return static_cast<uint64_t>(start) << 32 | std::min<uint64_t>(count, UINT32_MAX);
  }
};

// A calendar month's tokens in one word.
struct Month {
  uint64_t number;
  uint64_t tokens;

  static Month Of(uint64_t word) { return {word >> kShift, word & kMaxTokens}; }
  // As it is in this month: another one's is over, or was begun by a clock that was set back.
  static Month At(uint64_t word, uint64_t number) {
    const Month month = Of(word);
    return month.number == number ? month : Month{number, 0};
  }
  uint64_t word() const { return number << kShift | std::min(tokens, kMaxTokens); }

  static constexpr int kShift = 48;
  static constexpr uint64_t kMaxTokens = (uint64_t{1} << kShift) - 1;
};

// Who last changed the number of open requests, and how.
struct Change {
  enum Kind : uint64_t { kOne = 0, kOneLess = 1, kNone = 2 };  // more, fewer, no request of its

  uint32_t serial;  // which of the changes that this Router made
  uint64_t kind;
  uint32_t router;
  uint64_t open;  // requests of all Routers, after it

  static Change Of(uint64_t word) {
    return {static_cast<uint32_t>(word >> 32), word >> 30 & 3,
            static_cast<uint32_t>(word >> 20 & 255), word & kMaxOpen};
  }
  uint64_t word() const {
    return uint64_t{serial} << 32 | kind << 30 | uint64_t{router} << 20 | open;
  }
};

}  // namespace smmf

#endif  // SMMF_LIMIT_WORDS_HPP_
