// The floor of streaming on this machine: a loop that does nothing but send() recorded bytes.
//
// It reads a request from each connection, then sends the recorded chunks, one send() per chunk and
// connection, all connections in turn: one step. No parsing, no framing, no second process. A step
// may be paced. Usage: send_loop PORT CHUNKS_FILE CONNECTIONS STEP_US
// CHUNKS_FILE: for every chunk a little-endian u32 length and its bytes. Serves rounds of
// CONNECTIONS requests until its standard input closes.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

std::vector<std::string> ReadChunks(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<std::string> chunks;
  uint32_t size = 0;
  while (file.read(reinterpret_cast<char*>(&size), sizeof size)) {
    std::string chunk(size, '\0');
    file.read(chunk.data(), size);
    chunks.push_back(std::move(chunk));
  }
  return chunks;
}

int Listen(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      listen(fd, 4096) != 0) {
    std::perror("send_loop");
    std::exit(1);
  }
  return fd;
}

// Sends everything; waits for the client where its socket is full.
bool SendAll(int fd, const std::string& bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    ssize_t n = send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      return false;
    }
    sent += static_cast<size_t>(n);
  }
  return true;
}

bool StdinClosed() {
  pollfd input{0, POLLIN, 0};
  return poll(&input, 1, 0) > 0;
}

// Accepts one round of connections and reads each one's request. False when input has closed.
bool AcceptRound(int listener, int count, std::vector<int>* round) {
  round->clear();
  while (static_cast<int>(round->size()) < count) {
    pollfd wait[2] = {{listener, POLLIN, 0}, {0, POLLIN, 0}};
    poll(wait, 2, -1);
    if (wait[1].revents != 0) return false;
    int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    round->push_back(fd);
  }
  char buffer[65536];
  for (int fd : *round) {
    if (recv(fd, buffer, sizeof buffer, 0) <= 0) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: send_loop PORT CHUNKS_FILE CONNECTIONS STEP_US\n");
    return 2;
  }
  const std::vector<std::string> chunks = ReadChunks(argv[2]);
  const int connections = std::atoi(argv[3]);
  const auto step = std::chrono::microseconds(std::atoi(argv[4]));
  const int listener = Listen(std::atoi(argv[1]));
  std::puts("ready");
  std::fflush(stdout);
  std::vector<int> round;
  while (!StdinClosed() && AcceptRound(listener, connections, &round)) {
    auto due = Clock::now();
    for (const std::string& chunk : chunks) {
      for (int fd : round) SendAll(fd, chunk);
      due += step;
      if (step.count() > 0) std::this_thread::sleep_until(due);
    }
    for (int fd : round) close(fd);
  }
  return 0;
}
