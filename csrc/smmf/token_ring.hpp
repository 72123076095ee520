// One-way path of records from one Worker to one Router: a ring in shared memory.
//
// Thread safety: one writer thread and one reader thread, usually of two processes. Nothing else.
// Invariants:
// 1. Only the writer stores `tail`, only the reader stores `head`; head <= tail <= head + capacity.
// 2. Bytes below `tail` are complete: tail is stored (release) after them, so a writer that dies at
//    any instruction leaves no torn record.
// 3. A record never wraps: a PAD fills what is left before the end.
// 4. Records that are not terminal leave (terminal_slots + 1) * kTerminalBytes free, so a FINISH or
//    FAIL always finds room.
// 5. The parts of a continued record follow one another without others between. A writer may
//    abandon one half-way: the next part then lacks CONTINUES, and the reader drops what it had.
// 6. Nothing that the peer wrote is used before it is checked; each word is read once.
#ifndef SMMF_TOKEN_RING_HPP_
#define SMMF_TOKEN_RING_HPP_

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "smmf/doorbell.hpp"
#include "smmf/segment.hpp"

namespace smmf {

struct Record {
  uint8_t kind;
  uint16_t attempt;
  uint64_t key;
  uint32_t choice;
  uint32_t count;
  const char* data;
  size_t size;
};

// Whether a writer may be given this record.
inline bool IsWritable(const Record& record) {
  if (record.kind <= kPad || record.kind > kLastKind) return false;
  const size_t room =
      IsTerminal(record.kind) ? kTerminalBytes - sizeof(RecordHeader) : kMaxPayloadBytes;
  return record.size <= room;
}

class RingWriter {
 public:
  // 0, or an errno. Does not take over the descriptors.
  int Open(int memfd, int data_fd) {
    const int error = segment_.Map(memfd);
    if (error != 0) return error;
    data_fd_ = data_fd;
    tail_ = segment_.header()->tail.load(std::memory_order_relaxed);  // own variable
    part_bytes_ = segment_.capacity() / 8 - sizeof(RecordHeader);
    return 0;
  }

  // Writes as many leading records as fit, publishes them at once, rings at most once. When not all
  // fit, the reader will ring `space` once it has made room; a record of which a part was written
  // goes on when it is the first of the next call, and is abandoned when another one is.
  size_t Write(const Record* records, size_t count) {
    RingHeader* header = segment_.header();
    if (partial_ > 0 && count > 0 && !IsPartial(records[0])) partial_ = 0;
    size_t done = Put(records, count);
    if (done < count) {
      Doorbell space(&header->writer_waits, -1);
      space.Arm();
      done += Put(records + done, count - done);  // the reader may have made room meanwhile
      if (done == count) space.Disarm();
      if (done < count) header->full.fetch_add(1, std::memory_order_relaxed);
    }
    if (header->tail.load(std::memory_order_relaxed) != tail_) {
      header->tail.store(tail_, std::memory_order_release);
      Doorbell(&header->reader_asleep, data_fd_).RingIfAsleep();
    }
    return done;
  }

  void Step(uint64_t steps) { segment_.header()->steps.store(steps, std::memory_order_relaxed); }

  uint64_t used() const { return tail_ - segment_.header()->head.load(std::memory_order_acquire); }
  uint32_t capacity() const { return segment_.capacity(); }
  bool is_open() const { return segment_.is_mapped(); }
  void Close() { segment_.Unmap(); }

 private:
  size_t Put(const Record* records, size_t count) {
    head_ = segment_.header()->head.load(std::memory_order_acquire);  // after the reader's reads
    size_t done = 0;
    while (done < count && PutAll(records[done])) ++done;
    return done;
  }

  // All parts of one record; remembers how far it came.
  bool PutAll(const Record& record) {
    for (;;) {
      const size_t left = record.size - partial_;
      const size_t size = std::min(left, part_bytes_);
      const int flags = (size < left ? kMore : 0) | (partial_ > 0 ? kContinues : 0);
      if (!PutPart(record, size, static_cast<uint8_t>(flags))) return false;
      partial_ += size;
      partial_of_ = record;
      if (partial_ == record.size) {
        partial_ = 0;
        return true;
      }
    }
  }

  bool IsPartial(const Record& record) const {
    return record.kind == partial_of_.kind && record.key == partial_of_.key &&
           record.attempt == partial_of_.attempt && record.choice == partial_of_.choice &&
           record.count == partial_of_.count && record.size == partial_of_.size;
  }

  // The next `size` bytes of a record, from partial_ on.
  bool PutPart(const Record& record, size_t size, uint8_t flags) {
    const uint32_t bytes = static_cast<uint32_t>(sizeof(RecordHeader) + size);
    const uint32_t need = RoundUp(bytes);
    const uint32_t capacity = segment_.capacity();
    const uint32_t to_end = capacity - static_cast<uint32_t>(tail_ & (capacity - 1));
    const uint32_t pad = need > to_end ? to_end : 0;
    const uint64_t free = capacity - std::min<uint64_t>(tail_ - head_, capacity);
    const uint64_t reserved =
        IsTerminal(record.kind) ? 0 : (segment_.terminal_slots() + uint64_t{1}) * kTerminalBytes;
    if (free < uint64_t{pad} + need + reserved) return false;
    if (pad > 0) {
      const RecordHeader filler{pad, kPad, 0, 0, 0, 0, 0};
      std::memcpy(segment_.at(tail_), &filler, kAlign);  // a pad may be as short as 8 bytes
      tail_ += pad;
    }
    const RecordHeader header{bytes,      record.kind,   flags,       record.attempt,
                              record.key, record.choice, record.count};
    std::memcpy(segment_.at(tail_), &header, sizeof header);
    if (size > 0) std::memcpy(segment_.at(tail_) + sizeof header, record.data + partial_, size);
    tail_ += need;
    return true;
  }

  Segment segment_;
  int data_fd_ = -1;
  uint64_t tail_ = 0;  // may be ahead of the published one inside Write
  uint64_t head_ = 0;  // as last seen
  size_t part_bytes_ = 0;
  size_t partial_ = 0;   // bytes of the first unwritten record that are in the ring already
  Record partial_of_{};  // that record; its data is not looked at
};

class RingReader {
 public:
  int Open(int memfd, int space_fd) {
    const int error = segment_.Map(memfd);
    if (error != 0) return error;
    space_fd_ = space_fd;
    head_ = segment_.header()->head.load(std::memory_order_relaxed);  // own variable
    tail_ = head_;
    return head_ % kAlign == 0 ? 0 : EPROTO;
  }

  // The next whole record; its bytes stay valid until the next call of Next or Release. False when
  // the ring is empty or corrupt.
  bool Next(Record* record) {
    if (joined_) std::string().swap(join_);  // may have been large
    joined_ = false;
    RecordHeader header;
    const char* payload = nullptr;
    while (NextPart(&header, &payload)) {
      const size_t size = header.size - sizeof header;
      const bool more = (header.flags & kMore) != 0;
      if ((header.flags & kContinues) == 0) {
        join_.clear();
        is_joining_ = more;
        join_of_ = header;
        if (!more) {
          *record = Whole(header, payload, size);
          return true;
        }
      } else if (!is_joining_ || !IsSame(header, join_of_) ||
                 join_.size() + size > kMaxPayloadBytes) {
        corrupt_ = true;
        return false;
      }
      join_.append(payload, size);
      if (more) continue;
      is_joining_ = false;
      joined_ = true;
      *record = Whole(header, join_.data(), join_.size());
      return true;
    }
    return false;
  }

  // Gives the room of all records read so far back, and rings a writer that waits for it.
  void Release() {
    RingHeader* header = segment_.header();
    if (header->head.load(std::memory_order_relaxed) == head_) return;
    header->head.store(head_, std::memory_order_release);
    Doorbell(&header->writer_waits, space_fd_).RingIfAsleep();
  }

  // Before sleeping. False: there are records, do not sleep.
  bool Arm() {
    RingHeader* header = segment_.header();
    Doorbell bell(&header->reader_asleep, -1);
    bell.Arm();
    if (header->tail.load(std::memory_order_acquire) == head_) return true;
    bell.Disarm();
    return false;
  }

  bool is_corrupt() const { return corrupt_; }
  bool is_open() const { return segment_.is_mapped(); }
  uint64_t steps() const { return segment_.header()->steps.load(std::memory_order_relaxed); }
  uint64_t full() const { return segment_.header()->full.load(std::memory_order_relaxed); }
  void Close() { segment_.Unmap(); }

 private:
  static Record Whole(const RecordHeader& header, const char* data, size_t size) {
    return {header.kind, header.attempt, header.key, header.choice, header.count, data, size};
  }

  static bool IsSame(const RecordHeader& a, const RecordHeader& b) {
    return a.kind == b.kind && a.key == b.key && a.attempt == b.attempt && a.choice == b.choice &&
           a.count == b.count;
  }

  bool NextPart(RecordHeader* header, const char** payload) {
    while (!corrupt_) {
      if (head_ == tail_) {
        tail_ = segment_.header()->tail.load(std::memory_order_acquire);  // before its records
        if (head_ == tail_) return false;
        if (tail_ - head_ > segment_.capacity() || tail_ % kAlign != 0) break;
      }
      const unsigned char* at = segment_.at(head_);
      std::memcpy(header, at, kAlign);
      const uint32_t capacity = segment_.capacity();
      const uint64_t to_end = capacity - (head_ & (capacity - 1));
      const uint64_t there = std::min<uint64_t>(tail_ - head_, to_end);
      const uint64_t size = (uint64_t{header->size} + kAlign - 1) & ~uint64_t{kAlign - 1};
      if (size < kAlign || size > there) break;
      if (header->kind == kPad) {
        head_ += size;
        continue;
      }
      if (header->size < sizeof *header || header->kind > kLastKind) break;
      std::memcpy(&header->key, at + kAlign, sizeof *header - kAlign);
      *payload = reinterpret_cast<const char*>(at) + sizeof *header;
      head_ += size;
      return true;
    }
    corrupt_ = true;
    return false;
  }

  Segment segment_;
  int space_fd_ = -1;
  uint64_t head_ = 0;       // may be ahead of the published one until Release
  uint64_t tail_ = 0;       // as last seen
  std::string join_;        // parts of the record that is being joined
  RecordHeader join_of_{};  // its first part's header
  bool is_joining_ = false;
  bool joined_ = false;  // join_ was given out
  bool corrupt_ = false;
};

}  // namespace smmf

#endif  // SMMF_TOKEN_RING_HPP_
