// One writer thread and one reader thread over a ring, sleeping on real eventfds in both
// directions, and the ring's edges without threads. Built with sanitizers, TSan among them.
#include <poll.h>
#include <sys/eventfd.h>

#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "one_mapping.hpp"  // before our headers
#include "smmf/token_ring.hpp"

namespace {

using smmf::Record;

constexpr int kPatienceMs = 20000;  // a bell that does not ring in this time was lost
constexpr auto kRunFor = std::chrono::milliseconds(1500);

struct Ends {
  Ends(uint32_t capacity, uint32_t slots) {
    memfd = smmf::CreateSegment(capacity, slots);
    data = eventfd(0, EFD_NONBLOCK);
    space = eventfd(0, EFD_NONBLOCK);
    good = memfd >= 0 && writer.Open(memfd, data) == 0 && reader.Open(memfd, space) == 0;
  }
  ~Ends() {
    for (const int fd : {memfd, data, space}) close(fd);
  }

  int memfd, data, space;
  bool good;
  smmf::RingWriter writer;
  smmf::RingReader reader;
};

bool Sleep(int fd) {
  pollfd polled{fd, POLLIN, 0};
  if (poll(&polled, 1, kPatienceMs) != 1) return false;
  uint64_t count;
  return read(fd, &count, sizeof count) == sizeof count;
}

// The n-th record is determined by n alone.
std::string Payload(uint64_t number) {
  std::mt19937_64 random(number);
  const uint64_t draw = random() % 100;
  const size_t size = draw == 0 ? 9000 : random() % (draw < 20 ? 700 : 40);
  return std::string(size, static_cast<char>('a' + number % 26));
}

Record Numbered(uint64_t number, const std::string& payload) {
  return {smmf::kData, 1, number, 2, 3, payload.data(), payload.size()};
}

// False when the reader did not make room in time.
bool WriteAll(Ends* ends, std::vector<std::string>* payloads, uint64_t first) {
  std::vector<Record> records;
  for (const std::string& payload : *payloads) records.push_back(Numbered(first++, payload));
  size_t done = 0;
  for (;;) {
    done += ends->writer.Write(records.data() + done, records.size() - done);
    if (done == records.size()) return true;
    if (!Sleep(ends->space)) return false;
  }
}

bool Writes(Ends* ends) {
  const auto until = std::chrono::steady_clock::now() + kRunFor;
  std::mt19937_64 random(7);
  uint64_t number = 0;
  while (std::chrono::steady_clock::now() < until) {
    std::vector<std::string> payloads;
    const uint64_t first = number;
    for (uint64_t left = 1 + random() % 20; left > 0; --left) payloads.push_back(Payload(number++));
    CHECK(WriteAll(ends, &payloads, first));
    ends->writer.Step(number);
    if (random() % 4 == 0) std::this_thread::yield();  // lets the reader fall asleep
  }
  const Record last{smmf::kFinish, 1, number, 0, 0, "", 0};
  CHECK(ends->writer.Write(&last, 1) == 1);  // there is always room
  return true;
}

bool Reads(Ends* ends) {
  std::mt19937_64 random(11);
  uint64_t number = 0, steps = 0;
  for (;;) {
    Record record;
    for (uint64_t limit = 1 + random() % 50; limit > 0 && ends->reader.Next(&record); --limit) {
      CHECK(record.key == number);
      if (record.kind == smmf::kFinish) {
        ends->reader.Release();
        return number > 0;
      }
      CHECK(std::string(record.data, record.size) == Payload(number));
      CHECK(record.attempt == 1 && record.choice == 2 && record.count == 3);
      ++number;
    }
    ends->reader.Release();
    CHECK(!ends->reader.is_corrupt());
    CHECK(ends->reader.steps() >= steps);
    steps = ends->reader.steps();
    if (ends->reader.Arm()) CHECK(Sleep(ends->data));
  }
}

bool writer_and_reader_run_at_once(uint32_t capacity) {
  Ends ends(capacity, 1);
  CHECK(ends.good);
  bool wrote = false;
  std::thread writer([&] { wrote = Writes(&ends); });
  const bool read = Reads(&ends);
  writer.join();
  return wrote && read;
}

bool every_length_wraps() {
  for (size_t size = 0; size < 600; ++size) {
    Ends ends(smmf::kMinCapacity, 1);
    CHECK(ends.good);
    const std::string payload(size, 'x');
    for (uint64_t number = 0; number < 2 * smmf::kMinCapacity / (size + 24) + 2; ++number) {
      const Record record = Numbered(number, payload);
      CHECK(ends.writer.Write(&record, 1) == 1);
      Record got;
      CHECK(ends.reader.Next(&got));
      CHECK(got.key == number && std::string(got.data, got.size) == payload);
      CHECK(!ends.reader.Next(&got));
      ends.reader.Release();
    }
  }
  return true;
}

// Whatever a broken writer leaves, the reader stays within the mapping (ASan watches).
bool noise_is_refused() {
  std::mt19937_64 random(3);
  for (int round = 0; round < 3000; ++round) {
    Ends ends(smmf::kMinCapacity, 1);
    smmf::Segment raw;
    CHECK(ends.good && raw.Map(ends.memfd) == 0);
    for (uint64_t at = 0; at < smmf::kMinCapacity; at += 8) {
      uint64_t word = random();
      if (random() % 2 == 0) word &= 0x0000'0000'0307'00ff;  // now and then a plausible header
      std::memcpy(raw.at(at), &word, sizeof word);
    }
    raw.header()->tail.store(random() % (smmf::kMinCapacity + 64), std::memory_order_release);
    Record record;
    while (ends.reader.Next(&record)) CHECK(record.size <= smmf::kMinCapacity);
    ends.reader.Release();
  }
  return true;
}

}  // namespace

int main() {
  bool good = every_length_wraps();
  good = noise_is_refused() && good;
  good = writer_and_reader_run_at_once(smmf::kMinCapacity) && good;
  good = writer_and_reader_run_at_once(1 << 20) && good;
  return good ? 0 : 1;
}
