// Framing of one stream: text into SSE events, events into one HTTP chunk, one send per turn.
//
// Thread safety: none; a stream belongs to its Router's one thread.
#ifndef SMMF_FRAMES_HPP_
#define SMMF_FRAMES_HPP_

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <memory>
#include <string>

#include "smmf/json_escape.hpp"

namespace smmf {

// The fixed parts of a dialect's events, shared by its streams. An event of choice i is
//   text:   prefix i text_open ESCAPED text_close `null` tail
//   finish: prefix i finish_open reason tail
//   reasoning: prefix i reasoning_open ESCAPED reasoning_close `null` tail
// With merge_finish the finish goes into the last text event: `null` becomes the reason. Where
// reasoning_again is not empty, `reasoning_again ESCAPED` goes before reasoning_close: some clients
// read the one field, some the other. Without has_choices there is one choice only: its events have
// neither i nor `null`, and Python frames its finish.
struct Frame {
  std::string text_open, text_close, finish_open, tail;
  std::string reasoning_open, reasoning_again, reasoning_close;
  std::array<std::string, 4> reasons;
  bool merge_finish = false;
  bool has_choices = true;
};

enum class SendState { kSent, kBlocked, kBroken };

class Stream {
 public:
  // What the Router gives; `frame` may be null: then Python frames this stream's records.
  std::shared_ptr<const Frame> frame;
  std::string prefix, head, first;
  uint16_t attempt = 0;
  int fd = -1;
  bool chunked = true;
  // What happened, in seconds of the Router's clock.
  double opened_at = 0, admitted_at = 0, first_token_at = 0, last_token_at = 0, last_record_at = 0;
  double last_event_at = 0;  // something for the client
  uint64_t tokens = 0;
  int reason = -1;  // why its last choice ended; -1: none has
  // Where its bytes are.
  bool is_dirty = false, is_blocked = false, is_ended = false, is_over = false, has_emitted = false;

  size_t pending() const { return raw_.size() + body_.size(); }
  bool has_pending() const { return pending() > 0 || (is_ended && !trailer_out_); }

  // The response head goes unchunked before everything else; `first` is the body's beginning.
  void Admit(double now) {
    admitted_at = now;
    raw_.append(head);
    body_.append(first);
  }

  void Text(uint32_t choice, const char* text, size_t size) {
    if (size == 0) return;
    OpenEvent(choice, false);
    AppendJsonEscaped(text, size, &body_);
  }

  void Reasoning(uint32_t choice, const char* text, size_t size) {
    if (size == 0) return;
    OpenEvent(choice, true);
    AppendJsonEscaped(text, size, &body_);
  }

  // From here on Python frames this stream's records: it must see them in their order.
  void GiveUpFrame() {
    CloseOpenEvent();
    frame.reset();
  }

  void ChoiceEnd(uint32_t choice, uint32_t reason) {
    const std::string& why = frame->reasons[reason & 3];
    if (frame->merge_finish) {
      OpenEvent(choice, false);
      CloseEvent(why);
      return;
    }
    CloseOpenEvent();
    AppendPrefix(choice);
    body_.append(frame->finish_open).append(why).append(frame->tail);
  }

  void Append(const char* bytes, size_t size, bool end) {
    CloseOpenEvent();
    body_.append(bytes, size);
    is_ended = is_ended || end;
  }

  // Everything pending as the bytes of the wire.
  std::string Take() {
    std::string wire;
    Chunk chunk = Close();
    wire.reserve(pending() + 32);
    wire.append(raw_).append(chunk.size_line, chunk.size_bytes).append(body_);
    wire.append(chunk.trailer, chunk.trailer_bytes);
    Clear();
    return wire;
  }

  // One send of everything pending. What the kernel does not take comes back in `rest`.
  SendState Send(std::string* rest) {
    Chunk chunk = Close();
    std::array<iovec, 4> parts{{{raw_.data(), raw_.size()},
                                {chunk.size_line, chunk.size_bytes},
                                {body_.data(), body_.size()},
                                {const_cast<char*>(chunk.trailer), chunk.trailer_bytes}}};
    size_t total = 0;
    for (const iovec& part : parts) total += part.iov_len;
    const size_t skip = raw_.empty() ? 1 : 0;
    msghdr message{};
    message.msg_iov = parts.data() + skip;
    message.msg_iovlen = parts.size() - skip;
    const ssize_t sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
      Clear();
      return SendState::kBroken;
    }
    const size_t done = sent < 0 ? 0 : static_cast<size_t>(sent);
    if (done < total) Rest(parts, done, rest);
    Clear();
    return done < total ? SendState::kBlocked : SendState::kSent;
  }

 private:
  struct Chunk {
    char size_line[20];
    size_t size_bytes = 0;
    const char* trailer = "";
    size_t trailer_bytes = 0;
  };

  void AppendPrefix(uint32_t choice) {
    body_.append(prefix);
    if (!frame->has_choices) return;
    char digits[10];
    const auto end = std::to_chars(digits, digits + sizeof digits, choice).ptr;
    body_.append(digits, static_cast<size_t>(end - digits));
  }

  void OpenEvent(uint32_t choice, bool is_reasoning) {
    if (event_open_ && open_choice_ == choice && open_reasoning_ == is_reasoning) return;
    CloseOpenEvent();
    AppendPrefix(choice);
    body_.append(is_reasoning ? frame->reasoning_open : frame->text_open);
    event_open_ = true;
    open_choice_ = choice;
    open_reasoning_ = is_reasoning;
    text_at_ = body_.size();
  }

  void CloseEvent(const std::string& reason) {
    if (open_reasoning_ && !frame->reasoning_again.empty()) {
      const std::string text = body_.substr(text_at_);
      body_.append(frame->reasoning_again).append(text);
    }
    body_.append(open_reasoning_ ? frame->reasoning_close : frame->text_close);
    if (frame->has_choices) body_.append(reason);
    body_.append(frame->tail);
    event_open_ = false;
  }

  void CloseOpenEvent() {
    static const std::string kNull = "null";
    if (event_open_) CloseEvent(kNull);
  }

  // Closes the open event and computes the chunk's size line and trailer (RFC 9112, section 7.1).
  Chunk Close() {
    CloseOpenEvent();
    Chunk chunk;
    const bool end = is_ended && !trailer_out_;
    if (!chunked) {
      trailer_out_ = trailer_out_ || end;
      return chunk;
    }
    if (!body_.empty()) {
      char* last = chunk.size_line + sizeof chunk.size_line;
      char* at = std::to_chars(chunk.size_line, last, body_.size(), 16).ptr;
      *at++ = '\r';
      *at++ = '\n';
      chunk.size_bytes = static_cast<size_t>(at - chunk.size_line);
      chunk.trailer = end ? "\r\n0\r\n\r\n" : "\r\n";
      chunk.trailer_bytes = end ? 7 : 2;
    } else if (end) {
      chunk.trailer = "0\r\n\r\n";
      chunk.trailer_bytes = 5;
    }
    trailer_out_ = trailer_out_ || end;
    return chunk;
  }

  static void Rest(const std::array<iovec, 4>& parts, size_t done, std::string* rest) {
    rest->clear();
    for (const iovec& part : parts) {
      const size_t skip = done < part.iov_len ? done : part.iov_len;
      rest->append(static_cast<const char*>(part.iov_base) + skip, part.iov_len - skip);
      done -= skip;
    }
  }

  void Clear() {
    has_emitted = true;
    raw_.clear();
    body_.clear();
  }

  std::string raw_, body_;
  bool event_open_ = false;
  bool trailer_out_ = false;
  bool open_reasoning_ = false;
  uint32_t open_choice_ = 0;
  size_t text_at_ = 0;  // where the open event's text begins in body_
};

}  // namespace smmf

#endif  // SMMF_FRAMES_HPP_
