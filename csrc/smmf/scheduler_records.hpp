// What the scheduler is asked and answers, its records of models, workers and requests, and what may
// enter them.
//
// The invariants between the records are the scheduler's (scheduler.hpp).
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "smmf/placement.hpp"
#include "smmf/wait_queue.hpp"

namespace smmf {

enum SubmitStatus : int { kOk = 0, kQueueFull, kTokensFull, kUnknownModel, kDuplicate };

constexpr int64_t kUnknownKey = -2;
constexpr int64_t kWasWaiting = -1;

struct Submission {
  uint64_t key;
  int64_t model;
  int64_t tenant;
  int64_t priority;
  int64_t width;   // slots it needs at once
  int64_t tokens;  // its size, for fairness and the limit
  double deadline;         // of its wait
  double latest = kNever;  // set_wait_until never moves the deadline beyond it
  double now = 0;
};

struct Assignment {
  uint64_t key;
  int64_t worker;
};

// One model: its queue and its workers' slots.
struct Model {
  int64_t id = 0;
  bool is_listed = false;  // false: only its workers are known
  Choose strategy = round_robin;
  int64_t max_waiting = 0;  // 0: no limit
  int64_t max_waiting_tokens = 0;
  WaitQueue queue;
  SlotTable table;
  int64_t free = 0;
  int64_t running = 0;
  bool is_marked = false;  // in the scheduler's list of runnable models
};

// One worker: a row of its model's slot table, and what runs there.
struct Worker : Seat {
  Model* model = nullptr;
  RequestList running;
};

// One request between submit and finish.
struct Request : Waiting {
  Model* model = nullptr;
  Worker* worker = nullptr;  // set while it runs
  int64_t width = 1;
  int64_t slots_taken = 0;
  int64_t avoid = kNoWorker;
};

inline void check_weight(double weight) {
  if (!(weight >= 0) || weight == kNever) {
    throw std::invalid_argument("a worker's weight must be a number, not below 0");
  }
}

// Whether the model's queue takes one more.
inline int admit(const Model& model, const Submission& asked) {
  const int64_t queued = static_cast<int64_t>(model.queue.count()) - model.free;
  if (queued < 0) return kOk;
  if (model.max_waiting > 0 && queued >= model.max_waiting) return kQueueFull;
  const int64_t tokens = model.queue.tokens() + std::max<int64_t>(asked.tokens, 0);
  return model.max_waiting_tokens > 0 && tokens > model.max_waiting_tokens ? kTokensFull : kOk;
}

}  // namespace smmf
