// Which worker takes a request: pure functions over the slot table of one model.
//
// Owns the strategies; must not know requests, queues or time. A strategy is a function from the
// table and what is asked of it to a row; adding one means writing it and listing it in `choose`.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace smmf {

constexpr int64_t kNoWorker = -1;
constexpr size_t kNoSeat = static_cast<size_t>(-1);

// One row: one worker's slots of this model.
struct Seat {
  int64_t worker = kNoWorker;
  int64_t slots = 0;
  int64_t taken = 0;
  double weight = 1.0;
  bool accepting = true;
  double credit = 0;  // of the weighted strategy

  int64_t free() const { return accepting ? std::max<int64_t>(slots - taken, 0) : 0; }
};

struct SlotTable;
struct Ask;

// A strategy from outside: a function of the embedder's, called with its own context. It answers a
// row that fits, or kNoSeat for none; it must not throw, nor keep what it is given.
struct External {
  size_t (*call)(void* context, const SlotTable&, const Ask&) = nullptr;
  void* context = nullptr;
};

struct SlotTable {
  std::vector<Seat*> seats;  // in the order in which the workers came up
  size_t cursor = 0;         // the row after the one taken last: where a rotation starts
  External external;         // of the external strategy

  void add(Seat& seat) { seats.push_back(&seat); }

  void remove(const Seat& seat) {
    const auto found = std::find(seats.begin(), seats.end(), &seat);
    const size_t row = static_cast<size_t>(found - seats.begin());
    seats.erase(found);
    if (row < cursor) --cursor;
  }

  // Visits every row once, beginning at the cursor.
  template <class Visit>
  void rotate(Visit visit) const {
    for (size_t i = 0; i < seats.size(); ++i) visit((cursor + i) % seats.size());
  }
};

// What is asked: `width` free slots at once, not on the worker `avoid`.
struct Ask {
  int64_t width;
  int64_t avoid;

  bool fits(const Seat& seat) const { return seat.worker != avoid && seat.free() >= width; }
};

// The first row that fits after the last one taken.
inline size_t round_robin(SlotTable& table, const Ask& ask) {
  size_t best = kNoSeat;
  table.rotate([&](size_t row) {
    if (best == kNoSeat && ask.fits(*table.seats[row])) best = row;
  });
  return best;
}

// The row with the most free share of its slots; equals take turns.
inline size_t least_connections(SlotTable& table, const Ask& ask) {
  size_t best = kNoSeat;
  table.rotate([&](size_t row) {
    const Seat& seat = *table.seats[row];
    if (!ask.fits(seat)) return;
    if (best == kNoSeat ||
        seat.free() * table.seats[best]->slots > table.seats[best]->free() * seat.slots) {
      best = row;
    }
  });
  return best;
}

// Smooth weighted round robin over the rows that fit: each earns its weight, the richest pays all
// of it. Over a round each row gets its share, spread out rather than in a burst.
inline size_t weighted(SlotTable& table, const Ask& ask) {
  size_t best = kNoSeat;
  double total = 0;
  for (size_t row = 0; row < table.seats.size(); ++row) {
    Seat& seat = *table.seats[row];
    if (!ask.fits(seat)) continue;
    seat.credit += seat.weight;
    total += seat.weight;
    if (best == kNoSeat || seat.credit > table.seats[best]->credit) best = row;
  }
  if (best != kNoSeat) table.seats[best]->credit -= total;
  return best;
}

// What the embedder says; what it says wrong counts as least_connections.
inline size_t external(SlotTable& table, const Ask& ask) {
  bool fits = false;
  for (const Seat* seat : table.seats) fits = fits || ask.fits(*seat);
  if (!fits) return kNoSeat;
  size_t row = kNoSeat;
  if (table.external.call != nullptr) {
    row = table.external.call(table.external.context, table, ask);
  }
  const bool is_right = row < table.seats.size() && ask.fits(*table.seats[row]);
  return is_right ? row : least_connections(table, ask);
}

enum Strategy : int { kRoundRobin = 0, kLeastConnections = 1, kWeighted = 2, kExternal = 3 };
using Choose = size_t (*)(SlotTable&, const Ask&);

inline Choose choose(int strategy) {
  switch (strategy) {
    case kRoundRobin:
      return round_robin;
    case kLeastConnections:
      return least_connections;
    case kWeighted:
      return weighted;
    case kExternal:
      return external;
  }
  throw std::invalid_argument("unknown placement strategy");
}

struct Placed {
  Seat* seat;  // nullptr: it has to wait
  int64_t width;
};

// Takes the slots for a request, or says that it has to wait.
//   1. Candidates are the accepting rows with slots, without the avoided worker unless it is the
//      only one.
//   2. No candidate: it waits.
//   3. The width is clamped to the candidates' largest row: what no worker could ever take at once
//      runs with what the largest has.
//   4. The strategy picks among the candidates with so many free slots; none: it waits.
inline Placed place(SlotTable& table, Choose strategy, int64_t width, int64_t avoid) {
  int64_t largest = 0;
  int64_t largest_avoided = 0;
  for (const Seat* seat : table.seats) {
    if (!seat->accepting) continue;
    int64_t& group = seat->worker == avoid ? largest_avoided : largest;
    group = std::max(group, seat->slots);
  }
  if (largest == 0) {
    largest = largest_avoided;
    avoid = kNoWorker;
  }
  if (largest == 0) return {nullptr, 0};
  width = std::min(std::max<int64_t>(width, 1), largest);
  const size_t row = strategy(table, {width, avoid});
  if (row == kNoSeat) return {nullptr, 0};
  table.cursor = row + 1;
  table.seats[row]->taken += width;
  return {table.seats[row], width};
}

}  // namespace smmf
