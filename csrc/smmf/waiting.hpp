// A request while it waits: what its queue and the deadlines know of it.
//
// Owns links and deadlines; must not know order, workers, or read a clock. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

#include "smmf/indexed_heap.hpp"

namespace smmf {

struct Level;
struct Flow;

constexpr double kNever = std::numeric_limits<double>::infinity();

// What a queue knows of a request. It is in at most one list: its flow's, its level's `returned`,
// or, once it runs, its worker's.
struct Waiting {
  uint64_t key = 0;
  int64_t tenant = 0;
  int64_t priority = 0;
  int64_t tokens = 0;
  double since = 0;          // when it began to wait
  double deadline = kNever;  // of its wait
  double latest = kNever;    // the deadline is never moved beyond it
  uint64_t arrival = 0;      // unique, growing
  Waiting* previous = nullptr;
  Waiting* next = nullptr;
  size_t deadline_place = kNotInHeap;
  Level* level = nullptr;   // set while it waits
  Flow* flow = nullptr;     // set while it waits and did not come back
  uint64_t charged_at = 0;  // Level::born of the level whose flow paid for it, 0: nobody
};

// Linked through the requests themselves: every operation is O(1) and allocates nothing.
class RequestList {
 public:
  bool empty() const { return first_ == nullptr; }
  Waiting* front() const { return first_; }

  void push_back(Waiting& request) {
    request.previous = last_;
    request.next = nullptr;
    (last_ != nullptr ? last_->next : first_) = &request;
    last_ = &request;
  }

  void remove(Waiting& request) {
    (request.previous != nullptr ? request.previous->next : first_) = request.next;
    (request.next != nullptr ? request.next->previous : last_) = request.previous;
    request.previous = request.next = nullptr;
  }

 private:
  Waiting* first_ = nullptr;
  Waiting* last_ = nullptr;
};

// Earliest deadline first; requests without a deadline are not in it.
class DeadlineHeap {
 public:
  void push(Waiting& request) {
    if (request.deadline < kNever) heap_.push({request.deadline, request.arrival}, request);
  }
  void remove(Waiting& request) {
    if (heap_.contains(request)) heap_.remove(request);
  }
  void move(Waiting& request, double deadline) {
    remove(request);
    request.deadline = deadline;
    push(request);
  }
  double next() const { return heap_.empty() ? kNever : heap_.top_key().first; }
  Waiting* earliest() const { return heap_.top(); }

 private:
  IndexedHeap<std::pair<double, uint64_t>, Waiting, &Waiting::deadline_place> heap_;
};

}  // namespace smmf
