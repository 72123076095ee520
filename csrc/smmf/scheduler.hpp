// Which request goes to which worker, and when.
//
// Owns every request between submit and finish, the queues of the models and the slots of the
// workers; must not know what a request says, and reads no clock: time is a parameter. Not
// thread-safe. Deterministic: the same calls give the same answers.
//
// Invariants
//   1. A request is waiting (in one queue, no worker) or running (on one worker, in no queue).
//   2. Slots are taken when it is placed and given back exactly once: by finish, cancel or the
//      worker's end.
//   3. Model::free is the sum of Seat::free over its workers.
//   4. After poll() no model has a head that could be placed; only the models in `runnable_` may
//      have one again. A busy model therefore costs poll() nothing.
// submit, resubmit, cancel, finish, correct_tokens: O(log waiting). poll: O(log waiting + workers
// of the model) per assignment.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

#include "smmf/placement.hpp"
#include "smmf/scheduler_records.hpp"
#include "smmf/wait_queue.hpp"

namespace smmf {

class Scheduler {
 public:
  // --- models and tenants ---

  // `external` is what kExternal calls.
  void set_model(int64_t id, int strategy, int64_t max_waiting, int64_t max_waiting_tokens,
                 External external = {}) {
    const Choose chosen = choose(strategy);
    Model& model = models_[id];
    model.id = id;
    model.is_listed = true;
    model.strategy = chosen;
    model.table.external = external;
    model.max_waiting = max_waiting;
    model.max_waiting_tokens = max_waiting_tokens;
  }

  // Returns what waited, in arrival order. Running requests go on, and its workers stay known.
  std::vector<uint64_t> remove_model(int64_t id) {
    Model* model = find(models_, id);
    if (model == nullptr) return {};
    std::vector<uint64_t> keys;
    for (Waiting* request : model->queue.by_arrival()) {
      keys.push_back(request->key);
      forget_waiting(*static_cast<Request*>(request));
    }
    model->is_listed = false;
    drop_if_unused(*model);
    return keys;
  }

  void set_tenant(int64_t tenant, double weight) { weights_.set(tenant, weight); }

  // --- workers ---

  void worker_up(int64_t id, int64_t model_id, int64_t slots, double weight) {
    check_weight(weight);
    if (id < 0 || workers_.count(id) != 0) throw std::invalid_argument("worker is already up");
    Model& model = models_[model_id];
    model.id = model_id;
    Worker& worker = workers_[id];
    worker.worker = id;
    worker.model = &model;
    worker.slots = slots;
    worker.weight = weight;
    model.table.add(worker);
    model.free += worker.free();
    mark(model);
  }

  void worker_set(int64_t id, int64_t slots, double weight, bool accepting) {
    check_weight(weight);
    if (workers_.count(id) == 0) throw std::invalid_argument("worker is not up");
    Worker& worker = workers_[id];
    worker.model->free -= worker.free();
    worker.slots = slots;
    worker.weight = weight;
    worker.accepting = accepting;
    worker.model->free += worker.free();
    mark(*worker.model);
  }

  // Returns what ran there, in the order in which it was placed.
  std::vector<uint64_t> worker_down(int64_t id) {
    if (workers_.count(id) == 0) return {};
    Worker& worker = workers_[id];
    Model& model = *worker.model;
    std::vector<uint64_t> keys;
    while (!worker.running.empty()) {
      keys.push_back(worker.running.front()->key);
      forget_running(*static_cast<Request*>(worker.running.front()));
    }
    model.free -= worker.free();
    model.table.remove(worker);
    workers_.erase(id);
    mark(model);  // a head that avoided another worker may have lost its choice
    drop_if_unused(model);
    return keys;
  }

  // --- requests ---

  // 1 a key that is waiting or running: kDuplicate; 2 a model not set: kUnknownModel; 3 a request
  // that finds a free slot nobody waits for is never refused; 4 else the queue's limits decide.
  // Requests that the next poll() will place do not count as waiting.
  int submit(const Submission& asked) {
    if (requests_.count(asked.key) != 0) return kDuplicate;
    Model* model = find(models_, asked.model);
    if (model == nullptr || !model->is_listed) return kUnknownModel;
    const int status = admit(*model, asked);
    if (status == kOk) enqueue(*model, asked, kNoWorker, false);
    return status;
  }

  // It came back: before its equals, beyond the limits, not to `avoid` if another worker is up.
  int resubmit(const Submission& asked, int64_t avoid) {
    if (requests_.count(asked.key) != 0) return kDuplicate;
    Model* model = find(models_, asked.model);
    if (model == nullptr || !model->is_listed) return kUnknownModel;
    enqueue(*model, asked, avoid, true);
    return kOk;
  }

  // Returns the worker it ran on, kWasWaiting or kUnknownKey.
  int64_t cancel(uint64_t key) {
    Request* request = find(requests_, key);
    if (request == nullptr) return kUnknownKey;
    if (request->worker != nullptr) return forget_running(*request);
    forget_waiting(*request);
    return kWasWaiting;
  }

  // False for a key that does not run.
  bool finish(uint64_t key) {
    Request* request = find(requests_, key);
    if (request == nullptr || request->worker == nullptr) return false;
    forget_running(*request);
    return true;
  }

  void correct_tokens(uint64_t key, int64_t tokens) {
    Request* request = find(requests_, key);
    if (request == nullptr) return;
    request->model->queue.correct(*request, std::max<int64_t>(tokens, 0), weights_);
  }

  // What waits for the model may wait until then, `only_later`: if that is longer than it may now.
  void set_wait_until(int64_t model_id, double until, bool only_later) {
    Model* model = find(models_, model_id);
    if (model == nullptr) return;
    model->queue.each([&](Waiting& request) {
      const double deadline = std::min(until, request.latest);
      if (!only_later || deadline > request.deadline) deadlines_.move(request, deadline);
    });
  }

  // Ends what waited too long, then places what can be placed; allocates nothing when idle.
  // Replaces what `assigned` and `expired` held.
  void poll(double now, std::vector<Assignment>& assigned, std::vector<uint64_t>& expired) {
    assigned.clear();
    expired.clear();
    while (deadlines_.next() <= now) {
      Request& request = *static_cast<Request*>(deadlines_.earliest());
      expired.push_back(request.key);
      forget_waiting(request);
    }
    for (Model* model : runnable_) {
      model->is_marked = false;
      place_all(*model, assigned);
    }
    runnable_.clear();
  }

  double next_deadline() const { return deadlines_.next(); }

  // --- counts ---

  std::pair<int64_t, int64_t> waiting(int64_t model_id) const {
    const Model* model = find(models_, model_id);
    if (model == nullptr) return {0, 0};
    return {static_cast<int64_t>(model->queue.count()), model->queue.tokens()};
  }
  double oldest(int64_t model_id) const {
    const Model* model = find(models_, model_id);
    return model == nullptr ? kNever : model->queue.oldest();
  }
  int64_t running(int64_t model_id) const {
    const Model* model = find(models_, model_id);
    return model == nullptr ? 0 : model->running;
  }
  int64_t free_slots(int64_t model_id) const {
    const Model* model = find(models_, model_id);
    return model == nullptr ? 0 : model->free;
  }
  int64_t in_flight(int64_t worker) const {
    const Worker* found = find(workers_, worker);
    return found == nullptr ? 0 : found->taken;
  }
  int64_t position(uint64_t key) const {
    const Request* request = find(requests_, key);
    if (request == nullptr || request->worker != nullptr) return -1;
    return static_cast<int64_t>(request->model->queue.before(*request, weights_));
  }

 private:
  template <class Records, class Id>
  static auto find(Records& records, Id id) -> decltype(&records.begin()->second) {
    const auto found = records.find(id);
    return found == records.end() ? nullptr : &found->second;
  }

  void enqueue(Model& model, const Submission& asked, int64_t avoid, bool returned) {
    Request& request = requests_[asked.key];
    request.key = asked.key;
    request.tenant = asked.tenant;
    request.priority = asked.priority;
    request.tokens = std::max<int64_t>(asked.tokens, 0);
    request.since = asked.now;
    request.deadline = asked.deadline;
    request.latest = asked.latest;
    request.arrival = ++arrivals_;
    request.model = &model;
    request.width = asked.width;
    request.avoid = avoid;
    deadlines_.push(request);
    returned ? model.queue.push_returned(request) : model.queue.push(request);
    mark(model);
  }

  void mark(Model& model) {
    if (model.is_marked || model.free == 0 || model.queue.empty()) return;
    model.is_marked = true;
    runnable_.push_back(&model);
  }

  // Strictly in the queue's order: a wide head waits for its slots and nobody overtakes it.
  void place_all(Model& model, std::vector<Assignment>& assigned) {
    while (model.free > 0 && !model.queue.empty()) {
      Request& request = *static_cast<Request*>(model.queue.head());
      const Placed placed = place(model.table, model.strategy, request.width, request.avoid);
      if (placed.seat == nullptr) return;
      deadlines_.remove(request);
      model.queue.serve(request, weights_);
      request.worker = static_cast<Worker*>(placed.seat);
      request.slots_taken = placed.width;
      request.worker->running.push_back(request);
      model.free -= placed.width;
      ++model.running;
      assigned.push_back({request.key, request.worker->worker});
    }
  }

  void forget_waiting(Request& request) {
    Model& model = *request.model;
    deadlines_.remove(request);
    model.queue.remove(request);
    requests_.erase(request.key);
    mark(model);  // the next one may need less
  }

  int64_t forget_running(Request& request) {
    Model& model = *request.model;
    Worker& worker = *request.worker;
    worker.running.remove(request);
    model.free -= worker.free();
    worker.taken -= request.slots_taken;
    model.free += worker.free();
    --model.running;
    requests_.erase(request.key);
    mark(model);
    return worker.worker;
  }

  void drop_if_unused(Model& model) {
    if (model.is_listed || !model.table.seats.empty()) return;
    runnable_.erase(std::remove(runnable_.begin(), runnable_.end(), &model), runnable_.end());
    models_.erase(model.id);
  }

  std::unordered_map<int64_t, Model> models_;
  std::unordered_map<int64_t, Worker> workers_;
  std::unordered_map<uint64_t, Request> requests_;
  TenantWeights weights_;
  DeadlineHeap deadlines_;
  std::vector<Model*> runnable_;  // in the order in which they were marked
  uint64_t arrivals_ = 0;
};

}  // namespace smmf
