// All open streams of one Router: rings in, framed bytes out.
//
// Thread safety: none; it belongs to its Router's one thread.
// Invariants:
// 1. A record of an unknown key or of another attempt changes nothing; it is counted.
// 2. A stream is in `dirty_` at most once, and only while it has bytes that may be sent.
// 3. What follows a stream's first TOOL is framed by Python, as that is: in the records' order.
// 4. A stream whose pending bytes exceed max_pending at a record is given up: reported once, then
//    all its records are dropped.
#ifndef SMMF_STREAM_TABLE_HPP_
#define SMMF_STREAM_TABLE_HPP_

#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "smmf/frames.hpp"
#include "smmf/token_ring.hpp"

namespace smmf {

// What Python must see of a drained record.
struct Event {
  uint64_t key;
  uint8_t kind;  // kPad: the client reads too slowly
  uint32_t choice;
  uint32_t count;
  std::string payload;
};

struct Unsent {
  uint64_t key;
  std::string rest;
};

class StreamTable {
 public:
  explicit StreamTable(size_t max_pending) : max_pending_(max_pending) {}

  Stream* Open(uint64_t key) {
    Close(key);
    return &streams_[key];
  }

  Stream* Find(uint64_t key) {
    const auto found = streams_.find(key);
    return found == streams_.end() ? nullptr : &found->second;
  }

  void Close(uint64_t key) {
    last_ = nullptr;
    streams_.erase(key);
  }

  // Frames everything that is in the ring, up to `limit` records. Returns how many there were.
  size_t Drain(RingReader* reader, double now, size_t limit, std::vector<Event>* events) {
    now_ = now;
    Record record;
    size_t records = 0;
    while (records < limit && reader->Next(&record)) {
      ++records;
      Take(record, now, events);
    }
    reader->Release();
    return records;
  }

  void Append(uint64_t key, const char* bytes, size_t size, bool end) {
    Stream* stream = Find(key);
    if (stream == nullptr) return;
    stream->Append(bytes, size, end);
    MarkDirty(key, stream);
  }

  // One send per dirty stream; what could not be sent goes to `unsent`.
  void Flush(std::vector<Unsent>* unsent) {
    for (const uint64_t key : dirty_) {
      Stream* stream = Find(key);
      if (stream == nullptr || !stream->is_dirty) continue;
      stream->is_dirty = false;
      if (stream->is_blocked || !stream->has_pending()) continue;
      if (stream->fd < 0) {
        std::string wire = stream->Take();
        if (!wire.empty()) unsent->push_back({key, std::move(wire)});
        continue;
      }
      std::string rest;
      if (stream->Send(&rest) == SendState::kSent) continue;
      stream->is_blocked = true;
      unsent->push_back({key, std::move(rest)});
    }
    dirty_.clear();
  }

  void Block(uint64_t key) {
    if (Stream* stream = Find(key)) stream->is_blocked = true;
  }

  void Unblock(uint64_t key) {
    Stream* stream = Find(key);
    if (stream == nullptr || !stream->is_blocked) return;
    stream->is_blocked = false;
    MarkDirty(key, stream);
  }

  // Keys that had no record for longer than `first_s` (before the first token) or `between_s`.
  void Stale(double now, double first_s, double between_s, std::vector<uint64_t>* keys) const {
    for (const auto& [key, stream] : streams_) {
      const double limit = stream.tokens == 0 ? first_s : between_s;
      if (!stream.is_ended && limit > 0 && now - stream.last_record_at > limit)
        keys->push_back(key);
    }
  }

  // Keys of admitted streams with nothing for their client for longer than `quiet_s`, and all of
  // what there was is with the kernel.
  void Quiet(double now, double quiet_s, std::vector<uint64_t>* keys) {
    now_ = now;
    for (const auto& [key, stream] : streams_) {
      const bool waits = stream.admitted_at > 0 && !stream.is_ended && !stream.is_over;
      if (waits && !stream.is_blocked && now - stream.last_event_at > quiet_s) keys->push_back(key);
    }
  }

  size_t size() const { return streams_.size(); }
  uint64_t late_records() const { return late_records_; }

 private:
  void Take(const Record& record, double now, std::vector<Event>* events) {
    Stream* stream = Lookup(record.key);
    if (stream == nullptr || stream->attempt != record.attempt || stream->is_ended) {
      ++late_records_;
      return;
    }
    stream->last_record_at = now;
    if (stream->is_over) return;
    Frame(record, now, stream, events);
    if (stream->has_pending()) MarkDirty(record.key, stream);
    if (stream->pending() > max_pending_ && !IsTerminal(record.kind)) {
      stream->is_over = true;
      events->push_back({record.key, kPad, 0, 0, {}});
    }
  }

  static void Frame(const Record& record, double now, Stream* stream, std::vector<Event>* events) {
    if (record.kind == kAdmit) stream->Admit(now);
    if (HasTokens(record.kind)) CountTokens(record, now, stream);
    if (record.kind == kResult) stream->last_token_at = now;
    if (record.kind == kChoiceEnd) stream->reason = static_cast<int>(record.count & 3);
    if (record.kind == kTool && stream->frame != nullptr) stream->GiveUpFrame();
    if (stream->frame != nullptr && (record.kind == kTokens || record.kind == kReasoning)) {
      Text(record, stream);
    } else if (record.kind == kChoiceEnd && stream->frame != nullptr &&
               stream->frame->has_choices) {
      stream->ChoiceEnd(record.choice, record.count);
    } else {
      Report(record, events);
    }
  }

  static void Text(const Record& record, Stream* stream) {
    const size_t ids = size_t{record.count} * sizeof(int32_t);
    if (ids >= record.size) return;
    const char* text = record.data + ids;
    if (record.kind == kTokens) stream->Text(record.choice, text, record.size - ids);
    if (record.kind == kReasoning) stream->Reasoning(record.choice, text, record.size - ids);
  }

  static bool HasTokens(uint8_t kind) {
    return kind == kTokens || kind == kData || kind == kReasoning || kind == kTool;
  }

  static void CountTokens(const Record& record, double now, Stream* stream) {
    if (stream->tokens == 0) stream->first_token_at = now;
    stream->last_token_at = now;
    stream->tokens += record.count;
  }

  static void Report(const Record& record, std::vector<Event>* events) {
    events->push_back({record.key, record.kind, record.choice, record.count,
                       std::string(record.data, record.size)});
  }

  // Records of one request often follow one another.
  Stream* Lookup(uint64_t key) {
    if (last_ != nullptr && last_key_ == key) return last_;
    last_ = Find(key);
    last_key_ = key;
    return last_;
  }

  void MarkDirty(uint64_t key, Stream* stream) {
    stream->last_event_at = now_;
    if (stream->is_dirty) return;
    stream->is_dirty = true;
    dirty_.push_back(key);
  }

  const size_t max_pending_;
  std::unordered_map<uint64_t, Stream> streams_;
  std::vector<uint64_t> dirty_;
  Stream* last_ = nullptr;
  uint64_t last_key_ = 0;
  uint64_t late_records_ = 0;
  double now_ = 0;  // of the last Drain or Quiet: when what is appended happens
};

}  // namespace smmf

#endif  // SMMF_STREAM_TABLE_HPP_
