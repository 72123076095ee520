// A min-heap whose nodes know their place in it, so that any of them leaves in O(log n).
//
// Owns the order only; the nodes belong to the caller and must outlive their stay.
// Not thread-safe. Keys must be totally ordered and unique: then the order of pops is determined
// by the keys alone, not by the history of the heap.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace smmf {

constexpr size_t kNotInHeap = static_cast<size_t>(-1);

template <class Key, class Node, size_t Node::* Place>
class IndexedHeap {
 public:
  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  const Key& top_key() const { return entries_.front().key; }
  Node* top() const { return entries_.front().node; }
  static bool contains(const Node& node) { return node.*Place != kNotInHeap; }

  void push(const Key& key, Node& node) {
    entries_.push_back({key, &node});
    rise(entries_.size() - 1);
  }

  void remove(Node& node) {
    const size_t place = node.*Place;
    node.*Place = kNotInHeap;
    const Entry last = entries_.back();
    entries_.pop_back();
    if (last.node != &node) reseat(place, last);
  }

  void update(const Key& key, Node& node) { reseat(node.*Place, {key, &node}); }

 private:
  struct Entry {
    Key key;
    Node* node;
  };

  // Four children per node: half the levels of a binary heap, and siblings share cache lines.
  static constexpr size_t kChildren = 4;

  static size_t parent(size_t place) { return (place - 1) / kChildren; }

  void put(size_t place, const Entry& entry) {
    entries_[place] = entry;
    entry.node->*Place = place;
  }

  void reseat(size_t place, const Entry& entry) {
    entries_[place] = entry;
    if (place > 0 && entry.key < entries_[parent(place)].key) {
      rise(place);
    } else {
      sink(place);
    }
  }

  void rise(size_t place) {
    const Entry entry = entries_[place];
    while (place > 0 && entry.key < entries_[parent(place)].key) {
      put(place, entries_[parent(place)]);
      place = parent(place);
    }
    put(place, entry);
  }

  void sink(size_t place) {
    const Entry entry = entries_[place];
    for (;;) {
      const size_t least = least_child(place);
      if (least == kNotInHeap || entry.key < entries_[least].key) break;
      put(place, entries_[least]);
      place = least;
    }
    put(place, entry);
  }

  size_t least_child(size_t place) const {
    const size_t first = place * kChildren + 1;
    if (first >= entries_.size()) return kNotInHeap;
    const size_t end = first + kChildren < entries_.size() ? first + kChildren : entries_.size();
    size_t least = first;
    for (size_t child = first + 1; child < end; ++child) {
      if (entries_[child].key < entries_[least].key) least = child;
    }
    return least;
  }

  std::vector<Entry> entries_;
};

}  // namespace smmf
