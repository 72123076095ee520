// The rules of FORMAT.md one by one: parts, reserved room, bells, and what a broken writer may
// leave.
#include <sys/eventfd.h>

#include <cstdint>
#include <string>
#include <utility>

#include "check.hpp"
#include "smmf/token_ring.hpp"

namespace {

using smmf::Record;

struct Ring {
  explicit Ring(uint32_t slots = 1)
      : memfd(smmf::CreateSegment(smmf::kMinCapacity, slots)),
        data(eventfd(0, EFD_NONBLOCK)),
        space(eventfd(0, EFD_NONBLOCK)) {
    is_open =
        writer.Open(memfd, data) == 0 && reader.Open(memfd, space) == 0 && peer.Map(memfd) == 0;
  }
  ~Ring() {
    for (const int fd : {memfd, data, space}) close(fd);
  }

  int memfd, data, space;
  bool is_open = false;
  smmf::RingWriter writer;
  smmf::RingReader reader;
  smmf::Segment peer;  // to spoil the memory
};

bool is_rung(int fd) {
  uint64_t count;
  return read(fd, &count, sizeof count) == sizeof count && count == 1;
}

std::string payload_of(uint64_t key, size_t size) {
  std::string payload(size, '\0');
  for (size_t i = 0; i < size; ++i)
    payload[i] = static_cast<char>((key + i) * 0x9e3779b97f4a7c15ull >> 56);
  return payload;
}

Record record_of(uint64_t key, const std::string& payload, uint8_t kind = smmf::kTokens) {
  return {kind, 3, key, 4, 5, payload.data(), payload.size()};
}

bool is_record_of(const Record& record, uint64_t key, size_t size, uint8_t kind = smmf::kTokens) {
  CHECK(record.kind == kind && record.attempt == 3 && record.key == key);
  CHECK(record.choice == 4 && record.count == 5 && record.size == size);
  CHECK(std::string(record.data, record.size) == payload_of(key, size));
  return true;
}

bool larger_than_the_ring_goes_in_parts() {
  Ring ring;
  CHECK(ring.is_open);
  for (const size_t size : {488u, 489u, 4096u, 10007u, 100000u}) {
    const std::string payload = payload_of(size, size);
    const Record record = record_of(size, payload, smmf::kData);
    Record got{};
    bool is_written = false;
    while (!ring.reader.Next(&got)) {
      ring.reader.Release();
      CHECK(!ring.reader.is_corrupt() && !is_written);
      is_written = ring.writer.Write(&record, 1) == 1;
    }
    CHECK(is_written && is_record_of(got, size, size, smmf::kData));
  }
  return true;
}

bool parts_are_an_eighth_of_the_ring() {
  for (const auto& [size, bytes] : {std::pair<size_t, uint64_t>{488, 512}, {489, 512 + 32}}) {
    Ring ring;
    const std::string payload = payload_of(1, size);
    const Record record = record_of(1, payload);
    CHECK(ring.writer.Write(&record, 1) == 1 && ring.writer.used() == bytes);
  }
  return true;
}

bool a_record_abandoned_half_way_is_dropped() {
  Ring ring;
  const std::string large = payload_of(1, 10000), other = payload_of(2, 9000),
                    small = payload_of(3, 9);
  const Record first = record_of(1, large), second = record_of(2, other);
  const Record last = record_of(3, small);
  Record got;
  CHECK(ring.writer.Write(&first, 1) == 0 && ring.writer.used() > 0);
  CHECK(!ring.reader.Next(&got));
  ring.reader.Release();
  CHECK(ring.writer.Write(&second, 1) == 0);  // continues nothing of the first
  CHECK(!ring.reader.Next(&got));
  ring.reader.Release();
  CHECK(ring.writer.Write(&last, 1) == 1);
  CHECK(ring.reader.Next(&got) && is_record_of(got, 3, 9));
  CHECK(!ring.reader.Next(&got) && !ring.reader.is_corrupt());
  return true;
}

bool terminal_records_find_room_in_a_full_ring() {
  for (const uint32_t slots : {0u, 1u, 3u}) {
    for (size_t place = 0; place < smmf::kMinCapacity; place += 8) {
      Ring ring(slots);
      CHECK(ring.is_open);
      const std::string text = payload_of(1, 40);
      const std::string last = payload_of(2, smmf::kTerminalBytes - sizeof(smmf::RecordHeader));
      const Record token = record_of(1, text), fail = record_of(2, last, smmf::kFail);
      Record got;
      for (size_t at = 0; at < place;) {  // begin there: records of 24 to 512 bytes
        const size_t step = place - at < 536 ? place - at : 512;
        if (step < 24) break;
        const std::string filler = payload_of(0, step - 24);
        const Record fill = record_of(0, filler);
        CHECK(ring.writer.Write(&fill, 1) == 1 && ring.reader.Next(&got));
        ring.reader.Release();
        at += step;
      }
      size_t tokens = 0, terminals = 0;
      while (ring.writer.Write(&token, 1) == 1) ++tokens;
      while (ring.writer.Write(&fail, 1) == 1) ++terminals;
      CHECK(tokens > 0 && terminals >= slots);
      for (; tokens > 0; --tokens) CHECK(ring.reader.Next(&got) && is_record_of(got, 1, 40));
      for (; terminals > 0; --terminals) {
        CHECK(ring.reader.Next(&got) && is_record_of(got, 2, 488, smmf::kFail));
      }
      CHECK(!ring.reader.Next(&got) && !ring.reader.is_corrupt());
    }
  }
  return true;
}

bool rings_only_who_sleeps() {
  Ring ring;
  const std::string text = payload_of(1, 2000);  // two of them are too much
  const Record record = record_of(1, text);
  Record got;
  CHECK(ring.writer.Write(&record, 1) == 1 && !is_rung(ring.data));  // nobody sleeps
  CHECK(!ring.reader.Arm());                                         // there is a record
  CHECK(ring.writer.Write(&record, 1) == 0 && !is_rung(ring.data));  // disarmed again
  CHECK(ring.reader.full() == 1 && ring.reader.Next(&got) && !is_rung(ring.space));
  ring.reader.Release();
  CHECK(is_rung(ring.space));
  CHECK(ring.writer.Write(&record, 1) == 1 && ring.reader.Next(&got));
  ring.reader.Release();
  CHECK(!is_rung(ring.space));  // the writer does not wait any more
  CHECK(ring.reader.Arm() && !is_rung(ring.data));
  CHECK(ring.writer.Write(&record, 1) == 1 && is_rung(ring.data));
  CHECK(ring.reader.Next(&got));
  ring.reader.Release();
  CHECK(ring.writer.Write(&record, 1) == 1 && !is_rung(ring.data));
  return true;
}

// A whole record, then `bytes`, published up to `tail`; with `more` the first is one to be
// continued.
bool is_refused(const smmf::RecordHeader& bytes, uint64_t tail, bool more = false) {
  Ring ring;
  const smmf::RecordHeader good{32, smmf::kTokens, more ? smmf::kMore : uint8_t{0}, 0, 1, 0, 0};
  std::memcpy(ring.peer.at(0), &good, sizeof good);
  std::memcpy(ring.peer.at(32), &bytes, sizeof bytes);
  ring.peer.header()->tail.store(tail);
  Record got;
  if (!more && tail <= ring.peer.capacity() && tail % 8 == 0) {
    CHECK(ring.reader.Next(&got) && got.key == 1);
  }
  CHECK(!ring.reader.Next(&got) && ring.reader.is_corrupt());
  CHECK(!ring.reader.Next(&got));  // for good
  return true;
}

bool broken_records_are_refused() {
  using smmf::kContinues;
  using smmf::kTokens;
  CHECK(is_refused({0, kTokens, 0, 0, 1, 0, 0}, 64));                  // no size
  CHECK(is_refused({23, kTokens, 0, 0, 1, 0, 0}, 64));                 // less than a header
  CHECK(is_refused({41, kTokens, 0, 0, 1, 0, 0}, 72));                 // beyond tail
  CHECK(is_refused({4096, kTokens, 0, 0, 1, 0, 0}, 4096));             // beyond the ring's end
  CHECK(is_refused({0xffffffff, kTokens, 0, 0, 1, 0, 0}, 64));         // rounds up to 0 in 32 bits
  CHECK(is_refused({32, 10, 0, 0, 1, 0, 0}, 64));                      // unknown kind
  CHECK(is_refused({40, smmf::kPad, 0, 0, 1, 0, 0}, 64));              // pads beyond tail
  CHECK(is_refused({0, smmf::kPad, 0, 0, 1, 0, 0}, 64));               // pads for ever
  CHECK(is_refused({32, kTokens, kContinues, 0, 1, 0, 0}, 64));        // continues nothing
  CHECK(is_refused({32, kTokens, kContinues, 0, 2, 0, 0}, 64, true));  // another key's
  CHECK(is_refused({32, kTokens, kContinues, 1, 1, 0, 0}, 64, true));  // another attempt's
  CHECK(is_refused({32, smmf::kData, kContinues, 0, 1, 0, 0}, 64, true));
  CHECK(is_refused({32, kTokens, 0, 0, 1, 0, 0}, 4096 + 8));      // more than the ring holds
  CHECK(is_refused({32, kTokens, 0, 0, 1, 0, 0}, 60));            // tail between words
  CHECK(is_refused({32, kTokens, 0, 0, 1, 0, 0}, ~uint64_t{7}));  // tail before head
  return true;
}

bool only_a_ring_is_mapped() {
  smmf::Segment segment;
  CHECK(segment.Map(-1) == EBADF && !segment.is_mapped());
  for (const int wrong : {0, 1, 2, 3}) {
    const int fd = smmf::CreateSegment(smmf::kMinCapacity, 1);
    smmf::RingReader reader;
    smmf::Segment peer;
    CHECK(peer.Map(fd) == 0);
    if (wrong == 0) peer.header()->magic ^= 1;
    if (wrong == 1) peer.header()->version += 1;
    if (wrong == 2) peer.header()->capacity *= 2;
    if (wrong == 3) peer.header()->head.store(4);
    CHECK(reader.Open(fd, -1) == EPROTO);
    CHECK(ftruncate(fd, 0) == -1);  // sealed: a peer cannot make a reader fault
    close(fd);
  }
  return true;
}

}  // namespace

int main() {
  const bool ok = larger_than_the_ring_goes_in_parts() && parts_are_an_eighth_of_the_ring() &&
                  a_record_abandoned_half_way_is_dropped() &&
                  terminal_records_find_room_in_a_full_ring() && rings_only_who_sleeps() &&
                  broken_records_are_refused() && only_a_ring_is_mapped();
  return ok ? 0 : 1;
}
