// Streams: records in, the bytes of the wire out, over real sockets.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "smmf/stream_table.hpp"

namespace {

using smmf::Event;
using smmf::Record;
using smmf::Unsent;

constexpr size_t kMaxPending = 1 << 20;
constexpr size_t kAll = 65536;

std::shared_ptr<const smmf::Frame> chat() {
  auto frame = std::make_shared<smmf::Frame>();
  frame->text_open = ",t=\"";
  frame->text_close = "\",f=";
  frame->finish_open = ",f=";
  frame->tail = "}\n\n";
  frame->reasons = {"stop", "length", "tool", "filter"};
  return frame;
}

struct World {
  World() : memfd(smmf::CreateSegment(1 << 20, 8)), bell(eventfd(0, EFD_NONBLOCK)) {
    is_open = writer.Open(memfd, bell) == 0 && reader.Open(memfd, bell) == 0 &&
              socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0;
    const int least = 1;  // the kernel makes it its minimum
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &least, sizeof least);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
  }
  ~World() {
    for (const int fd : {memfd, bell, ends[0], ends[1]}) {
      if (fd >= 0) close(fd);
    }
  }

  smmf::Stream* open(uint64_t key, int fd, bool chunked = true) {
    smmf::Stream* stream = table.Open(key);
    stream->frame = chat();
    stream->prefix = "{c=";
    stream->head = "HEAD\r\n\r\n";
    stream->first = "";
    stream->fd = fd;
    stream->chunked = chunked;
    return stream;
  }

  bool put(uint64_t key, uint8_t kind, uint32_t choice, uint32_t count,
           const std::string& payload) {
    const Record record{kind, 0, key, choice, count, payload.data(), payload.size()};
    return writer.Write(&record, 1) == 1;
  }
  bool text(uint64_t key, uint32_t choice, const std::string& text) {
    return put(key, smmf::kTokens, choice, 1, std::string(4, '\1') + text);
  }
  size_t drain() { return table.Drain(&reader, 1.0, kAll, &events); }

  std::vector<Unsent> flush() {
    std::vector<Unsent> unsent;
    table.Flush(&unsent);
    return unsent;
  }

  std::string received() {
    std::string all(1 << 20, '\0');
    size_t size = 0;
    for (;;) {
      const ssize_t more = recv(ends[1], all.data() + size, all.size() - size, 0);
      if (more <= 0) break;
      size += static_cast<size_t>(more);
    }
    all.resize(size);
    return all;
  }

  int memfd, bell, ends[2] = {-1, -1};
  bool is_open = false;
  smmf::RingWriter writer;
  smmf::RingReader reader;
  smmf::StreamTable table{kMaxPending};
  std::vector<Event> events;
};

// The bodies of all whole chunks; false for anything else.
bool unchunk(const std::string& wire, std::string* body, size_t* chunks) {
  size_t at = 0;
  while (at < wire.size()) {
    const size_t end = wire.find("\r\n", at);
    CHECK(end != std::string::npos);
    const size_t size = std::stoul(wire.substr(at, end - at), nullptr, 16);
    CHECK(wire.substr(end + 2 + size, 2) == "\r\n");
    body->append(wire, end + 2, size);
    at = end + 4 + size;
    ++*chunks;
  }
  return true;
}

bool without_choices_an_event_is_its_text() {
  World it;
  CHECK(it.is_open);
  auto frame = std::make_shared<smmf::Frame>();
  frame->text_open = "t=\"";
  frame->reasoning_open = "r=\"";
  frame->text_close = frame->reasoning_close = "\"";
  frame->tail = "}\n";
  frame->has_choices = false;
  smmf::Stream* stream = it.open(7, it.ends[0], false);
  stream->frame = frame;
  stream->prefix = "{";
  CHECK(it.put(7, smmf::kAdmit, 0, 3, std::string(4, '\0')) &&
        it.put(7, smmf::kReasoning, 0, 1, std::string(4, '\1') + "hm") && it.text(7, 0, "a\"") &&
        it.text(7, 0, "b") && it.put(7, smmf::kChoiceEnd, 0, 1, "why"));
  CHECK(it.drain() == 5 && it.flush().empty());
  CHECK(it.received() == "HEAD\r\n\r\n{r=\"hm\"}\n{t=\"a\\\"b\"}\n");
  CHECK(it.events.size() == 2 && it.events[1].kind == smmf::kChoiceEnd);  // its end is Python's
  CHECK(it.events[1].count == 1 && it.events[1].payload == "why" && stream->reason == 1);
  return true;
}

bool one_turn_is_one_chunk() {
  World it;
  CHECK(it.is_open);
  it.open(7, it.ends[0]);
  CHECK(it.put(7, smmf::kAdmit, 0, 3, std::string(4, '\0')) && it.text(7, 0, "a\"") &&
        it.text(7, 0, "b") && it.text(7, 12, "c") && it.put(7, smmf::kChoiceEnd, 0, 1, ""));
  CHECK(it.drain() == 5 && it.flush().empty());
  const std::string body =
      "{c=0,t=\"a\\\"b\",f=null}\n\n{c=12,t=\"c\",f=null}\n\n{c=0,f=length}\n\n";
  CHECK(body.size() == 0x3c && it.received() == "HEAD\r\n\r\n3c\r\n" + body + "\r\n");
  CHECK(it.events.size() == 1 && it.events[0].kind == smmf::kAdmit);
  CHECK(it.flush().empty() && it.received().empty());  // nothing is dirty
  it.table.Append(7, "END", 3, true);
  CHECK(it.flush().empty() && it.received() == "3\r\nEND\r\n0\r\n\r\n");
  return true;
}

bool an_ended_body_needs_no_bytes() {
  World it;
  it.open(7, it.ends[0]);
  it.table.Append(7, "", 0, true);
  CHECK(it.flush().empty() && it.received() == "0\r\n\r\n");
  it.open(8, it.ends[0], false);
  it.table.Append(8, "raw", 3, true);
  CHECK(it.flush().empty() && it.received() == "raw");
  return true;
}

bool what_a_full_socket_refuses_comes_back_in_order() {
  World it;
  it.open(7, it.ends[0]);
  std::mt19937_64 random(4);
  std::string sent, rest, arrived;
  CHECK(it.put(7, smmf::kAdmit, 0, 3, std::string(4, '\0')));
  size_t blocked = 0;
  for (int turn = 0; turn < 400; ++turn) {
    for (size_t i = random() % 6; i > 0; --i) {
      const std::string text(random() % 900, static_cast<char>('a' + turn % 26));
      CHECK(it.text(7, 0, text));
      sent += text;
    }
    it.drain();
    const auto unsent = it.flush();
    CHECK(unsent.size() <= 1 && (unsent.empty() || rest.empty()));
    if (!unsent.empty()) {
      CHECK(unsent[0].key == 7 && !unsent[0].rest.empty());
      rest = unsent[0].rest;  // the transport's now
      ++blocked;
    }
    if (random() % 3 > 0) continue;
    arrived += it.received() + rest;
    rest.clear();
    it.table.Unblock(7);
  }
  arrived += it.received() + rest;
  it.table.Unblock(7);
  for (const Unsent& last : it.flush()) arrived += it.received() + last.rest;
  arrived += it.received();
  CHECK(blocked > 10 && arrived.compare(0, 8, "HEAD\r\n\r\n") == 0);
  std::string body, text;
  size_t chunks = 0;
  CHECK(unchunk(arrived.substr(8), &body, &chunks) && chunks > 20);
  for (size_t at = 0; (at = body.find("t=\"", at)) != std::string::npos;) {
    const size_t end = body.find('"', at + 3);
    text += body.substr(at + 3, end - at - 3);
    at = end;
  }
  CHECK(text == sent);
  return true;
}

bool a_broken_connection_is_told_once() {
  World it;
  it.open(7, it.ends[0]);
  close(it.ends[1]);
  it.ends[1] = -1;
  it.table.Append(7, "x", 1, false);
  const auto unsent = it.flush();
  CHECK(unsent.size() == 1 && unsent[0].key == 7 && unsent[0].rest.empty());
  it.table.Append(7, "y", 1, false);
  CHECK(it.flush().empty());
  it.table.Close(7);
  CHECK(it.table.size() == 0 && it.flush().empty());
  return true;
}

bool streams_come_and_go_in_any_order() {
  World it;
  std::mt19937_64 random(5);
  uint64_t late = 0;
  for (int turn = 0; turn < 3000; ++turn) {
    const uint64_t key = random() % 40;
    switch (random() % 6) {
      case 0:
        it.open(key, -1);
        break;
      case 1:
        it.table.Close(key);
        break;
      case 2:
        it.table.Block(key);
        break;
      case 3:
        it.table.Unblock(key);
        break;
      default:
        if (it.table.Find(key) == nullptr) ++late;
        CHECK(it.text(key, random() % 3, "word"));
        CHECK(it.drain() == 1);
    }
    if (random() % 8 == 0) {
      for (const Unsent& one : it.flush()) CHECK(it.table.Find(one.key) && !one.rest.empty());
    }
  }
  CHECK(late > 0 && it.table.late_records() == late);
  return true;
}

}  // namespace

int main() {
  const bool ok = one_turn_is_one_chunk() && without_choices_an_event_is_its_text() &&
                  an_ended_body_needs_no_bytes() &&
                  what_a_full_socket_refuses_comes_back_in_order() &&
                  a_broken_connection_is_told_once() && streams_come_and_go_in_any_order();
  return ok ? 0 : 1;
}
