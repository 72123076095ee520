// Which waiting requests enter the engine's next step.
//
// Owns the waiting list, the size of the batch and the window of static batching; must not know
// what a request says or what the engine does, and reads no clock: time is a parameter. Not
// thread-safe.
//
// next() is called once before each step. In order of priority, then arrival, the head joins while
//   1. its sequences fit into what the batch has left of max_batch_size (a request wider than the
//      whole batch is counted as the whole batch), and
//   2. its prompt tokens fit into what this step has left of max_batch_tokens; the first to enter
//      an empty batch always does.
// A head that does not fit is not overtaken. Continuous batching asks this before every step;
// static batching only when the batch is empty, and when the waiting would fill it or the oldest
// has waited max_delay_s.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

#include "smmf/indexed_heap.hpp"

namespace smmf {

struct BatchLimits {
  int64_t sequences;   // max_batch_size
  int64_t tokens;      // max_batch_tokens, 0: no limit
  double max_delay_s;  // static only
  bool is_static;
};

class Batcher {
 public:
  explicit Batcher(const BatchLimits& limits) : limits_(limits) {
    if (limits.sequences < 1) throw std::invalid_argument("max_batch_size must be at least 1");
    if (limits.tokens < 0) throw std::invalid_argument("max_batch_tokens must not be negative");
    if (!(limits.max_delay_s >= 0)) throw std::invalid_argument("max_delay_s must not be negative");
  }

  void add(uint64_t key, int64_t width, int64_t tokens, int64_t priority, double now) {
    const auto [place, is_new] = entries_.try_emplace(key);
    if (!is_new) throw std::invalid_argument("the key is already in the batcher");
    Entry& entry = place->second;
    entry.key = key;
    entry.width = std::min(std::max<int64_t>(width, 1), limits_.sequences);
    entry.tokens = std::max<int64_t>(tokens, 0);
    entry.arrived_at = now;
    // ~: higher first, and defined for every value
    order_.push({~priority, ++arrivals_}, entry);
    entry.older = newest_;
    (newest_ != nullptr ? newest_->newer : oldest_) = &entry;
    newest_ = &entry;
    waiting_width_ += entry.width;
    waiting_tokens_ += entry.tokens;
  }

  // Waiting or running; false if unknown.
  bool cancel(uint64_t key) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) return false;
    Entry& entry = found->second;
    if (entry.is_running) {
      running_ -= entry.width;
    } else {
      stop_waiting(entry);
    }
    entries_.erase(found);
    return true;
  }

  // False for a key that does not run.
  bool finish(uint64_t key) {
    const auto found = entries_.find(key);
    return found != entries_.end() && found->second.is_running && cancel(key);
  }

  // Replaces what `joining` held by the keys that run from now on; allocates nothing when idle.
  void next(double now, std::vector<uint64_t>& joining) {
    joining.clear();
    if (order_.empty() || (limits_.is_static && due() > now)) return;
    int64_t tokens_left = limits_.tokens;
    while (!order_.empty() && fits(*order_.top(), tokens_left)) {
      Entry& entry = *order_.top();
      stop_waiting(entry);
      entry.is_running = true;
      running_ += entry.width;
      tokens_left -= entry.tokens;
      joining.push_back(entry.key);
    }
  }

  // When next() would release something if nothing else happened: in the past means at once.
  double next_deadline() const {
    const bool can_join = !order_.empty() && fits(*order_.top(), limits_.tokens);
    return can_join ? due() : kForever;
  }

  int64_t waiting() const { return static_cast<int64_t>(order_.size()); }
  int64_t running() const { return running_; }

 private:
  static constexpr double kForever = std::numeric_limits<double>::infinity();

  struct Entry {
    uint64_t key = 0;
    int64_t width = 1;
    int64_t tokens = 0;
    double arrived_at = 0;
    bool is_running = false;
    size_t order_place = kNotInHeap;
    Entry* older = nullptr;  // of those that wait
    Entry* newer = nullptr;
  };

  // The window of static batching, with something waiting; continuous batching has none.
  double due() const {
    const double arrived_at = oldest_->arrived_at;
    if (!limits_.is_static) return arrived_at;
    if (running_ > 0) return kForever;
    return would_fill() ? arrived_at : arrived_at + limits_.max_delay_s;
  }

  bool would_fill() const {
    return waiting_width_ >= limits_.sequences ||
           (limits_.tokens > 0 && waiting_tokens_ >= limits_.tokens);
  }

  bool fits(const Entry& entry, int64_t tokens_left) const {
    if (running_ + entry.width > limits_.sequences) return false;
    return limits_.tokens == 0 || running_ == 0 || entry.tokens <= tokens_left;
  }

  void stop_waiting(Entry& entry) {
    order_.remove(entry);
    (entry.older != nullptr ? entry.older->newer : oldest_) = entry.newer;
    (entry.newer != nullptr ? entry.newer->older : newest_) = entry.older;
    waiting_width_ -= entry.width;
    waiting_tokens_ -= entry.tokens;
  }

  const BatchLimits limits_;
  std::unordered_map<uint64_t, Entry> entries_;
  IndexedHeap<std::pair<int64_t, uint64_t>, Entry, &Entry::order_place> order_;
  Entry* oldest_ = nullptr;  // of those that wait, whatever their priority
  Entry* newest_ = nullptr;
  int64_t waiting_width_ = 0;
  int64_t waiting_tokens_ = 0;
  int64_t running_ = 0;
  uint64_t arrivals_ = 0;
};

}  // namespace smmf
