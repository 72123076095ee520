// The scheduler's invariants under random events, and the rules that are easiest to get wrong.
// Built with sanitizers: what it proves about pointers it proves by running.
#include <cstdio>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "check.hpp"
#include "smmf/scheduler.hpp"

namespace {

using Answer = std::vector<std::pair<uint64_t, int64_t>>;

struct Polled {
  Answer assigned;
  std::vector<uint64_t> expired;
};

Polled poll(smmf::Scheduler& scheduler, double now = 0) {
  std::vector<smmf::Assignment> assigned;
  Polled polled;
  scheduler.poll(now, assigned, polled.expired);
  for (const auto& one : assigned) polled.assigned.push_back({one.key, one.worker});
  return polled;
}

smmf::Submission ask(uint64_t key, int64_t tenant = 0, int64_t priority = 0, int64_t width = 1) {
  return {key, 0, tenant, priority, width, 10, smmf::kNever};
}

bool serves_priority_then_fair_share_then_arrival() {
  smmf::Scheduler scheduler;
  scheduler.set_model(0, smmf::kRoundRobin, 0, 0);
  scheduler.set_tenant(2, 2.0);
  for (uint64_t key = 1; key <= 4; ++key) scheduler.submit(ask(key, 1));
  for (uint64_t key = 11; key <= 14; ++key) scheduler.submit(ask(key, 2));
  scheduler.submit(ask(99, 1, 5));
  scheduler.worker_up(7, 0, 1, 1.0);
  std::vector<uint64_t> order;
  for (;;) {
    const Polled polled = poll(scheduler);
    if (polled.assigned.empty()) break;
    order.push_back(polled.assigned[0].first);
    CHECK(scheduler.finish(order.back()));
  }
  const std::vector<uint64_t> expected = {99, 1, 11, 12, 2, 13, 14, 3, 4};
  CHECK(order == expected);
  return true;
}

bool gives_slots_back_once() {
  smmf::Scheduler scheduler;
  scheduler.set_model(0, smmf::kLeastConnections, 0, 0);
  scheduler.worker_up(1, 0, 4, 1.0);
  scheduler.submit(ask(1, 0, 0, 9));  // wider than any worker
  CHECK((poll(scheduler).assigned == Answer{{1, 1}}));
  CHECK(scheduler.free_slots(0) == 0 && scheduler.in_flight(1) == 4);
  scheduler.worker_set(1, 2, 1.0, true);  // fewer slots than are taken
  CHECK(scheduler.free_slots(0) == 0);
  CHECK(scheduler.cancel(1) == 1);
  CHECK(scheduler.free_slots(0) == 2 && scheduler.in_flight(1) == 0);
  CHECK(!scheduler.finish(1) && scheduler.cancel(1) == smmf::kUnknownKey);
  CHECK(scheduler.free_slots(0) == 2);
  return true;
}

bool loses_a_worker_and_places_again() {
  smmf::Scheduler scheduler;
  scheduler.set_model(0, smmf::kRoundRobin, 0, 0);
  scheduler.worker_up(1, 0, 2, 1.0);
  for (uint64_t key = 1; key <= 3; ++key) scheduler.submit(ask(key));
  poll(scheduler);
  CHECK((scheduler.worker_down(1) == std::vector<uint64_t>{1, 2}));
  CHECK(scheduler.worker_down(1).empty());
  for (uint64_t key = 1; key <= 2; ++key) scheduler.resubmit(ask(key), 1);
  scheduler.worker_up(1, 0, 9, 1.0);
  scheduler.worker_up(2, 0, 2, 1.0);
  CHECK((poll(scheduler).assigned == Answer{{1, 2}, {2, 2}, {3, 1}}));
  return true;
}

bool moves_deadlines_but_not_beyond_the_latest() {
  smmf::Scheduler scheduler;
  scheduler.set_model(0, smmf::kRoundRobin, 0, 0);
  scheduler.set_model(1, smmf::kRoundRobin, 0, 0);
  scheduler.submit({1, 0, 0, 0, 1, 1, 10.0, smmf::kNever, 1.0});
  scheduler.submit({2, 0, 0, 0, 1, 1, 10.0, 12.0, 2.0});
  scheduler.submit({3, 0, 0, 0, 1, 1, 90.0, smmf::kNever, 3.0});
  scheduler.submit({4, 1, 0, 0, 1, 1, 11.0, smmf::kNever, 4.0});
  CHECK(scheduler.oldest(0) == 1.0 && scheduler.oldest(1) == 4.0);
  scheduler.set_wait_until(0, 20.0, true);
  CHECK((poll(scheduler, 11.5).expired == std::vector<uint64_t>{4}));
  CHECK((poll(scheduler, 12.5).expired == std::vector<uint64_t>{2}));
  CHECK(scheduler.oldest(1) == smmf::kNever);
  scheduler.set_wait_until(0, 15.0, false);
  CHECK((poll(scheduler, 15.0).expired == std::vector<uint64_t>{1, 3}));
  CHECK(scheduler.next_deadline() == smmf::kNever);
  return true;
}

// Plays random events and counts on its own what must be running where.
class Fuzz {
 public:
  explicit Fuzz(uint32_t seed) : random_(seed) {
    for (int64_t model = 0; model < 3; ++model) scheduler_.set_model(model, pick(3), 0, 0);
  }

  bool run() {
    for (int i = 0; i < 20000; ++i) {
      turn();
      CHECK(consistent());
    }
    return true;
  }

 private:
  int pick(int n) { return static_cast<int>(random_() % static_cast<uint32_t>(n)); }

  void turn() {
    const int64_t worker = pick(5);
    const uint64_t key = static_cast<uint64_t>(pick(60));
    switch (pick(10)) {
      case 0:
        if (workers_.insert(worker).second) scheduler_.worker_up(worker, worker % 3, pick(5), 1.0);
        break;
      case 1:
        if (pick(4) == 0) down(worker);
        break;
      case 2:
        if (workers_.count(worker)) scheduler_.worker_set(worker, pick(5), 2.0, pick(3) > 0);
        break;
      case 3:
        if (scheduler_.cancel(key) >= 0) running_.erase(key);
        break;
      case 4:
        if (scheduler_.finish(key)) running_.erase(key);
        break;
      case 5:
        scheduler_.correct_tokens(key, pick(100));
        break;
      case 6:
        if (pick(30) == 0) remove_model(pick(3));
        break;
      case 7:
        scheduler_.set_wait_until(pick(3), now_ + pick(9), pick(2) == 0);
        break;
      default:
        scheduler_.submit({key, pick(3), pick(4), pick(3), 1 + pick(6), pick(50),
                           pick(2) ? now_ + pick(9) : smmf::kNever, now_ + 5 + pick(9), now_});
    }
    now_ += 0.25;
    for (const auto& [placed, on] : poll(scheduler_, now_).assigned) running_[placed] = on;
  }

  void down(int64_t worker) {
    workers_.erase(worker);
    for (const uint64_t key : scheduler_.worker_down(worker)) {
      running_.erase(key);
      scheduler_.resubmit({key, worker % 3, 0, 0, 1, 5, now_ + 5}, worker);
    }
  }

  void remove_model(int64_t model) {
    scheduler_.remove_model(model);
    scheduler_.set_model(model, pick(3), 0, 0);
  }

  bool consistent() {
    std::map<int64_t, int64_t> on_model;
    for (const auto& [key, worker] : running_) {
      CHECK(workers_.count(worker));
      ++on_model[worker % 3];
    }
    for (int64_t model = 0; model < 3; ++model) {
      CHECK(scheduler_.running(model) == on_model[model]);
      CHECK(scheduler_.free_slots(model) >= 0);
      if (on_model[model] == 0) {
        for (const int64_t worker : workers_) {
          CHECK(worker % 3 != model || scheduler_.in_flight(worker) == 0);
        }
      }
    }
    return true;
  }

  std::mt19937 random_;
  smmf::Scheduler scheduler_;
  std::set<int64_t> workers_;
  std::map<uint64_t, int64_t> running_;
  double now_ = 0;
};

}  // namespace

int main() {
  bool good = serves_priority_then_fair_share_then_arrival();
  good = gives_slots_back_once() && good;
  good = loses_a_worker_and_places_again() && good;
  good = moves_deadlines_but_not_beyond_the_latest() && good;
  for (uint32_t seed = 1; seed <= 3; ++seed) good = Fuzz(seed).run() && good;
  return good ? 0 : 1;
}
