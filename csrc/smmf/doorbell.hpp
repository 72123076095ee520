// The wake-up handshake between the two sides of a ring.
//
// Thread safety: each flag has one sleeper that sets it and one peer that may clear it and ring.
// Invariants:
// 1. The sleeper sets the flag, fences, and looks again before it sleeps.
// 2. The peer publishes, fences, and rings only if it is the one that cleared the flag.
// 3. Hence a sleeper with something to see always has its eventfd rung (no lost wake-up), and a
//    busy pair makes no system calls. Both fences are needed: with either missing, each side may
//    read the other's old value (store buffering; tests/unit/test_doorbell_model.py shows it).
#ifndef SMMF_DOORBELL_HPP_
#define SMMF_DOORBELL_HPP_

#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace smmf {

class Doorbell {
 public:
  Doorbell(std::atomic<uint32_t>* flag, int fd) : flag_(flag), fd_(fd) {}

  // The sleeper's first half; the caller must look again afterwards.
  void Arm() {
    flag_->store(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);  // flag before the second look
  }

  // The sleeper has seen something after all.
  void Disarm() { flag_->store(0, std::memory_order_relaxed); }

  // The peer, after it has published. Returns whether it rang.
  bool RingIfAsleep() {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // what was published before the flag
    if (flag_->load(std::memory_order_relaxed) == 0) return false;
    if (flag_->exchange(0, std::memory_order_acq_rel) == 0) return false;
    const uint64_t one = 1;
    // EAGAIN would mean a counter at its maximum: it is readable, so the sleeper wakes anyway.
    [[maybe_unused]] ssize_t written = write(fd_, &one, sizeof one);
    return true;
  }

 private:
  std::atomic<uint32_t>* flag_;
  int fd_;
};

}  // namespace smmf

#endif  // SMMF_DOORBELL_HPP_
