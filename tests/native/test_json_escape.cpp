// JSON escaping against a plain decoder, on buffers that end where their allocation ends (ASan).
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"
#include "smmf/json_escape.hpp"

namespace {

std::string escaped(const std::string& text) {
  const auto exact = std::make_unique<char[]>(text.size());  // a read beyond it is an error
  std::memcpy(exact.get(), text.data(), text.size());
  std::string out = "kept";
  smmf::AppendJsonEscaped(exact.get(), text.size(), &out);
  return out.compare(0, 4, "kept") == 0 ? out.substr(4) : "lost what was there";
}

// Bytes of the character at `at`, or 0: by value, not by table.
size_t length_of_character(const std::string& text, size_t at) {
  const auto byte = [&](size_t i) { return uint32_t{static_cast<unsigned char>(text[i])}; };
  const uint32_t first = byte(at);
  if (first < 0x80) return 1;
  const size_t length = first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
  if (length == 0 || at + length > text.size()) return 0;
  uint32_t value = first & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if (byte(at + i) >> 6 != 2) return 0;
    value = value << 6 | (byte(at + i) & 0x3f);
  }
  const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = value >= 0xd800 && value <= 0xdfff;
  return value < least[length] || value > 0x10ffff || is_surrogate ? 0 : length;
}

std::string expected(const std::string& text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t length = length_of_character(text, at);
    const char c = text[at];
    if (length == 0) {
      out += "\xef\xbf\xbd";
    } else if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += {'\\', c == '\n' ? 'n' : c == '\r' ? 'r' : 't'};
    } else if (length == 1 && (c < 0x20 || c == 0x7f)) {
      char escape[7];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out.append(text, at, length);
    }
    at += length == 0 ? 1 : length;
  }
  return out;
}

bool every_two_bytes() {
  for (unsigned pair = 0; pair < 0x10000; ++pair) {
    const std::string text = {static_cast<char>(pair >> 8), static_cast<char>(pair)};
    CHECK(escaped(text) == expected(text));
  }
  return true;
}

bool borders_of_the_code_in_any_company() {
  const std::vector<std::string> pieces = {"a",
                                           "abcdefgh",
                                           "\"",
                                           "\\",
                                           "\n",
                                           "\x1f",
                                           " ",
                                           "\x7f",
                                           "\xc2\x80",
                                           "\xdf\xbf",
                                           "\xc1\xbf",
                                           "\xe0\xa0\x80",
                                           "\xe0\x9f\xbf",
                                           "\xed\x9f\xbf",
                                           "\xed\xa0\x80",
                                           "\xef\xbf\xbf",
                                           "\xf0\x90\x80\x80",
                                           "\xf0\x8f\xbf\xbf",
                                           "\xf4\x8f\xbf\xbf",
                                           "\xf4\x90\x80\x80",
                                           "\xf5",
                                           "\xff",
                                           "\x80",
                                           "\xc3",
                                           "\xe2\x82",
                                           "\xf0\x9f\x98"};
  std::mt19937_64 random(1);
  for (int round = 0; round < 30000; ++round) {
    std::string text;
    for (size_t i = random() % 9; i > 0; --i) text += pieces[random() % pieces.size()];
    CHECK(escaped(text) == expected(text));
    const std::string cut = text.substr(0, random() % (text.size() + 1));
    CHECK(escaped(cut) == expected(cut));
  }
  return true;
}

}  // namespace

int main() { return every_two_bytes() && borders_of_the_code_in_any_company() ? 0 : 1; }
