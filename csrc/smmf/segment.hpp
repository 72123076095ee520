// Making and mapping the shared memory of a ring: a memfd, never named, freed with its last
// process.
#ifndef SMMF_SEGMENT_HPP_
#define SMMF_SEGMENT_HPP_

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <new>

#include "smmf/layout.hpp"

namespace smmf {

constexpr size_t SegmentBytes(uint32_t capacity) { return sizeof(RingHeader) + capacity; }

// A new segment. Returns its descriptor, or -errno; -EINVAL for a capacity that is no power of two
// within bounds, or slots whose reserved room would take more than half of it.
inline int CreateSegment(uint32_t capacity, uint32_t terminal_slots) {
  const bool is_power = (capacity & (capacity - 1)) == 0;
  if (!is_power || capacity < kMinCapacity || capacity > kMaxCapacity) return -EINVAL;
  if ((terminal_slots + uint64_t{1}) * kTerminalBytes > capacity / 2) return -EINVAL;
  const int fd = memfd_create("smmf-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -errno;
  const off_t bytes = static_cast<off_t>(SegmentBytes(capacity));
  void* at = MAP_FAILED;
  if (ftruncate(fd, bytes) == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0) {
    at = mmap(nullptr, sizeof(RingHeader), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (at == MAP_FAILED) {
    const int error = errno;
    close(fd);
    return -error;
  }
  RingHeader* header = new (at) RingHeader{};
  header->magic = kMagic;
  header->version = kVersion;
  header->capacity = capacity;
  header->terminal_slots = terminal_slots;
  munmap(at, sizeof(RingHeader));
  return fd;
}

// A mapping of a segment, checked: the peer's memory is never trusted. Not copyable.
class Segment {
 public:
  Segment() = default;
  ~Segment() { Unmap(); }
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  // 0, or a positive errno; EPROTO for something that is no ring of this version.
  int Map(int fd) {
    struct stat status;
    if (fstat(fd, &status) != 0) return errno;
    const size_t bytes = static_cast<size_t>(status.st_size);
    if (bytes < SegmentBytes(kMinCapacity)) return EPROTO;
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return errno;
    header_ = static_cast<RingHeader*>(at);
    bytes_ = bytes;
    capacity_ = header_->capacity;
    terminal_slots_ = header_->terminal_slots;
    const bool is_ring = header_->magic == kMagic && header_->version == kVersion &&
                         bytes == SegmentBytes(capacity_) && (capacity_ & (capacity_ - 1)) == 0;
    if (is_ring) return 0;
    Unmap();
    return EPROTO;
  }

  void Unmap() {
    if (header_ != nullptr) munmap(header_, bytes_);
    header_ = nullptr;
  }

  bool is_mapped() const { return header_ != nullptr; }
  RingHeader* header() const { return header_; }
  unsigned char* at(uint64_t position) const {
    return reinterpret_cast<unsigned char*>(header_ + 1) + (position & (capacity_ - 1));
  }
  uint32_t capacity() const { return capacity_; }
  uint32_t terminal_slots() const { return terminal_slots_; }

 private:
  RingHeader* header_ = nullptr;
  size_t bytes_ = 0;
  uint32_t capacity_ = 0;
  uint32_t terminal_slots_ = 0;
};

}  // namespace smmf

#endif  // SMMF_SEGMENT_HPP_
