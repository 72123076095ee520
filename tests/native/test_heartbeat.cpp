// The heartbeat over real sockets: it follows, goes on, and survives what its peers do.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>

#include "check.hpp"
#include "smmf/heartbeat.hpp"

namespace {

using namespace std::chrono_literals;
using smmf::Heartbeat;

struct Pair {
  Pair() {
    int fds[2];
    good = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0;
    child = fds[0];
    parent = fds[1];
  }
  ~Pair() {
    if (child >= 0) close(child);
    if (parent >= 0) close(parent);
  }
  // What the parent gets within ten seconds; "" at the end of the connection.
  std::string Next() const {
    pollfd one = {parent, POLLIN, 0};
    if (poll(&one, 1, 10'000) != 1) return "nothing";
    char packet[64];
    const ssize_t size = recv(parent, packet, sizeof packet, 0);
    return size <= 0 ? "" : std::string(packet, static_cast<size_t>(size));
  }
  bool good;
  int child, parent;
};

bool wait_until(Heartbeat& heart, uint64_t beats) {
  for (int round = 0; round < 5000 && heart.beats() < beats; ++round)
    std::this_thread::sleep_for(2ms);
  return heart.beats() >= beats;
}

bool beats_and_follows() {
  Pair first, second;
  CHECK(first.good && second.good);
  Heartbeat heart("beat", 1ms);
  CHECK(heart.Follow(first.child) == 0);
  for (int count = 0; count < 3; ++count) CHECK(first.Next() == "beat");
  CHECK(heart.Follow(second.child) == 0);
  for (int count = 0; count < 3; ++count) CHECK(second.Next() == "beat");
  close(first.child);  // the duplicate is closed, too: what was sent, then the end
  first.child = -1;
  std::string got;
  while ((got = first.Next()) == "beat") continue;
  CHECK(got.empty());
  return true;
}

bool sends_whole_packets_beside_others() {
  Pair pair;
  CHECK(pair.good);
  Heartbeat heart("beat", 100us);
  CHECK(heart.Follow(pair.child) == 0);
  int others = 0, beats = 0;
  for (int count = 0; count < 2000; ++count) {
    const ssize_t sent = send(pair.child, "other", 5, MSG_DONTWAIT);  // beats may fill it
    CHECK(sent == 5 || (sent < 0 && errno == EAGAIN));
    const std::string got = pair.Next();
    CHECK(got == "beat" || got == "other");
    (got == "beat" ? beats : others)++;
  }
  CHECK(others > 0 && others + beats == 2000);
  return true;
}

bool survives_a_full_peer_and_a_dead_one() {
  Pair full;
  CHECK(full.good);
  Heartbeat heart("beat", 100us);
  CHECK(heart.Follow(full.child) == 0);
  const char filler[1024] = {};
  while (send(full.child, filler, sizeof filler, MSG_DONTWAIT) > 0) continue;
  const uint64_t stuck = heart.beats();
  std::this_thread::sleep_for(5ms);  // it tries in vain
  CHECK(heart.beats() <= stuck + 1);
  close(full.parent);
  full.parent = -1;
  std::this_thread::sleep_for(5ms);  // and to nobody
  Pair next;
  CHECK(next.good && heart.Follow(next.child) == 0);
  CHECK(next.Next() == "beat");
  return true;
}

bool a_closed_number_is_not_written_to() {
  Pair pair;
  CHECK(pair.good);
  Heartbeat heart("beat", 1ms);
  const int number = pair.child;
  CHECK(heart.Follow(number) == 0);
  close(number);
  int other[2];
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, other) == 0);
  CHECK(other[0] == number);  // the kernel gives the lowest that is free
  CHECK(wait_until(heart, heart.beats() + 3));
  char packet[8];
  CHECK(recv(other[1], packet, sizeof packet, MSG_DONTWAIT) < 0);
  pair.child = -1;
  close(other[0]);
  close(other[1]);
  CHECK(heart.Follow(-1) == 0 && heart.Follow(1 << 20) == EBADF);
  return true;
}

volatile sig_atomic_t taken = 0;

// A signal that the main thread does not take now waits for it: the heart's must not take it.
bool takes_no_signals() {
  struct sigaction action = {};
  action.sa_handler = [](int) { taken = 1; };
  sigaction(SIGUSR1, &action, nullptr);
  Heartbeat heart("beat", 1ms);
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &one, nullptr);
  kill(getpid(), SIGUSR1);
  std::this_thread::sleep_for(5ms);
  CHECK(taken == 0);
  pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
  CHECK(taken == 1);
  heart.Stop();
  heart.Stop();
  return true;
}

}  // namespace

int main() {
  bool good = beats_and_follows();
  good = sends_whole_packets_beside_others() && good;
  good = survives_a_full_peer_and_a_dead_one() && good;
  good = a_closed_number_is_not_written_to() && good;
  good = takes_no_signals() && good;
  return good ? 0 : 1;
}
