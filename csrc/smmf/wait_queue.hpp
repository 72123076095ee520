// The requests of one model that wait: in which order they are served.
//
// Owns order, virtual time and the counts of what waits; must not own requests, know workers, or
// read a clock. Not thread-safe.
//
// The order, first rule that decides:
//   1. higher priority first;
//   2. inside a priority, requests that came back from a lost worker first, in the order in which
//      they came back: their tenant has already paid for them;
//   3. then the tenant whose next request has the lowest start tag: start-time fair queueing
//      (Goyal, Vin, Cheng: "Start-time Fair Queueing", SIGCOMM 1996). A request's start tag is
//      max(virtual time, finish tag of its tenant's former request); its finish tag is
//      start + cost / weight; the virtual time is the start tag of the last request served;
//   4. at equal start tags, and inside a tenant, the one that arrived first.
// Tags are computed when a request becomes its tenant's first: the same as at arrival, except that
// a cancelled request has cost nothing. A priority that nobody waits in forgets its tags.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <stdexcept>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "smmf/indexed_heap.hpp"
#include "smmf/waiting.hpp"

namespace smmf {

class TenantWeights {
 public:
  void set(int64_t tenant, double weight) {
    if (!(weight > 0) || weight == kNever) {
      throw std::invalid_argument("a tenant's weight must be a positive number");
    }
    weights_[tenant] = weight;
  }
  double of(int64_t tenant) const {
    const auto found = weights_.find(tenant);
    return found == weights_.end() ? 1.0 : found->second;
  }

 private:
  std::unordered_map<int64_t, double> weights_;
};

// What waits of one tenant in one priority, and its account in virtual time.
struct Flow {
  RequestList requests;
  double finish = 0;  // finish tag of its last served request
  double floor = 0;   // the virtual time when its first request became the first
  size_t place = kNotInHeap;

  double start() const { return std::max(floor, finish); }
  std::pair<double, uint64_t> rank() const { return {start(), requests.front()->arrival}; }
};

// One priority of one model.
struct Level {
  uint64_t born = 0;  // unique, growing from 1: tells a level from its successor of equal priority
  size_t count = 0;
  double virtual_time = 0;
  RequestList returned;
  std::unordered_map<int64_t, Flow> flows;
  IndexedHeap<std::pair<double, uint64_t>, Flow, &Flow::place> order;  // flows that wait

  Waiting* head() const {
    return returned.empty() ? order.top()->requests.front() : returned.front();
  }
};

class WaitQueue {
 public:
  bool empty() const { return count_ == 0; }
  size_t count() const { return count_; }
  int64_t tokens() const { return tokens_; }
  Waiting* head() const { return empty() ? nullptr : levels_.begin()->second.head(); }

  void push(Waiting& request) {
    Level& level = enter(request);
    Flow& flow = level.flows[request.tenant];
    request.flow = &flow;
    const bool is_first = flow.requests.empty();
    flow.requests.push_back(request);
    if (is_first) {
      flow.floor = level.virtual_time;
      level.order.push(flow.rank(), flow);
    }
  }

  void push_returned(Waiting& request) { enter(request).returned.push_back(request); }

  // Takes the head out to be served: its tenant pays.
  void serve(Waiting& request, const TenantWeights& weights) {
    if (request.flow != nullptr) {
      Level& level = *request.level;
      Flow& flow = *request.flow;
      level.virtual_time = flow.floor = flow.start();
      flow.finish = flow.floor + cost(request.tokens) / weights.of(request.tenant);
      request.charged_at = level.born;
    }
    remove(request);
  }

  // Takes any waiting request out; nobody pays.
  void remove(Waiting& request) {
    Level& level = *request.level;
    if (request.flow == nullptr) {
      level.returned.remove(request);
    } else {
      leave(level, *request.flow, request);
    }
    request.level = nullptr;
    request.flow = nullptr;
    tokens_ -= request.tokens;
    --count_;
    if (--level.count == 0) levels_.erase(request.priority);
  }

  // The real size of a request, waiting or served; what its tenant paid is put right.
  void correct(Waiting& request, int64_t tokens, const TenantWeights& weights) {
    const double difference = cost(tokens) - cost(request.tokens);
    if (request.level != nullptr) tokens_ += tokens - request.tokens;
    request.tokens = tokens;
    const auto found = levels_.find(request.priority);
    if (found == levels_.end() || found->second.born != request.charged_at) return;
    Level& level = found->second;
    Flow& flow = level.flows.at(request.tenant);
    flow.finish += difference / weights.of(request.tenant);
    if (!flow.requests.empty()) level.order.update(flow.rank(), flow);
  }

  // How many would be served before it if nothing else arrived. O(n).
  size_t before(const Waiting& request, const TenantWeights& weights) const {
    size_t count = 0;
    for (const auto& [priority, level] : levels_) {
      if (priority == request.priority) return count + before_in(level, request, weights);
      count += level.count;
    }
    return count;
  }

  // When the one that has waited longest began to; kNever if nothing waits. O(tenants).
  double oldest() const {
    double least = kNever;
    const auto look = [&](const RequestList& list) {
      if (!list.empty()) least = std::min(least, list.front()->since);
    };
    for (const auto& [priority, level] : levels_) {
      look(level.returned);
      for (const auto& [tenant, flow] : level.flows) look(flow.requests);
    }
    return least;
  }

  // Every waiting request, in no order that means anything.
  template <class Visit>
  void each(Visit visit) const {
    for (const auto& [priority, level] : levels_) {
      for (Waiting* w = level.returned.front(); w != nullptr; w = w->next) visit(*w);
      for (const auto& [tenant, flow] : level.flows) {
        for (Waiting* w = flow.requests.front(); w != nullptr; w = w->next) visit(*w);
      }
    }
  }

  std::vector<Waiting*> by_arrival() const {
    std::vector<Waiting*> waiting;
    each([&](Waiting& request) { waiting.push_back(&request); });
    std::sort(waiting.begin(), waiting.end(),
              [](const Waiting* a, const Waiting* b) { return a->arrival < b->arrival; });
    return waiting;
  }

 private:
  using Rank = std::pair<double, uint64_t>;

  // A request of unknown or no size still costs a turn.
  static double cost(int64_t tokens) { return static_cast<double>(std::max<int64_t>(tokens, 1)); }

  Level& enter(Waiting& request) {
    Level& level = levels_[request.priority];
    if (level.count++ == 0) level.born = ++births_;
    request.level = &level;
    tokens_ += request.tokens;
    ++count_;
    return level;
  }

  static void leave(Level& level, Flow& flow, Waiting& request) {
    const bool was_first = flow.requests.front() == &request;
    flow.requests.remove(request);
    if (flow.requests.empty()) {
      level.order.remove(flow);
    } else if (was_first) {
      level.order.update(flow.rank(), flow);
    }
  }

  static size_t before_in(const Level& level, const Waiting& request,
                          const TenantWeights& weights) {
    size_t count = 0;
    for (Waiting* w = level.returned.front(); w != nullptr; w = w->next) {
      if (w == &request) return count;
      ++count;
    }
    const Rank rank = start_rank(*request.flow, weights, request);
    for (const auto& [tenant, flow] : level.flows) count += earlier(flow, weights, rank);
    return count;
  }

  static Rank start_rank(const Flow& flow, const TenantWeights& weights, const Waiting& request) {
    double start = flow.start();
    for (Waiting* w = flow.requests.front(); w != &request; w = w->next) {
      start += cost(w->tokens) / weights.of(w->tenant);
    }
    return {start, request.arrival};
  }

  static size_t earlier(const Flow& flow, const TenantWeights& weights, const Rank& rank) {
    size_t count = 0;
    double start = flow.start();
    for (Waiting* w = flow.requests.front(); w != nullptr; w = w->next) {
      if (!(Rank{start, w->arrival} < rank)) break;
      start += cost(w->tokens) / weights.of(w->tenant);
      ++count;
    }
    return count;
  }

  std::map<int64_t, Level, std::greater<int64_t>> levels_;  // only those in which something waits
  uint64_t births_ = 0;
  size_t count_ = 0;
  int64_t tokens_ = 0;
};

}  // namespace smmf
