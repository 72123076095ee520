// The table of limits: never more than a limit, whoever competes, and nothing is lost with a Router
// that dies between any two instructions.
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <new>
#include <thread>
#include <vector>

#include "check.hpp"
#include "smmf/limits.hpp"

namespace {

using namespace smmf;

constexpr uint32_t kMonth = 24'322;
constexpr int64_t kNow = 1'800'000'000;

// A table in a file, and its bytes as no Router should see them.
struct File {
  File() : fd(memfd_create("limits", MFD_CLOEXEC)) {
    error = table.Create(fd);
    bytes = mmap(nullptr, kLimitsBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  ~File() {
    munmap(bytes, kLimitsBytes);
    close(fd);
  }
  LimitRow& row(uint32_t slot) {
    return reinterpret_cast<LimitRow*>(static_cast<LimitsHeader*>(bytes) + 1)[slot];
  }
  int fd;
  int error;
  LimitTable table;
  void* bytes;
};

Limited take(LimitTable& table, uint32_t slot, int64_t now, KeyLimits limits, uint64_t tokens = 1,
             uint32_t router = 0) {
  return table.Take(slot, now, limits, kMonth, tokens, router);
}

void settle(LimitTable& table, uint32_t slot, int64_t now, int64_t taken_at, uint64_t reserved,
            uint64_t used, uint32_t router = 0) {
  table.Settle(slot, now, taken_at, reserved, used, kMonth, router);
}

template <typename Run>
void in_threads(int count, Run run) {
  std::vector<std::thread> threads;
  for (int index = 0; index < count; ++index) threads.emplace_back(run, index);
  for (std::thread& thread : threads) thread.join();
}

bool each_limit_is_named_and_leaves_no_trace() {
  File file;
  CHECK(file.error == 0);
  LimitTable& table = file.table;
  CHECK(take(table, 3, kNow, {2, 100, 2, 1000}, 40) == kTaken);
  CHECK(take(table, 3, kNow, {2, 100, 2, 1000}, 61) == kByTokens);
  CHECK(take(table, 3, kNow, {2, 100, 1, 1000}, 40) == kByOpen);
  CHECK(take(table, 3, kNow, {2, 100, 2, 39}, 40) == kByMonth);
  CHECK(table.State(3, kNow).requests == 1 && table.State(3, kNow).tokens == 40);
  CHECK(take(table, 3, kNow + 59, {2, 100, 2, 1000}, 60) == kTaken);
  CHECK(take(table, 3, kNow + 59, {2, 100, 2, 1000}, 1) == kByRequests);
  const KeyState full = table.State(3, kNow + 59);
  CHECK(full.requests == 2 && full.tokens == 100 && full.open == 2);
  CHECK(full.requests_reset_s == 1 && full.tokens_reset_s == 1);
  CHECK(table.State(3, kNow + 60).requests == 0);
  CHECK(table.State(2, kNow).requests == 0 && table.State(4, kNow).open == 0);
  return true;
}

bool a_reservation_becomes_what_was_used() {
  File file;
  LimitTable& table = file.table;
  const KeyLimits limits = {0, 100, 0, 0};
  CHECK(take(table, 0, kNow, limits, 90) == kTaken);
  settle(table, 0, kNow + 5, kNow, 90, 20);
  CHECK(table.State(0, kNow + 5).tokens == 20 && table.State(0, kNow + 5).open == 0);
  CHECK(take(table, 0, kNow + 6, limits, 10) == kTaken);
  settle(table, 0, kNow + 8, kNow + 6, 10, 300);
  CHECK(table.State(0, kNow + 8).tokens == 320);
  CHECK(take(table, 0, kNow + 9, limits, 1) == kByTokens);
  // of a former window only what went beyond the reservation counts now
  CHECK(take(table, 0, kNow + 60, limits, 50) == kTaken);
  settle(table, 0, kNow + 120, kNow + 60, 50, 40);
  CHECK(table.State(0, kNow + 120).tokens == 0);
  CHECK(take(table, 0, kNow + 121, limits, 50) == kTaken);
  settle(table, 0, kNow + 200, kNow + 121, 50, 70);
  CHECK(table.State(0, kNow + 200).tokens == 20);
  CHECK(table.State(0, kNow).month_tokens == 20 + 300 + 40 + 70);
  return true;
}

bool a_month_begins_anew_and_hears_nothing_of_the_former() {
  File file;
  LimitTable& table = file.table;
  table.AddMonth(1, kMonth, 995);
  CHECK(take(table, 1, kNow, {0, 0, 0, 1000}, 5) == kTaken);
  table.Settle(1, kNow, kNow, 5, 6, kMonth, 0);
  CHECK(take(table, 1, kNow, {0, 0, 0, 1000}, 1) == kByMonth);
  CHECK(table.Take(1, kNow, {0, 0, 0, 1000}, kMonth + 1, 7, 0) == kTaken);
  table.Settle(1, kNow, kNow, 7, 7, kMonth + 1, 0);
  table.Settle(1, kNow, kNow, 7, 100, kMonth, 0);
  CHECK(table.State(1, kNow).month == kMonth + 1 && table.State(1, kNow).month_tokens == 7);
  return true;
}

// Open requests count with what they have reserved, until they are over or their Router is dead.
bool a_months_budget_is_exact() {
  constexpr KeyLimits kLimits = {0, 0, 0, 100};
  File file;
  LimitTable& table = file.table;
  CHECK(take(table, 1, kNow, kLimits, 60, 1) == kTaken);
  CHECK(take(table, 1, kNow, kLimits, 60, 2) == kByMonth);
  CHECK(table.State(1, kNow).open == 1 && table.State(1, kNow).requests == 1);
  CHECK(take(table, 1, kNow, kLimits, 40, 2) == kTaken);
  settle(table, 1, kNow, kNow, 60, 10, 1);
  CHECK(table.State(1, kNow).month_tokens == 50);
  CHECK(take(table, 1, kNow, kLimits, 50, 1) == kTaken);
  table.ForgetRouter(2);
  CHECK(table.State(1, kNow).month_tokens == 60);
  table.ForgetRouter(2);
  CHECK(table.State(1, kNow).month_tokens == 60);
  // the month ends while one is open: what it has reserved of the former is not taken of the next
  CHECK(table.Take(1, kNow, kLimits, kMonth + 1, 30, 1) == kTaken);
  settle(table, 1, kNow, kNow, 50, 50, 1);
  CHECK(table.State(1, kNow).month_tokens == 30);
  table.ForgetRouter(1);
  CHECK(table.State(1, kNow).month_tokens == 0 && table.State(1, kNow).open == 0);
  // a clock that was a month ahead and is set back
  CHECK(take(table, 1, kNow, kLimits, 100) == kTaken && take(table, 1, kNow, kLimits) == kByMonth);
  return true;
}

bool a_file_is_taken_over_or_made_anew() {
  File file;
  CHECK(take(file.table, 9, kNow, {0, 0, 0, 0}, 30) == kTaken);
  LimitTable other;
  CHECK(other.Create(file.fd) == 0 && other.State(9, kNow).tokens == 30);
  static_cast<LimitsHeader*>(file.bytes)->version += 1;
  LimitTable third;
  CHECK(third.Map(file.fd) == EPROTO && !third.is_mapped());
  CHECK(third.Create(file.fd) == 0 && third.State(9, kNow).tokens == 0);
  CHECK(ftruncate(file.fd, 4096) == 0 && third.Map(file.fd) == EPROTO);
  CHECK(third.Create(file.fd) == 0 && third.Map(-1) == EBADF);
  return true;
}

// Eight threads in windows that end under their hands: in each window exactly the limit is taken.
bool windows_are_exact() {
  constexpr int kWindows = 10, kTries = 200;  // as long as kClockBackS: threads may be late
  constexpr KeyLimits kLimits = {100, 150, 0, 0};
  File file;
  std::atomic<int> taken[kWindows] = {};
  std::atomic<int> window{0}, tried{0}, over{0};
  in_threads(8, [&](int router) {
    while (true) {
      const int at = tried.fetch_add(1) / (8 * kTries);
      if (at >= kWindows) return;
      int last = window.load();  // time does not go back
      while (last < at && !window.compare_exchange_weak(last, at)) continue;
      const int now = std::max(at, last);
      const uint64_t tokens = 1 + static_cast<uint64_t>(router % 3);
      if (take(file.table, 5, kNow + 60 * now, kLimits, tokens, router) != kTaken) continue;
      taken[now].fetch_add(1);
      over += file.table.State(5, kNow + 60 * now).requests > 100;
      settle(file.table, 5, kNow + 60 * now, kNow + 60 * now, tokens, 1, router);
    }
  });
  int sum = 0;  // a thread that is late takes of the window that is on, not of its own
  for (const auto& count : taken) sum += count.load();
  CHECK(over == 0 && sum > 0 && sum <= 100 * kWindows);
  const KeyState state = file.table.State(5, kNow + 60 * (kWindows - 1));
  CHECK(state.open == 0 && state.requests <= 100);
  CHECK(static_cast<int>(state.requests) >= taken[kWindows - 1].load());
  return true;
}

bool exactly_the_limit_is_taken() {
  File file;
  std::atomic<int> requests{0}, tokens{0}, budget{0};
  in_threads(8, [&](int router) {
    for (int round = 0; round < 400; ++round) {
      requests += take(file.table, 1, kNow, {777, 0, 0, 0}, 1, router) == kTaken;
      tokens += 3 * (take(file.table, 2, kNow, {0, 900, 0, 0}, 3, router) == kTaken);
      budget += 2 * (take(file.table, 3, kNow, {0, 0, 0, 600}, 2, router) == kTaken);
    }
  });
  CHECK(requests == 777 && tokens == 900 && budget == 600);
  for (uint32_t router = 0; router < 8; ++router) file.table.ForgetRouter(router);
  CHECK(file.table.State(3, kNow).month_tokens == 0);
  return true;
}

// Four Routers of two threads: never more than three are open, and in the end none.
bool open_requests_are_exact() {
  File file;
  std::atomic<int> open{0}, most{0}, taken{0};
  in_threads(8, [&](int thread) {
    const uint32_t router = static_cast<uint32_t>(thread % 4);
    for (int round = 0; round < 4000; ++round) {
      if (take(file.table, 7, kNow, {0, 0, 3, 0}, 1, router) != kTaken) continue;
      const int now = open.fetch_add(1) + 1;
      int before = most.load();
      while (before < now && !most.compare_exchange_weak(before, now)) continue;
      ++taken;
      open.fetch_sub(1);
      settle(file.table, 7, kNow, kNow, 1, 1, router);
    }
  });
  CHECK(most <= 3 && taken > 0 && file.table.State(7, kNow).open == 0);
  for (uint32_t router = 0; router < 4; ++router)
    CHECK((file.row(7).shares[router].load() & UINT32_MAX) == 0);
  return true;
}

// A Router that died after it made its change, and before its share had it.
bool a_change_half_made_is_completed() {
  File file;
  const KeyLimits two = {0, 0, 2, 0};
  CHECK(take(file.table, 0, kNow, two, 1, 3) == kTaken);
  LimitRow& row = file.row(0);
  const uint32_t serial = static_cast<uint32_t>(row.shares[3].load() >> 32);
  row.open = Change{serial + 1, Change::kOne, 3, 2}.word();
  CHECK(take(file.table, 0, kNow, two, 1, 1) == kByOpen);
  file.table.ForgetRouter(3);
  CHECK(file.table.State(0, kNow).open == 0 && (row.shares[3].load() & UINT32_MAX) == 0);
  CHECK(take(file.table, 0, kNow, two, 1, 3) == kTaken);
  row.open = Change{serial + 4, Change::kOneLess, 3, 0}.word();
  settle(file.table, 0, kNow, kNow, 1, 1, 3);  // the dead one's own is not given back twice
  CHECK(file.table.State(0, kNow).open == 0);
  CHECK(take(file.table, 0, kNow, two, 1, 1) == kTaken);
  file.table.ForgetRouter(3);
  CHECK(file.table.State(0, kNow).open == 1);
  file.table.Forget(0);
  CHECK(file.table.State(0, kNow).open == 0 && file.table.State(0, kNow).tokens == 0);
  settle(file.table, 0, kNow, kNow, 1, 1, 1);
  CHECK(file.table.State(0, kNow).open == 0);
  return true;
}

// Routers are killed at work, whenever that is; another one goes on, and its requests stay open.
bool what_killed_routers_held_is_given_back() {
  constexpr KeyLimits kLimits = {0, 0, 64, 0};
  File file;
  for (int held = 0; held < 5; ++held) CHECK(take(file.table, 2, kNow, kLimits) == kTaken);
  for (int round = 0; round < 60; ++round) {
    pid_t routers[2];
    for (uint32_t router = 1; router <= 2; ++router) {
      const pid_t pid = fork();
      if (pid == 0) {
        for (uint32_t open = 0;; open = (open + 1) % 7) {
          if (open < 4) {
            take(file.table, 2, kNow, kLimits, 1, router);
          } else {
            settle(file.table, 2, kNow, kNow, 1, 1, router);
          }
        }
      }
      CHECK(pid > 0);
      routers[router - 1] = pid;
    }
    for (int busy = 0; busy < 200 + 37 * (round % 11); ++busy) {
      if (take(file.table, 2, kNow, kLimits) == kTaken) settle(file.table, 2, kNow, kNow, 1, 1);
    }
    for (uint32_t router = 1; router <= 2; ++router) {
      kill(routers[router - 1], SIGKILL);
      CHECK(waitpid(routers[router - 1], nullptr, 0) == routers[router - 1]);
      CHECK(file.table.State(2, kNow).open <= 64);
      file.table.ForgetRouter(router);
    }
    CHECK(file.table.State(2, kNow).open == 5);
  }
  return true;
}

}  // namespace

int main() {
  bool good = each_limit_is_named_and_leaves_no_trace();
  good = a_reservation_becomes_what_was_used() && good;
  good = a_month_begins_anew_and_hears_nothing_of_the_former() && good;
  good = a_months_budget_is_exact() && good;
  good = a_file_is_taken_over_or_made_anew() && good;
  good = a_change_half_made_is_completed() && good;
  good = what_killed_routers_held_is_given_back() && good;  // before there are threads
  good = windows_are_exact() && good;
  good = exactly_the_limit_is_taken() && good;
  good = open_requests_are_exact() && good;
  return good ? 0 : 1;
}
