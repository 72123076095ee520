// JSON string escaping (RFC 8259, section 7) of UTF-8 text that may be broken.
#ifndef SMMF_JSON_ESCAPE_HPP_
#define SMMF_JSON_ESCAPE_HPP_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace smmf {

namespace json_internal {

// 1: needs an escape; 2: begins a multi-byte sequence or is invalid; 0: goes as it is.
inline const std::array<uint8_t, 256>& Classes() {
  static const std::array<uint8_t, 256> classes = [] {
    std::array<uint8_t, 256> made{};
    for (int c = 0; c < 0x20; ++c) made[c] = 1;
    made['"'] = made['\\'] = made[0x7f] = 1;
    for (int c = 0x80; c < 0x100; ++c) made[c] = 2;
    return made;
  }();
  return classes;
}

// Whether all eight bytes go as they are. A borrow or carry may only make a clean word look dirty.
inline bool IsPlainWord(const unsigned char* text) {
  constexpr uint64_t kOnes = 0x0101010101010101u;
  uint64_t word;
  std::memcpy(&word, text, sizeof word);
  const uint64_t quote = word ^ (kOnes * '"');
  const uint64_t backslash = word ^ (kOnes * '\\');
  const uint64_t odd = word | (word + kOnes) | (word - kOnes * 0x20) | (quote - kOnes) |
                       (backslash - kOnes);  // not ASCII, DEL, control, quote, backslash
  return (odd & (kOnes * 0x80)) == 0;
}

// Length of the valid sequence at `text` (Unicode 15, table 3-7), or 0.
inline size_t SequenceLength(const unsigned char* text, size_t left) {
  const unsigned char c = text[0];
  const size_t length = c >= 0xc2 && c <= 0xdf   ? 2
                        : c >= 0xe0 && c <= 0xef ? 3
                        : c >= 0xf0 && c <= 0xf4 ? 4
                                                 : 0;
  if (length == 0 || length > left) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((text[i] & 0xc0) != 0x80) return 0;
  }
  if ((c == 0xe0 && text[1] < 0xa0) || (c == 0xed && text[1] > 0x9f)) return 0;
  if ((c == 0xf0 && text[1] < 0x90) || (c == 0xf4 && text[1] > 0x8f)) return 0;
  return length;
}

inline void AppendEscape(unsigned char c, std::string* out) {
  static const char kHex[] = "0123456789abcdef";
  switch (c) {
    case '"':
      out->append("\\\"", 2);
      return;
    case '\\':
      out->append("\\\\", 2);
      return;
    case '\n':
      out->append("\\n", 2);
      return;
    case '\r':
      out->append("\\r", 2);
      return;
    case '\t':
      out->append("\\t", 2);
      return;
    default:
      break;
  }
  const char escape[] = {'\\', 'u', '0', '0', kHex[c >> 4], kHex[c & 15]};
  out->append(escape, sizeof escape);
}

}  // namespace json_internal

// Appends the inside of a JSON string literal. A byte that is not part of valid UTF-8 becomes
// U+FFFD.
inline void AppendJsonEscaped(const char* data, size_t size, std::string* out) {
  const auto& classes = json_internal::Classes();
  const auto* text = reinterpret_cast<const unsigned char*>(data);
  size_t from = 0;  // first byte not yet copied
  size_t at = 0;
  while (at < size) {
    if (at + 8 <= size && json_internal::IsPlainWord(text + at)) {
      at += 8;
      continue;
    }
    const uint8_t kind = classes[text[at]];
    if (kind == 0) {
      ++at;
      continue;
    }
    const size_t length =
        kind == 2 ? json_internal::SequenceLength(text + at, size - at) : size_t{0};
    if (length > 0) {
      at += length;
      continue;
    }
    out->append(data + from, at - from);
    if (kind == 1) {
      json_internal::AppendEscape(text[at], out);
    } else {
      out->append("\xef\xbf\xbd", 3);
    }
    from = ++at;
  }
  out->append(data + from, size - from);
}

}  // namespace smmf

#endif  // SMMF_JSON_ESCAPE_HPP_
