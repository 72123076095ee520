// Every byte of a token ring. The page that explains it is FORMAT.md.
#ifndef SMMF_LAYOUT_HPP_
#define SMMF_LAYOUT_HPP_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace smmf {

constexpr uint64_t kMagic = 0x31474e49524d4d53ull;  // "SMMRING1", little-endian
constexpr uint32_t kVersion = 1;
constexpr uint32_t kAlign = 8;            // every record begins on such a boundary
constexpr uint32_t kTerminalBytes = 512;  // room of one terminal record, header included
constexpr uint32_t kMinCapacity = 4096;
constexpr uint32_t kMaxCapacity = 1u << 30;
constexpr size_t kCacheLine = 64;

enum Kind : uint8_t {
  kPad = 0,
  kAdmit = 1,
  kTokens = 2,
  kChoiceEnd = 3,
  kData = 4,
  kResult = 5,
  kFinish = 6,
  kFail = 7,
  kReasoning = 8,
  kTool = 9,
  kLastKind = kTool,
};

constexpr uint8_t kMore = 1;       // flag: the logical record continues in the next part
constexpr uint8_t kContinues = 2;  // flag: this is not its first part

// Of one logical record: more than any answer, less than would endanger the reader's memory.
constexpr size_t kMaxPayloadBytes = size_t{1} << 28;

struct RecordHeader {
  uint32_t size;  // header and payload, not rounded up
  uint8_t kind;
  uint8_t flags;
  uint16_t attempt;
  uint64_t key;
  uint32_t choice;
  uint32_t count;
};
static_assert(sizeof(RecordHeader) == 24, "FORMAT.md");
static_assert(offsetof(RecordHeader, key) == 8, "FORMAT.md");
static_assert(offsetof(RecordHeader, count) == 20, "FORMAT.md");

// The segment: this header, then `capacity` bytes. Positions grow for ever; the byte of position p
// is data[p & (capacity - 1)]. Each side's variables have cache lines of their own.
struct RingHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t capacity;                               // a power of two
  uint32_t terminal_slots;                         // how many terminal records have reserved room
  alignas(kCacheLine) std::atomic<uint64_t> tail;  // the writer's: first unwritten byte
  alignas(kCacheLine) std::atomic<uint32_t> reader_asleep;  // set by the reader, cleared by either
  alignas(kCacheLine) std::atomic<uint64_t> head;           // the reader's: first unread byte
  alignas(kCacheLine) std::atomic<uint32_t> writer_waits;   // set by the writer, cleared by either
  alignas(kCacheLine) std::atomic<uint64_t> steps;          // the writer's step counter
  alignas(kCacheLine) std::atomic<uint64_t> full;           // how often a write found no room
};
static_assert(sizeof(RingHeader) == 7 * kCacheLine, "FORMAT.md");
static_assert(std::atomic<uint64_t>::is_always_lock_free, "shared between processes");
static_assert(std::atomic<uint32_t>::is_always_lock_free, "shared between processes");

constexpr bool IsTerminal(uint8_t kind) { return kind == kFinish || kind == kFail; }
constexpr uint32_t RoundUp(uint32_t size) { return (size + kAlign - 1) & ~(kAlign - 1); }

}  // namespace smmf

#endif  // SMMF_LAYOUT_HPP_
