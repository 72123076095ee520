// A thread that sends the same packet every period: its process is scheduled, whatever it computes.
//
// Thread safety: Follow and Stop from one thread; the beating thread is its own.
// Invariants:
// 1. `fd_` is this object's duplicate: a descriptor that its owner closes, and whose number another
//    file gets, is never written to. It is guarded by `mutex_`, also while a packet is sent.
// 2. Sending never blocks and raises no signal; what the peer has no room for is left out.
// 3. The thread takes no signals: they interrupt the thread that waits for them.
#ifndef SMMF_HEARTBEAT_HPP_
#define SMMF_HEARTBEAT_HPP_

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

namespace smmf {

class Heartbeat {
 public:
  using Clock = std::chrono::steady_clock;

  // Starts the thread; it beats once there is a socket to Follow. Throws std::system_error.
  Heartbeat(std::string packet, std::chrono::nanoseconds period)
      : packet_(std::move(packet)), period_(period) {
    sigset_t all, former;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &former);
    try {
      thread_ = std::thread([this] { Run(); });
    } catch (...) {
      pthread_sigmask(SIG_SETMASK, &former, nullptr);
      throw;
    }
    pthread_sigmask(SIG_SETMASK, &former, nullptr);
  }
  ~Heartbeat() { Stop(); }
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  // From now on to this socket, first after a period; -1: to none. Returns 0, or a positive errno
  // when the descriptor cannot be had; none is followed then.
  int Follow(int fd) {
    const int own = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    const int error = fd >= 0 && own < 0 ? errno : 0;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (fd_ >= 0) close(fd_);
    fd_ = own;
    due_ = Clock::now() + period_;
    wake_.notify_one();
    return error;
  }

  // Ends the thread and lets go of the socket; may be called again.
  void Stop() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      is_stopping_ = true;
      wake_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
    Follow(-1);
  }

  // Packets that a peer has room for, so far.
  uint64_t beats() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return beats_;
  }

 private:
  void Run() {
    pthread_setname_np(pthread_self(), "heartbeat");
    std::unique_lock<std::mutex> lock(mutex_);
    while (!is_stopping_) {
      if (fd_ < 0) {
        wake_.wait(lock);
      } else if (Clock::now() < due_) {
        wake_.wait_until(lock, due_);
      } else {
        Beat();
        due_ = Clock::now() + period_;  // a process that was stopped does not catch up
      }
    }
  }

  void Beat() {
    const ssize_t sent = send(fd_, packet_.data(), packet_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) ++beats_;
  }

  const std::string packet_;
  const std::chrono::nanoseconds period_;
  std::mutex mutex_;
  std::condition_variable wake_;
  int fd_ = -1;
  Clock::time_point due_;
  uint64_t beats_ = 0;
  bool is_stopping_ = false;
  std::thread thread_;  // the last: it uses all of the above
};

}  // namespace smmf

#endif  // SMMF_HEARTBEAT_HPP_
